defmodule DSPex.ToolTest do
  use ExUnit.Case, async: true

  alias DSPex.Tool

  doctest DSPex.Tool

  defp refusal(name, description, parameters, run) do
    assert_raise(ArgumentError, fn -> Tool.new(name, description, parameters, run) end).message
  end

  test "what cannot be a tool is refused, with what would be right" do
    run = fn _args -> nil end
    assert refusal("two words", "", [], run) =~ ~s(letters, digits and _, not "two words")
    assert refusal(nil, "", [], run) =~ "an atom or a string"
    assert refusal(:finish, "", [], run) =~ "DSPy's ReAct has one of its own"
    assert refusal(:t, nil, [], run) == "the tool t: its description is a string"

    assert refusal(:t, "", [], fn -> nil end) =~
             "takes the arguments, or the arguments and a cont"

    assert refusal(:t, "", [:a], run) =~ "a keyword list, or a JSON Schema map"
    assert refusal(:t, "", [a: :strng], run) =~ "parameter :a: unknown type :strng (did you mean"
    assert refusal(:t, "", [a: {:string, mn: 1}], run) =~ "parameter :a: unknown option :mn"
  end

  test "a type that has types in it is told from a type with options" do
    types = [
      {:union, [{:list, :string}, {:optional, :integer}]},
      {:tuple, [{:list, :string}]},
      {:one_of, [:a, "b", 1]},
      {:list, :string},
      {:embedding, 3}
    ]

    for type <- types do
      assert [%{type: ^type}] = Tool.new(:t, "", [a: type], & &1).parameters
    end

    assert [%{type: {:list, :string}, constraints: %{max_items: 3}}] =
             Tool.new(:t, "", [a: {{:list, :string}, max_items: 3}], & &1).parameters
  end

  test "tools are a list, no two of one name; a map of a tool's parts is one" do
    tool = Tool.new(:t, "", [], & &1)
    assert Tool.list([tool]) == {:ok, [tool]}
    assert Tool.list([%{name: "t", description: "", run: tool.run}]) == {:ok, [tool]}
    assert Tool.list([tool, tool]) == {:error, ~s(two tools are named "t")}
    assert {:error, "expected a DSPex.Tool, or a map" <> _} = Tool.list([:t])
    assert {:error, "expected a list of tools"} = Tool.list(tool)
    assert {:error, message} = Tool.list([%{nme: "t"}])
    assert message =~ "not :nme (did you mean :name?)"
  end

  test "what its function has closed over is not shown" do
    secret = "sk-never-shown"
    tool = Tool.new(:t, "", [], fn _args -> secret end)
    assert inspect(tool) == "#DSPex.Tool<t>"
    refute inspect(tool, structs: false) =~ secret
  end
end
