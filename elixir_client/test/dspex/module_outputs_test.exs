defmodule DSPex.ModuleOutputsTest do
  use ExUnit.Case, async: true

  alias DSPex.{ModuleOutputs, Signature}

  # Whose table of modules the bridge's tests hold to the bridge.
  @specification Path.expand("../../../protocol/SPEC.md", __DIR__)

  defmodule Answer do
    use DSPex.Signature
    input :question, :string
    output :answer, :string
  end

  @kinds %{string: "s", map: %{"k" => 1}, list: [1]}

  test "what each module adds is what the specification says" do
    [_before, table] =
      @specification
      |> File.read!()
      |> String.split("| module | options | tools | outputs of its own |\n", parts: 2)

    ["|---" <> _rule | lines] = String.split(table, "\n")
    rows = Enum.take_while(lines, &String.starts_with?(&1, "|"))
    assert length(rows) > 10

    for row <- rows do
      ["", module, options, _tools, outputs, ""] =
        row |> String.split("|") |> Enum.map(&String.trim/1)

      [module] = names(module)
      added = for {name, _kind} <- ModuleOutputs.of(module, %{}), do: Atom.to_string(name)
      assert {module, added} == {module, names(outputs)}

      # Those around another one have it as their option.
      around? = "module" in names(options)
      inner = ModuleOutputs.of(module, %{"module" => "chain_of_thought"})

      assert {module, inner == [reasoning: :string]} ==
               {module, around? or added == ["reasoning"]}
    end
  end

  defp names(cell), do: for([_all, name] <- Regex.scan(~r/`([a-zA-Z0-9_]+)`/, cell), do: name)

  test "all of them come under atoms where the signature was written in Elixir" do
    signature = Answer.__signature__()

    for module <- ~w(chain_of_thought react react_v2 multi_chain_comparison code_act rlm) do
      added = ModuleOutputs.of(module, %{})
      assert added != []
      outputs = Map.new(added, fn {name, kind} -> {Atom.to_string(name), @kinds[kind]} end)
      assert {:ok, loaded} = Signature.load_outputs(signature, Map.put(outputs, "answer", "a"))

      assert loaded ==
               Map.new([{:answer, "a"} | added], fn
                 {name, kind} when is_atom(kind) -> {name, @kinds[kind]}
                 other -> other
               end)
    end
  end
end
