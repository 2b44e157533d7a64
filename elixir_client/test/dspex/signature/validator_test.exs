defmodule DSPex.Signature.ValidatorTest do
  use ExUnit.Case, async: true

  alias DSPex.{Binary, Error, Signature}
  alias DSPex.Test.JSON

  doctest DSPex.Signature.Validator
  doctest DSPex.Signature.Exact

  # What JSON cannot say is a map with one key.
  defp value(%{"$bytes" => text}), do: Binary.new(Base.decode64!(text))
  defp value(%{"$int" => digits}), do: String.to_integer(digits)
  defp value(%{"$float" => "nan"}), do: :nan
  defp value(%{"$float" => "inf"}), do: :infinity
  defp value(%{"$float" => "-inf"}), do: :neg_infinity
  defp value(%{"$decimal" => text}), do: %DSPex.Decimal{text: text}
  defp value(%{"$date" => text}), do: Date.from_iso8601!(text)
  defp value(%{"$time" => text}), do: Time.from_iso8601!(text)
  defp value(%{"$set" => items}), do: MapSet.new(items, &value/1)
  defp value(%{"$tuple" => items}), do: items |> Enum.map(&value/1) |> List.to_tuple()
  defp value(%{"$pairs" => pairs}), do: Map.new(pairs, fn [k, v] -> {value(k), value(v)} end)

  defp value(%{"$datetime" => text}) do
    case DateTime.from_iso8601(text) do
      {:ok, time, _offset} -> time
      {:error, :missing_offset} -> NaiveDateTime.from_iso8601!(text)
    end
  end

  defp value(map) when is_map(map), do: Map.new(map, fn {k, v} -> {k, value(v)} end)
  defp value(list) when is_list(list), do: Enum.map(list, &value/1)
  defp value(other), do: other

  # Times are the same whatever the precision; bytes are binaries here.
  defp comparable(%DateTime{} = time), do: {:instant, DateTime.to_unix(time, :microsecond)}

  defp comparable(%module{microsecond: {microsecond, _}} = time)
       when module in [Time, NaiveDateTime],
       do: %{time | microsecond: {microsecond, 6}}

  defp comparable(%Binary{data: data}), do: data
  defp comparable(%MapSet{} = set), do: {:set, set |> Enum.map(&comparable/1) |> Enum.sort()}
  defp comparable(%_{} = struct), do: struct
  defp comparable(list) when is_list(list), do: Enum.map(list, &comparable/1)

  defp comparable(map) when is_map(map),
    do: Map.new(map, fn {k, v} -> {comparable(k), comparable(v)} end)

  defp comparable(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> Enum.map(&comparable/1) |> List.to_tuple()

  defp comparable(other), do: other

  # Every binary is bytes here: the vector that text is none says nothing about this client.
  defp left_out?(%{"fields" => [%{"type" => "bytes"}], "values" => %{"x" => "abc"}}), do: true
  defp left_out?(_vector), do: false

  defp signature(%{"fields" => fields, "side" => side}) do
    other = [%{"name" => "another", "type" => "str"}]
    {inputs, outputs} = if side == "inputs", do: {fields, other}, else: {other, fields}
    {:ok, signature} = Signature.fetch(%{"inputs" => inputs, "outputs" => outputs})
    signature
  end

  defp errors(vector, errors) do
    errors = Enum.map(errors, &Map.delete(&1, "message"))

    # The properties of an object are a map, which has no order here.
    if Enum.any?(vector["fields"], &is_map(&1["type"])),
      do: errors |> Enum.map(&in_order/1) |> Enum.sort(),
      else: errors
  end

  defp in_order(%{"expected" => "{" <> names} = error) do
    names = names |> String.trim_trailing("}") |> String.split(", ") |> Enum.sort()
    %{error | "expected" => names}
  end

  defp in_order(error), do: error

  test "validation.json: inputs convert to the same values, or are refused with the same errors" do
    cases = Enum.filter(JSON.vectors("validation.json")["cases"], &(&1["side"] == "inputs"))
    {left_out, judged} = Enum.split_with(cases, &left_out?/1)
    assert {length(left_out), length(judged) > 300} == {1, true}

    for vector <- judged do
      result = Signature.validate_inputs(signature(vector), value(vector["values"]))

      case vector do
        %{"converted" => converted} ->
          assert {^vector, {:ok, values}} = {vector, result}
          assert {vector, comparable(values)} === {vector, comparable(value(converted))}

        %{"errors" => errors} ->
          assert {^vector, {:error, %Error{code: :input_validation} = error}} = {vector, result}

          assert {vector, errors(vector, error.data["errors"])} ==
                   {vector, errors(vector, errors)}
      end
    end
  end

  test "validation.json: what a program made comes to a client as the values of their types" do
    for %{"side" => "outputs", "converted" => converted} = vector <-
          JSON.vectors("validation.json")["cases"] do
      signature = signature(vector)

      assert {^vector, {:ok, loaded}} =
               {vector, Signature.load_outputs(signature, value(converted))}

      assert {^vector, {:ok, values}} = {vector, Signature.validate_outputs(signature, loaded)}
      assert {vector, comparable(values)} === {vector, comparable(loaded)}
    end
  end

  test "validation.json: outputs are judged by the same rules" do
    for %{"side" => "outputs", "errors" => errors} = vector <-
          JSON.vectors("validation.json")["cases"] do
      assert {:error, %Error{code: :output_validation} = error} =
               Signature.validate_outputs(signature(vector), value(vector["values"]))

      assert errors(vector, error.data["errors"]) == errors(vector, errors)
    end
  end

  test "what is no map is no dict, whatever its keys" do
    for type <- [:map, {:dict, :integer, :any}, {:dict, :string, :integer}],
        value <- ["x", 1.0e22, [{"a", 1}], ~D[2024-02-29]] do
      assert {^type, ^value, {:error, %{"path" => [], "type" => "type"}}} =
               {type, value, Signature.Validator.value(type, %{}, value)}
    end
  end
end
