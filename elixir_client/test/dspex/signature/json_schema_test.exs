defmodule DSPex.Signature.JsonSchemaTest do
  use ExUnit.Case, async: true

  alias DSPex.Signature
  alias DSPex.Signature.{Field, TypeConverter}
  alias DSPex.Test.JSON

  doctest DSPex.Signature.JsonSchema

  defp field(schema) do
    signature = %{
      "inputs" => [%{"name" => "x", "type" => schema}],
      "outputs" => [%{"name" => "y"}]
    }

    {:ok, %Signature{inputs: [field]}} = Signature.fetch(signature)
    field
  end

  test "schemas.json: a schema is the field of the vector, and what is written is read again" do
    for %{"schema" => schema, "field" => wanted} <- JSON.vectors("schemas.json")["valid"] do
      field = field(schema)
      written = Field.to_wire(field)
      assert {schema, Map.delete(written, "name")} == {schema, wanted}
      assert {schema, TypeConverter.from_wire(written["type"])} == {schema, {:ok, field.type}}
    end
  end

  test "function_schemas.json: a signature is the same function to every provider" do
    for %{"name" => name, "program" => program, "signature" => spec, "schemas" => schemas} <-
          JSON.vectors("function_schemas.json")["cases"] do
      {:ok, signature} = Signature.fetch(spec)
      signature = %{signature | name: signature.name || program}

      for {format, wanted} <- schemas do
        schema = Signature.to_json_schema(signature, String.to_existing_atom(format))
        assert {name, format, in_order(schema)} == {name, format, in_order(wanted)}
      end
    end
  end

  # The order of what is required means nothing.
  defp in_order(%{} = schema) do
    Map.new(schema, fn
      {"required", names} -> {"required", Enum.sort(names)}
      {key, value} -> {key, in_order(value)}
    end)
  end

  defp in_order(list) when is_list(list), do: Enum.map(list, &in_order/1)
  defp in_order(other), do: other

  test "schemas.json: what is no type stays a schema, for the bridge to refuse" do
    for %{"name" => name, "schema" => schema} <- JSON.vectors("schemas.json")["invalid"] do
      assert {name, TypeConverter.from_json_schema(schema)} == {name, {:json_schema, schema}}
    end
  end
end
