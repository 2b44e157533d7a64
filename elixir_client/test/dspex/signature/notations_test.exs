defmodule DSPex.Signature.NotationsTest do
  # One table of types as text, as JSON Schema and as Elixir terms, which every side is held to.
  use ExUnit.Case, async: true

  alias DSPex.Signature.{Field, JSONSchema, TypeConverter}
  alias DSPex.Test.JSON

  doctest DSPex.Signature.Constraints
  doctest DSPex.Signature.JSONSchema

  setup_all do
    rows =
      for row <- JSON.vectors("notations.json")["types"] do
        # The repository's own text.
        {type, _bindings} = Code.eval_string(row["elixir"])
        {type, row}
      end

    %{rows: rows}
  end

  test "every term is a type", %{rows: rows} do
    assert length(rows) > 40
    for {type, _row} <- rows, do: assert({type, TypeConverter.check(type)} == {type, :ok})
  end

  test "terms go to the wire as text, or as a schema where there is none", %{rows: rows} do
    for {type, row} <- rows, not is_map_key(row, "constraints") do
      assert {type, TypeConverter.to_wire(type)} == {type, row["text"] || row["schema"]}
    end
  end

  test "text is read as the term", %{rows: rows} do
    for {type, %{"text" => text} = row} <- rows, text, not is_map_key(row, "constraints") do
      assert {text, TypeConverter.from_wire(text)} == {text, {:ok, type}}
    end
  end

  test "every term has its schema", %{rows: rows} do
    for {type, row} <- rows do
      assert {type, JSONSchema.of_type(type)} == {type, row["schema"]}
    end
  end

  test "constraints that nothing meets are refused where the field is written" do
    for %{"type" => text, "constraints" => constraints} <-
          JSON.vectors("signatures.json")["contradictions"] do
      {:ok, type} = TypeConverter.from_wire(text)
      options = for {name, value} <- constraints, do: {String.to_existing_atom(name), value}
      assert {:error, message} = Field.new(:x, type, options)
      assert message =~ "so nothing fits"
      assert {:error, ^message} = TypeConverter.check({:list, {:constrained, type, options}})
    end
  end

  test "values of objects go to the wire and come back" do
    type = %{name: :string, at: %{on: :date}, note: {:optional, :binary}}

    assert TypeConverter.dump(type, %{name: "a", at: %{on: ~D[2024-02-29]}, note: "n"}) ==
             %{"name" => "a", "at" => %{"on" => ~D[2024-02-29]}, "note" => DSPex.Binary.new("n")}

    wire = %{"name" => "a", "at" => %{"on" => "2024-02-29"}}
    assert TypeConverter.load(type, wire) == {:ok, %{name: "a", at: %{on: ~D[2024-02-29]}}}
    assert TypeConverter.load(type, %{wire | "at" => %{}}) == {:error, ["at", "on"], "date"}
    assert TypeConverter.load(type, %{wire | "at" => 5}) == {:error, ["at"], "{on}"}

    assert TypeConverter.load({:list, {:constrained, :integer, min: 0}}, ["x"]) ==
             {:error, [0], "int"}
  end

  test "what is wrong with a constraint or a key within a type is said" do
    for {type, part} <- [
          {{:list, {:constrained, :integer, minn: 1}}, "unknown constraint :minn (did you mean"},
          {{:constrained, :strng, min: 1}, "did you mean :string?"},
          {{:constrained, :integer, %{min: 1}}, "takes min:"},
          {%{a: :strng}, "a: unknown type :strng"},
          {%{5 => :string}, "the keys of a map are atoms or strings, not 5"},
          {{:code, "a b"}, "1 to 40 letters"},
          {{:set, %{a: :string}}, "a set cannot hold {a}"}
        ] do
      assert {:error, message} = TypeConverter.check(type)
      assert message =~ part
    end
  end
end
