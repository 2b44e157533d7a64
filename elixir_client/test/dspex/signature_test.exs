defmodule DSPex.SignatureTest do
  use ExUnit.Case, async: true

  alias DSPex.{Error, Signature}
  alias DSPex.Signature.Field

  doctest DSPex.Signature
  doctest DSPex.Signature.Field

  defmodule Triage do
    @moduledoc """
    Sort a customer's e-mail.

    Be brief.
    """
    use DSPex.Signature

    @categories [:billing, :defect, "other"]

    input :subject, :string
    input :products, {:list, :string}, description: "what we sell", default: []
    output :category, {:one_of, @categories}
    output :urgency, :float, min: 0, max: 1
    output :phrases, {:list, :string}
  end

  defmodule Short do
    use DSPex.Signature, "question, context: list[str] -> answer, confidence: float"
  end

  describe "a module" do
    test "has its fields, its name, and its moduledoc for instructions" do
      signature = Triage.__signature__()
      assert signature.name == "DSPex.SignatureTest.Triage"
      assert signature.instructions == "Sort a customer's e-mail.\n\nBe brief."
      assert signature.inputs == Triage.input_fields()
      assert signature.outputs == Triage.output_fields()

      assert [
               %Field{name: :subject, type: :string, default: :none, description: nil},
               %Field{name: :products, default: {:value, []}, description: "what we sell"}
             ] = Triage.input_fields()

      assert [
               %Field{name: :category, type: {:one_of, [:billing, :defect, "other"]}},
               %Field{name: :urgency, constraints: %{min: 0, max: 1}},
               %Field{name: :phrases}
             ] = Triage.output_fields()
    end

    test "is a map on the wire" do
      assert Signature.to_wire(Triage.__signature__()) == %{
               "name" => "DSPex.SignatureTest.Triage",
               "instructions" => "Sort a customer's e-mail.\n\nBe brief.",
               "inputs" => [
                 %{"name" => "subject", "type" => "str"},
                 %{
                   "name" => "products",
                   "type" => "list[str]",
                   "description" => "what we sell",
                   "default" => []
                 }
               ],
               "outputs" => [
                 %{"name" => "category", "type" => ~s(Literal["billing", "defect", "other"])},
                 %{
                   "name" => "urgency",
                   "type" => "float",
                   "constraints" => %{"min" => 0, "max" => 1}
                 },
                 %{"name" => "phrases", "type" => "list[str]"}
               ]
             }
    end

    test "may be written as a string" do
      assert [
               %Field{name: :question, type: :string},
               %Field{name: :context, type: {:list, :string}}
             ] = Short.input_fields()

      assert [%Field{name: :answer}, %Field{name: :confidence, type: :float}] =
               Short.output_fields()

      assert Short.__signature__().instructions == nil
    end

    test "is shown in short" do
      assert inspect(Short.__signature__()) ==
               "#DSPex.Signature<question: str, context: list[str] -> answer: str, confidence: float>"
    end
  end

  # Compiles a module whose body begins at line 3.
  defp compile(body) do
    code = "defmodule DSPex.SignatureTest.Wrong do\n  use DSPex.Signature\n#{body}\nend"
    Code.compile_string(code, "wrong.ex")
  end

  defp compile_error(body) do
    error = assert_raise CompileError, fn -> compile(body) end
    Exception.message(error)
  end

  describe "a compile error" do
    test "stands at the line of the field, names it and says what is allowed" do
      for {body, message} <- [
            {"input :q, :string\noutput :score, :flaot",
             "wrong.ex:4: output :score: unknown type :flaot (did you mean :float?); the types are :string, "},
            {"input :q, {:list, {:optional, :strng}}",
             "wrong.ex:3: input :q: unknown type :strng"},
            {"\n\ninput :q, {:one_of, []}",
             "wrong.ex:5: input :q: {:one_of, values} takes a list of values"},
            {"input :q, {:one_of, [1.5]}",
             "wrong.ex:3: input :q: {:one_of, values} takes strings, integers of 64 bits, booleans and atoms, not 1.5"},
            {"input :q, {:one_of, [:a, \"a\"]}",
             "wrong.ex:3: input :q: {:one_of, values} has a value twice: [\"a\"]"},
            {"input :q, {:union, [:string]}",
             "wrong.ex:3: input :q: {:union, [t, u]} takes a list of two types or more"},
            {"input :q, {:dict, {:list, :string}, :string}",
             "wrong.ex:3: input :q: list[str] cannot be the key of a dict"},
            {"input :q, {:set, :map}",
             "wrong.ex:3: input :q: a set cannot hold dict; use a list"},
            {"input :q, {:embedding, 0}",
             "wrong.ex:3: input :q: {:embedding, size} takes an integer from 1 to 65536"},
            {"input :lm, :string",
             "wrong.ex:3: input :lm: the name is reserved by DSPy or Pydantic"},
            {"input :_q, :string",
             "wrong.ex:3: input :_q: a name that begins with _ or dspy_ is reserved"},
            {"input :\"a b\", :string",
             "wrong.ex:3: input :\"a b\": a name has ASCII letters, digits and _"},
            {"input 5, :string", "wrong.ex:3: input 5: a name is an atom"},
            {"input :q, :string, describtion: \"x\"",
             "wrong.ex:3: input :q: unknown option :describtion (did you mean :description?); " <>
               "the options are :description, :default, :min, :max,"},
            {"input :q, :string, description: 5",
             "wrong.ex:3: input :q: option :description: expected a string, got 5"},
            {"input :q, :string\noutput :a, :string\ninput :q, :integer",
             "wrong.ex:5: the input :q stands twice"},
            {"input :q, :string\noutput :q, :string",
             "wrong.ex:4: :q stands among the inputs and the outputs; names are distinct over both"},
            {"input :q, :string",
             "wrong.ex:1: a signature has at least one output: output :name, :string"},
            {"output :q, :string",
             "wrong.ex:1: a signature has at least one input: input :name, :string"}
          ] do
        assert {body, compile_error(body) |> String.slice(0, String.length(message))} ==
                 {body, message}
      end
    end

    test "in a string stands at its `use` and tells the character" do
      code =
        "defmodule DSPex.SignatureTest.Wrong do\n\n  use DSPex.Signature, \"q -> a: strr\"\nend"

      error = assert_raise CompileError, fn -> Code.compile_string(code, "wrong.ex") end

      assert Exception.message(error) =~
               "wrong.ex:3: unknown type \"strr\" (did you mean \"str\"?)"

      assert Exception.message(error) =~ "(at character 8)"
    end
  end

  describe "a map" do
    test "has Elixir's types or the wire's, and atom or string keys" do
      assert {:ok, signature} =
               Signature.fetch(%{
                 instructions: "Answer.",
                 inputs: [%{name: :q, type: {:list, :string}, description: "d"}, %{name: :n}],
                 outputs: [
                   %{
                     "name" => :a,
                     "type" => "int | None",
                     "constraints" => %{"min" => 1, max: 2},
                     "default" => 1
                   }
                 ]
               })

      assert Signature.to_wire(signature) == %{
               "instructions" => "Answer.",
               "inputs" => [
                 %{"name" => "q", "type" => "list[str]", "description" => "d"},
                 %{"name" => "n", "type" => "str"}
               ],
               "outputs" => [
                 %{
                   "name" => "a",
                   "type" => "int | None",
                   "default" => 1,
                   "constraints" => %{"min" => 1, "max" => 2}
                 }
               ]
             }
    end

    test "that is wrong is refused, with what is wrong" do
      q = %{name: :q}

      for {map, message} <- [
            {%{inputs: [q]}, "a signature has a list of outputs, one at least"},
            {%{inputs: [], outputs: [q]}, "a signature has a list of inputs, one at least"},
            {%{inputs: [q], outputs: [q]},
             "the field \"q\" stands twice; names are distinct over both sides"},
            {%{inputs: [q], outputs: [%{"name" => "q"}]}, "the field \"q\" stands twice"},
            {%{input: [q]},
             "unknown key \"input\" (did you mean \"inputs\"?) in a signature; the keys are name,"},
            {%{inputs: ["q"], outputs: [q]}, "a field of the inputs is a map"},
            {%{inputs: [%{naem: :q}], outputs: [q]},
             "unknown key \"naem\" (did you mean \"name\"?) in a field"},
            {%{inputs: [%{type: :string}], outputs: [q]}, "field nil: a name is an atom"},
            {%{inputs: [%{name: :q, type: :strng}], outputs: [q]},
             "field :q: unknown type :strng"},
            {%{inputs: [%{name: :q, type: "strng"}], outputs: [q]}, "unknown type \"strng\""},
            {%{inputs: [%{name: :q, constraints: %{minn: 1}}], outputs: [q]},
             "unknown key \"minn\" (did you mean \"min\"?) in constraints"},
            {%{inputs: [%{name: :q, constraints: 5}], outputs: [q]}, "constraints are a map"},
            {%{inputs: [q], outputs: [q], instructions: 5},
             "the instructions of a signature is a string"}
          ] do
        assert {^map, {:error, %Error{code: :signature_error} = error}} =
                 {map, Signature.fetch(map)}

        assert {map, String.slice(error.message, 0, String.length(message))} == {map, message}
      end
    end

    test "keys that are no strings are refused, not made into anything" do
      assert {:error, %Error{code: :signature_error}} = Signature.fetch(%{1 => 2})
      assert {:error, %Error{code: :signature_error}} = Signature.fetch(%{{:a} => 2})
    end
  end

  test "what is no signature is refused, with what is" do
    assert {:error, error} = Signature.fetch(String)
    assert error.message == "String is no module that uses DSPex.Signature"
    assert {:error, error} = Signature.fetch(NoSuchModule)
    assert error.message == "NoSuchModule is no module that uses DSPex.Signature"
    assert {:error, error} = Signature.fetch(nil)
    assert error.message =~ "a module that uses DSPex.Signature, a string or a map"
    assert {:error, error} = Signature.fetch(5)
    assert error.message =~ "a module that uses DSPex.Signature, a string or a map"
  end

  describe "outputs" do
    test "come under the atoms of the signature, and no others" do
      outputs = %{
        "category" => "defect",
        "urgency" => 1,
        "phrases" => ["a"],
        "reasoning" => "because",
        "something_else_#{System.unique_integer([:positive])}" => 1
      }

      assert {:ok, loaded} = Signature.load_outputs(Triage.__signature__(), outputs)
      assert %{category: :defect, phrases: ["a"], reasoning: "because"} = loaded
      assert loaded.urgency === 1.0
      assert [other] = Map.keys(loaded) -- [:category, :urgency, :phrases, :reasoning]
      assert is_binary(other)
    end

    test "come under strings where the signature was a string" do
      {:ok, signature} = Signature.parse("q -> a, when: date")
      outputs = %{"a" => "x", "when" => "2024-02-29", "reasoning" => "r"}

      assert Signature.load_outputs(signature, outputs) ==
               {:ok, %{"a" => "x", "when" => ~D[2024-02-29], "reasoning" => "r"}}
    end

    test "that do not fit are an error with the place" do
      assert {:error, %Error{code: :output_validation} = error} =
               Signature.load_outputs(Triage.__signature__(), %{"phrases" => ["a", 5]})

      assert Exception.message(error) ==
               "output_validation: 1 value does not fit the signature\n" <>
                 "  - phrases.1: expected str, got [\"a\", 5]"
    end
  end

  test "inputs are written by their types, under either kind of key" do
    {:ok, signature} = Signature.parse("data: bytes, pair: tuple[int, bytes], n -> a")
    data = DSPex.Binary.new("x")
    inputs = %{:data => "x", "pair" => {1, "x"}, :other => "x", "more" => {1}}

    assert Signature.dump(signature.inputs, inputs) ==
             %{:data => data, "pair" => [1, data], :other => "x", "more" => {1}}
  end

  test "no atom is made of a signature at run time" do
    name = "never_an_atom_#{System.unique_integer([:positive])}"
    assert {:ok, signature} = Signature.parse("#{name} -> #{name}_2: Literal[\"#{name}_3\"]")
    assert {:ok, _} = Signature.load_outputs(signature, %{"#{name}_2" => "#{name}_3"})

    assert {:ok, _} =
             Signature.fetch(%{"inputs" => [%{"name" => name}], "outputs" => [%{"name" => "a"}]})

    assert {:error, _} = Signature.fetch(%{"inputs" => [%{"name" => "q", name => 1}]})

    for text <- [name, name <> "_2", name <> "_3"],
        do: assert_raise(ArgumentError, fn -> String.to_existing_atom(text) end)
  end
end
