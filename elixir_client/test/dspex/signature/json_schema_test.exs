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

  test "schemas.json: what is no type stays a schema, for the bridge to refuse" do
    for %{"name" => name, "schema" => schema} <- JSON.vectors("schemas.json")["invalid"] do
      assert {name, TypeConverter.from_json_schema(schema)} == {name, {:json_schema, schema}}
    end
  end
end
