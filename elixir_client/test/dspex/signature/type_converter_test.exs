defmodule DSPex.Signature.TypeConverterTest do
  use ExUnit.Case, async: true

  alias DSPex.{Binary, Tensor}
  alias DSPex.Signature.TypeConverter

  doctest DSPex.Signature.TypeConverter

  @tensor %Tensor{dtype: :u8, shape: {1}, data: <<1>>}

  # type, value in Elixir, value on the wire
  @both_ways [
    {:string, "é", "é"},
    {:integer, -3, -3},
    {:float, 0.5, 0.5},
    {:float, :nan, :nan},
    {:boolean, false, false},
    {:any, %{"a" => [nil]}, %{"a" => [nil]}},
    {:map, %{"a" => 1}, %{"a" => 1}},
    {:binary, <<0xFF>>, %Binary{data: <<0xFF>>}},
    {:datetime, ~U[2024-02-29 12:00:00.000000Z], ~U[2024-02-29 12:00:00.000000Z]},
    {:decimal, %DSPex.Decimal{text: "1.10"}, %DSPex.Decimal{text: "1.10"}},
    {{:list, :binary}, ["a"], [%Binary{data: "a"}]},
    {{:list, {:list, :integer}}, [[1], []], [[1], []]},
    {{:set, :integer}, MapSet.new([1, 2]), [1, 2]},
    {{:tuple, [:integer, :binary]}, {1, "a"}, [1, %Binary{data: "a"}]},
    {{:dict, :string, :binary}, %{"k" => "a"}, %{"k" => %Binary{data: "a"}}},
    {{:dict, :integer, :string}, %{-7 => "a"}, %{"-7" => "a"}},
    {{:dict, :float, :string}, %{0.5 => "a"}, %{"0.5" => "a"}},
    {{:dict, :date, :integer}, %{~D[2024-02-29] => 1}, %{"2024-02-29" => 1}},
    {{:dict, :time, :integer}, %{~T[12:00:00] => 1}, %{"12:00:00" => 1}},
    {{:dict, :datetime, :integer}, %{~U[2024-02-29 12:00:00Z] => 1},
     %{"2024-02-29T12:00:00Z" => 1}},
    {{:dict, :decimal, :integer}, %{%DSPex.Decimal{text: "1.50"} => 1}, %{"1.50" => 1}},
    {{:optional, :binary}, nil, nil},
    {{:optional, :binary}, "a", %Binary{data: "a"}},
    {{:union, [:string, :binary]}, "a", "a"},
    {{:union, [:integer, {:tuple, [:binary]}]}, {"a"}, [%Binary{data: "a"}]},
    {{:union, [:integer, {:tuple, [:binary]}]}, 5, 5},
    {{:embedding, 2}, [0.5, 1.0], [0.5, 1.0]},
    {:embedding, @tensor, @tensor},
    {:tensor, @tensor, @tensor},
    {:probability, 0.25, 0.25},
    {:confidence_score, 1.0, 1.0},
    {:token_count, 3, 3},
    {:reasoning_chain, ["a", "b"], ["a", "b"]},
    {:history, %{"messages" => []}, %{"messages" => []}},
    {{:json_schema, %{}}, [1], [1]}
  ]

  test "values of every type go to the wire and come back" do
    for {type, value, wire} <- @both_ways do
      assert {type, TypeConverter.dump(type, value)} === {type, wire}
      assert {type, TypeConverter.load(type, wire)} === {type, {:ok, value}}
    end
  end

  test "texts and numbers become what the type says" do
    for {type, wire, value} <- [
          {:date, "2024-02-29", ~D[2024-02-29]},
          {:time, "12:30:00.5", ~T[12:30:00.5]},
          {:datetime, "2024-02-29T12:00:00", ~N[2024-02-29 12:00:00]},
          {:datetime, "2024-02-29T12:00:00+01:00", ~U[2024-02-29 11:00:00Z]},
          {:float, 3, 3.0},
          {:probability, 1, 1.0},
          {{:embedding, 1}, [1], [1.0]},
          {:decimal, "2.50", %DSPex.Decimal{text: "2.50"}},
          {{:one_of, [:low, "high", 3, true]}, "low", :low},
          {{:one_of, [:low, "high", 3, true]}, "high", "high"},
          {{:one_of, [:low, "high", 3, true]}, 3, 3},
          {{:one_of, [:low, "high", 3, true]}, true, true},
          {{:dict, :boolean, :integer}, %{"true" => 1}, %{true => 1}},
          {{:dict, {:one_of, [:a, 1]}, :integer}, %{"a" => 1, "1" => 2}, %{:a => 1, 1 => 2}},
          {{:union, [:date, :string]}, "2024-02-29", ~D[2024-02-29]},
          {{:union, [:date, :string]}, "today", "today"},
          {{:optional, {:list, :date}}, ["2024-02-29"], [~D[2024-02-29]]}
        ] do
      assert {type, TypeConverter.load(type, wire)} === {type, {:ok, value}}
    end
  end

  test "what is not of the type is refused with its place" do
    for {type, wire, path, expected} <- [
          {:string, 5, [], "str"},
          {:string, nil, [], "str"},
          {:integer, 1.0, [], "int"},
          {:boolean, "true", [], "bool"},
          {:float, "1", [], "float"},
          {:float, 0x20_0000_0000_0001, [], "float"},
          {:map, @tensor, [], "dict"},
          {:binary, "text", [], "bytes"},
          {:date, "2024-02-30", [], "date"},
          {:time, "25:00", [], "time"},
          {:datetime, "yesterday", [], "datetime"},
          {:decimal, "ten", [], "decimal"},
          {{:list, :integer}, "no", [], "list[int]"},
          {{:list, :integer}, [1, "2"], [1], "int"},
          {{:list, {:dict, :string, :date}}, [%{}, %{"k" => "x"}], [1, "k"], "date"},
          {{:tuple, [:integer, :integer]}, [1], [], "tuple[int, int]"},
          {{:tuple, [:integer, :integer]}, [1, "2"], [1], "int"},
          {{:set, :integer}, [1, nil], [1], "int"},
          {{:dict, :integer, :integer}, %{"x" => 1}, ["x"], "int"},
          {{:dict, :boolean, :integer}, %{"yes" => 1}, ["yes"], "bool"},
          {{:one_of, [:low, true]}, "high", [], "Literal[\"low\", True]"},
          {{:one_of, [true]}, "true", [], "Literal[True]"},
          {{:one_of, [1]}, 1.0, [], "Literal[1]"},
          {{:union, [:integer, :date]}, "x", [], "int | date"},
          {{:optional, :integer}, "x", [], "int"},
          {{:embedding, 2}, ["x"], [0], "float"}
        ] do
      assert {type, TypeConverter.load(type, wire)} == {type, {:error, path, expected}}
    end
  end

  test "what does not fit is left for the bridge to refuse" do
    for {type, value} <- [
          {:binary, 5},
          {{:list, :binary}, "x"},
          {{:tuple, [:integer]}, {1, 2}},
          {{:tuple, [:integer]}, [1, 2]},
          {{:dict, :string, :binary}, [1]},
          {{:set, :integer}, 5},
          {{:list, :binary}, [1 | 2]}
        ] do
      assert TypeConverter.dump(type, value) === value
    end
  end

  test "types are equal to what their text on the wire is read as" do
    for type <- [
          {:dict, :string, {:list, {:optional, {:tuple, [:integer, :date]}}}},
          {:union, [:integer, {:list, :string}]},
          {:one_of, ["a\"b", "c\\d", "e\nf\e", -5, 0x7FFF_FFFF_FFFF_FFFF, true, false]},
          {:set, {:union, [:integer, :string]}},
          {:embedding, 768},
          {:list, :any},
          :map
        ] do
      assert TypeConverter.check(type) == :ok
      assert TypeConverter.from_wire(TypeConverter.to_wire(type)) == {:ok, type}
    end
  end
end
