defmodule DSPex.Signature.PropertiesTest do
  # What holds of every type and value, tried on random ones. ExUnit prints the seed, and
  # `mix test --seed` has the same ones again.
  use ExUnit.Case, async: true

  alias DSPex.Signature
  alias DSPex.Signature.{Exact, TypeConverter, Validator}

  @rounds 1_000

  setup do
    :rand.seed(:exsss, ExUnit.configuration()[:seed])
    :ok
  end

  defp one(list), do: Enum.random(list)
  defp some(count, fun), do: Enum.map(1..count//1, fn _ -> fun.() end)

  # A type, and a value of it as the validator gives it.

  defp type(0) do
    one(
      [:string, :integer, :float, :boolean, :date, :decimal, :probability, :token_count] ++
        [:datetime, :time, {:one_of, [:low, "high", 3, true]}, :reasoning_chain, {:embedding, 2}]
    )
  end

  defp type(depth) do
    inner = fn -> type(depth - 1) end

    case :rand.uniform(9) do
      1 -> {:list, inner.()}
      2 -> {:tuple, some(:rand.uniform(3), inner)}
      3 -> {:dict, one([:string, :integer, :date]), inner.()}
      4 -> {:optional, inner.()}
      5 -> %{a: inner.(), b: {:optional, inner.()}}
      6 -> {:list, {:constrained, :integer, min: 0, max: 9}}
      7 -> {:tagged, :ok, inner.()}
      8 -> {:set, one([:string, :integer, :date, {:tuple, [:integer, :string]}])}
      9 -> type(0)
    end
  end

  defp value(:string), do: one(["", "é😀", "true", "12", "null", "a\"b"])
  defp value(:integer), do: one([0, -1, 7, 0x1_0000_0000_0000_0000])
  defp value(:float), do: one([0.0, -1.5, 1.0e300, :nan, :infinity])
  defp value(:boolean), do: one([true, false])
  defp value(:date), do: one([~D[2024-02-29], ~D[0001-01-01]])
  defp value(:time), do: one([~T[00:00:00], ~T[23:59:59.123456]])
  defp value(:datetime), do: one([~U[2024-02-29 12:00:00Z], ~N[2024-02-29 12:00:00.5]])
  defp value(:decimal), do: %DSPex.Decimal{text: one(["1.10", "-3", "1E+30"])}
  defp value(:probability), do: :rand.uniform()
  defp value(:token_count), do: :rand.uniform(100) - 1
  defp value(:reasoning_chain), do: some(:rand.uniform(3), fn -> value(:string) end)
  defp value({:embedding, size}), do: some(size, fn -> :rand.normal() end)
  defp value({:one_of, values}), do: one(values)
  defp value({:list, type}), do: some(:rand.uniform(4) - 1, fn -> value(type) end)
  defp value({:set, type}), do: MapSet.new(some(:rand.uniform(4) - 1, fn -> value(type) end))
  defp value({:tuple, types}), do: types |> Enum.map(&value/1) |> List.to_tuple()
  defp value({:tagged, tag, type}), do: {tag, value(type)}
  defp value({:optional, type}), do: if(:rand.uniform(3) == 1, do: nil, else: value(type))
  defp value({:constrained, :integer, _options}), do: :rand.uniform(10) - 1

  defp value({:dict, key, type}),
    do: Map.new(some(:rand.uniform(3), fn -> {value(key), value(type)} end))

  defp value(map) when is_map(map), do: Map.new(map, fn {key, type} -> {key, value(type)} end)

  test "a value of its type stays as it is, and comes back from the wire" do
    for _ <- 1..@rounds do
      type = type(3)
      value = value(type)
      assert {type, TypeConverter.check(type)} == {type, :ok}
      assert {type, Validator.value(type, %{}, value)} === {type, {:ok, value}}
      wire = TypeConverter.dump(type, value)
      assert {:ok, bytes} = DSPex.Protocol.Codec.encode(wire)
      assert {:ok, decoded} = DSPex.Protocol.Codec.decode(bytes)
      assert {^type, {:ok, loaded}} = {type, TypeConverter.load(type, decoded)}
      assert {type, same(loaded)} === {type, same(value)}
      # The client takes what the bridge will be given.
      assert {^decoded, {:ok, converted}} = {decoded, Validator.value(type, %{}, decoded)}

      assert {type, same(converted)} === {type, same(value)}
    end
  end

  # A timestamp on the wire has microseconds.
  defp same(%DateTime{} = time), do: {:instant, DateTime.to_unix(time, :microsecond)}
  defp same(%MapSet{} = set), do: {:set, set |> Enum.map(&same/1) |> Enum.sort()}
  defp same(%_{} = struct), do: struct
  defp same(list) when is_list(list), do: Enum.map(list, &same/1)
  defp same(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> Enum.map(&same/1)
  defp same(map) when is_map(map), do: Map.new(map, fn {key, item} -> {same(key), same(item)} end)
  defp same(other), do: other

  test "any term at all is converted or refused, and what is converted stays so" do
    for _ <- 1..@rounds do
      type = type(2)

      case Validator.value(type, %{}, term(3)) do
        {:ok, value} ->
          assert {type, Validator.value(type, %{}, value)} === {type, {:ok, value}}

        {:error, error} ->
          assert %{"path" => path, "expected" => expected, "got" => got} = error
          assert is_list(path) and is_binary(expected) and String.length(got) <= 80
      end
    end
  end

  defp term(0) do
    one(
      [nil, true, 0, 1.5, "x", "true", "2024-02-29", "3.0", :low, :nan, <<0xFF>>, self()] ++
        [~D[2024-02-29], ~U[2024-02-29 12:00:00Z], %DSPex.Decimal{text: "NaN"}, make_ref()]
    )
  end

  defp term(depth) do
    inner = fn -> term(depth - 1) end

    case :rand.uniform(7) do
      1 -> some(:rand.uniform(3) - 1, inner)
      2 -> [inner.() | inner.()]
      3 -> List.to_tuple(some(:rand.uniform(3), inner))
      4 -> %{one(["a", "b", "1"]) => inner.(), a: inner.()}
      5 -> MapSet.new(some(2, inner))
      6 -> %{inner.() => inner.()}
      7 -> term(0)
    end
  end

  test "every type is read back from its text or its schema" do
    for _ <- 1..@rounds do
      type = type(3)

      case TypeConverter.to_wire(type) do
        text when is_binary(text) ->
          assert {:ok, read} = TypeConverter.from_wire(text)
          assert TypeConverter.to_wire(read) == text

        schema ->
          read = TypeConverter.from_json_schema(schema)
          refute match?({:json_schema, _}, read)
          # Once more it is the very same: nothing was left out.
          assert {schema, TypeConverter.from_json_schema(TypeConverter.to_json_schema(read))} ==
                   {schema, read}
      end
    end
  end

  test "decimals compare as the integers they are made of" do
    for _ <- 1..@rounds do
      {a, b} = {:rand.uniform(2_000) - 1_000, :rand.uniform(2_000) - 1_000}
      e = :rand.uniform(5)
      {:ok, left} = Exact.new("#{a * Integer.pow(10, e)}e-#{e}")
      {:ok, right} = Exact.new(b)
      wanted = if a < b, do: :lt, else: if(a > b, do: :gt, else: :eq)
      assert {a, b, e, Exact.compare(left, right)} == {a, b, e, wanted}
      assert Exact.normal(left) == Exact.normal(elem(Exact.new(a), 1))
      if b > 0, do: assert(Exact.multiple?(left, right) == (rem(a, b) == 0))
    end
  end

  test "no atom is made of what is validated, loaded or refused" do
    {:ok, signature} =
      Signature.new({[mood: {:one_of, [:good, :bad]}], [a: {:dict, :string, :any}]})

    name = "never_an_atom_#{System.unique_integer([:positive])}"
    assert {:error, _} = Signature.validate_inputs(signature, %{"mood" => name, name => 1})
    assert {:ok, _} = Signature.load_outputs(signature, %{"a" => %{name => name}, name => name})
    assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
  end
end
