defmodule DSPex.Signature.FormsTest do
  # The forms in which a signature can be written, and what every one of them makes.
  use ExUnit.Case, async: true

  alias DSPex.{Error, Signature}

  @text "question: str, context: list[str] -> answer: str, score: probability"

  defmodule InUse do
    @moduledoc "Answer."
    use DSPex.Signature,
        "question: str, context: list[str] -> answer: str, score: probability"
  end

  defmodule InText do
    @moduledoc "Answer."
    use DSPex.Signature
    signature("question, context: list[str] -> answer, score: probability")
  end

  defmodule InArrow do
    @moduledoc "Answer."
    use DSPex.Signature

    signature do
      question: :string, context: {:list, :string} -> [answer: :string, score: :probability]
    end
  end

  defmodule InLists do
    @moduledoc "Answer."
    use DSPex.Signature

    signature(
      [question: :string, context: {:list, :string}]
      ~> [answer: :string, score: :probability]
    )
  end

  defmodule InLines do
    @moduledoc "Answer."
    use DSPex.Signature

    input :question, :string
    input :context, {:list, :string}
    output :answer, :string
    output :score, :probability
  end

  test "all forms mean the same" do
    [first | others] = [InUse, InText, InArrow, InLists, InLines]
    wanted = %{first.__signature__() | name: nil}
    assert to_string(wanted) == @text
    assert wanted.instructions == "Answer."
    for module <- others, do: assert(%{module.__signature__() | name: nil} == wanted)
    assert {:ok, at_run_time} = Signature.new(@text, instructions: "Answer.")
    assert Signature.to_wire(at_run_time) == Map.delete(Signature.to_wire(wanted), "name")
  end

  defmodule Ticket do
    @moduledoc "Sort it."
    use DSPex.Signature

    input :text, :string, description: "the mail", min_length: 1
    input :lang, {:one_of, [:en, :de]}, default: :en
    input :at, {:optional, :datetime}
    output :kind, :atom, one_of: [:billing, :defect]
    output :person, %{name: :string, age: {:optional, :integer}}
    output :result, {:union, [{:tagged, :ok, :string}, {:tagged, :error, :integer}]}
    output :ratings, {:list, {:constrained, :integer, min: 1, max: 5}}
  end

  defmodule Reply do
    use DSPex.Signature

    input :ticket, Ticket.Inputs
    input :sorted, {:optional, Ticket.Outputs}
    output :answer, :string
  end

  test "inputs and outputs are structs, with what has to be given" do
    assert {:ok, %Ticket.Inputs{text: "x", lang: :en, at: nil}} = Ticket.Inputs.new(text: "x")
    assert {:ok, %Ticket.Inputs{lang: :de}} = Ticket.Inputs.new(%{"text" => "x", "lang" => "de"})
    assert {:error, %Error{code: :input_validation}} = Ticket.Inputs.new(%{})
    assert_raise ArgumentError, ~r/text/, fn -> struct!(Ticket.Inputs, lang: :en) end
    assert %{kind: nil, person: nil} = Map.from_struct(struct(Ticket.Outputs))
  end

  test "the struct of one signature is a type of another" do
    ticket = %Ticket.Inputs{text: "x", at: ~U[2024-02-29 12:00:00Z]}
    assert {:ok, %{ticket: ^ticket, sorted: nil}} = Reply.validate_inputs(%{ticket: ticket})

    assert {:ok, %{ticket: %Ticket.Inputs{text: "x", lang: :de}}} =
             Reply.validate_inputs(%{"ticket" => %{"text" => "x", "lang" => "de"}})

    assert {:error, error} = Reply.validate_inputs(%{ticket: %{text: "", lang: "fr", at: 5}})

    assert Enum.map(error.data["errors"], &{&1["path"], &1["type"]}) == [
             {["ticket", "text"], "min_length"},
             {["ticket", "lang"], "literal"},
             {["ticket", "at"], "type"}
           ]

    # An error names the whole text, as the bridge's does.
    assert Signature.dump(Reply.input_fields(), %{ticket: ticket}) == %{
             ticket: %{"text" => "x", "lang" => :en, "at" => ~U[2024-02-29 12:00:00Z]}
           }

    wire = Signature.to_wire(Reply.__signature__())

    assert %{
             "type" => "object",
             "properties" => %{"text" => %{"minLength" => 1, "description" => "the mail"}},
             "required" => ["text"],
             "additionalProperties" => false
           } = hd(wire["inputs"])["type"]
  end

  test "outputs come back as the types say, with the atoms of the signature and no others" do
    outputs = %{
      "kind" => "defect",
      "person" => %{"name" => "Ann"},
      "result" => ["error", 5],
      "ratings" => [1, 5]
    }

    assert {:ok, loaded} = Signature.load_outputs(Ticket.__signature__(), outputs)

    assert loaded == %{
             kind: :defect,
             person: %{name: "Ann"},
             result: {:error, 5},
             ratings: [1, 5]
           }

    assert Ticket.validate_outputs(loaded) == {:ok, loaded}

    assert {:error, error} =
             Ticket.validate_outputs(%{outputs | "kind" => "other", "ratings" => [0, "x"]})

    assert Enum.map(error.data["errors"], & &1["path"]) == [
             ["kind"],
             ["ratings", 0],
             ["ratings", 1]
           ]
  end

  test "false and nil are values, and a key stands once" do
    {:ok, signature} = Signature.new({[flag: :boolean, any: :any], [a: :string]})

    assert Signature.validate_inputs(signature, %{flag: false, any: nil}) ==
             {:ok, %{flag: false, any: nil}}

    assert {:error, error} =
             Signature.validate_inputs(signature, %{:flag => true, "flag" => true, :any => 1})

    assert [%{"path" => ["flag"], "type" => "key"}] = error.data["errors"]
    assert {:error, %Error{code: :invalid_params}} = Signature.validate_inputs(signature, [1])
    assert {:error, %Error{code: :invalid_params}} = Signature.validate_inputs(signature, nil)
  end

  test "errors are collected up to a hundred" do
    {:ok, signature} = Signature.parse("n: list[int] -> a")
    values = List.duplicate("x", 100)
    assert {:error, error} = Signature.validate_inputs(signature, %{n: values})
    assert length(error.data["errors"]) == 100
    refute is_map_key(error.data, "truncated")
    assert {:error, error} = Signature.validate_inputs(signature, %{n: ["x" | values]})
    assert length(error.data["errors"]) == 100
    assert error.data["truncated"]
  end

  test "a text for people" do
    assert Ticket.describe() =~ "DSPex.Signature.FormsTest.Ticket\n\nSort it.\n\nInputs:\n"
    assert Ticket.describe() =~ "  * `text` (`str (min_length 1)`): the mail\n"
    assert Ticket.describe() =~ ~s|  * `lang` (`Literal["en", "de"]`, default `:en`)\n|
  end

  # Compiles a file, so that the lines of a form can be found in it.
  defp compile_error(code) do
    path = Path.join(DSPex.Test.Folder.make(), "form.ex")
    File.write!(path, code)

    error = assert_raise CompileError, fn -> Code.compile_file(path) end
    {error.line, error.description}
  end

  test "what is wrong in a short form is an error at its own line" do
    head = "defmodule DSPex.Signature.FormsTest.Wrong do\n  use DSPex.Signature\n"

    for {line, part, body} <- [
          {5, "output :a: unknown type :strng",
           "signature [question: :string,\n  q: :string] ~>\n  [a: :strng]"},
          {5, "input :c: {:one_of, values} takes a list of values",
           "signature do\n  (q: :string,\n   c: {:one_of, []}) -> [a: :string]\nend"},
          {4, "input :lm: the name is reserved",
           "signature [q: :string,\nlm: :string] ~> [a: :string]"},
          {5, "unknown type \"strr\"", "signature \"\"\"\nq: str,\nc: strr -> a\n\"\"\""},
          {4, "input :score: :min (2) is above :max (1), so nothing fits",
           "input :q, :string\ninput :score, :float, min: 2, max: 1"},
          {3, "input :q: :min does not apply to the type str, which takes :min_length,",
           "input :q, :string, min: 2"},
          {3, "input :n: the default does not fit: expected int (min 1), got 0",
           "input :n, :integer, default: 0, min: 1"},
          {3, "input :q: the default cannot travel: JSON has no bytes",
           "input :q, :binary, default: \"x\""},
          {3, "(a signature: say DSPex.Signature.FormsTest.Ticket.Inputs or",
           "input :q, DSPex.Signature.FormsTest.Ticket"},
          {3, "signature do ... end has one line", "signature do\n  :ok\nend"},
          {3, "a signature is text such as", "signature 5"},
          {3, "a signature has keyword lists", "signature [:q] ~> [a: :string]"}
        ] do
      {found, description} = compile_error(head <> body <> "\nend\n")
      assert {body, found} == {body, line}
      assert {body, description =~ part, description} == {body, true, description}
    end
  end

  describe "new/2" do
    test "takes what fetch/1 takes and keyword lists, and names and instructions" do
      assert {:ok, signature} = Signature.new({[q: :string], [a: {:list, :integer}]}, name: "N")
      assert {signature.name, to_string(signature)} == {"N", "q: str -> a: list[int]"}
      assert {:ok, signature} = Signature.new(InLines, instructions: "Other.")
      assert signature.instructions == "Other."
      map = %{inputs: [%{name: :n, type: :integer, default: 1}], outputs: [%{name: :a}]}
      assert {:ok, %Signature{name: nil}} = Signature.new(map)
    end

    test "says what is wrong" do
      wrong_default = %{
        inputs: [%{name: :n, type: :integer, default: "x"}],
        outputs: [%{name: :a}]
      }

      for {spec, options, message} <- [
            {{[q: :string], [q: :string]}, [], "the field \"q\" stands twice"},
            {{[q: :string], []}, [], "a signature is a module"},
            {{["q"], ["a"]}, [], "a signature is a module"},
            {wrong_default, [], "field :n: the default does not fit: expected int, got \"x\""},
            {"q -> a", [instruction: ""], "unknown option :instruction (did you mean"},
            {"q -> a", [name: 5], "option :name: expected a string"}
          ] do
        assert {:error, %Error{code: :signature_error} = error} = Signature.new(spec, options)
        assert {spec, error.message =~ message, error.message} == {spec, true, error.message}
      end
    end
  end
end
