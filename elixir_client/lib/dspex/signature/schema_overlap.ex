defmodule DSPex.Signature.SchemaOverlap do
  @moduledoc false
  # Whether no value can be of two of some types, which a oneOf of JSON Schema asks.

  alias DSPex.Signature.{Types, TypeText}

  @doc "Whether every value is of one of the types at most, as far as that is plain to see."
  @spec distinct?([Types.t() | :none]) :: boolean()
  def distinct?([]), do: true

  def distinct?([type | types]),
    do: Enum.all?(types, &apart?(type, &1)) and distinct?(types)

  defp apart?({:one_of, some}, {:one_of, others}) do
    texts = Enum.map(others, &TypeText.literal/1)
    Enum.all?(some, &(TypeText.literal(&1) not in texts))
  end

  # A property that both must have tells them apart.
  defp apart?({:object, some, _}, {:object, others, _}) do
    Enum.any?(some, fn one ->
      Enum.any?(others, fn other ->
        one.name == other.name and one.required? and other.required? and
          match?({{:one_of, _}, {:one_of, _}}, {one.type, other.type}) and
          apart?(one.type, other.type)
      end)
    end)
  end

  defp apart?(one, other) do
    some = kinds(one)
    others = kinds(other)
    :any not in some and :any not in others and Enum.all?(some, &(&1 not in others))
  end

  defp kinds({:constrained, type, _options}), do: kinds(type)
  defp kinds({:optional, type}), do: [:null | kinds(type)]
  defp kinds({:union, types}), do: Enum.flat_map(types, &kinds/1)
  defp kinds({:list, _type}), do: [:array]
  defp kinds({:tuple, _types}), do: [:array]
  defp kinds({:dict, _key, _type}), do: [:object]
  defp kinds({:object, _properties, _rest}), do: [:object]
  defp kinds(:map), do: [:object]
  defp kinds(:none), do: [:null]
  defp kinds(:boolean), do: [:boolean]
  # A whole number is of both.
  defp kinds(type) when type in [:integer, :float], do: [:number]
  defp kinds(:string), do: [:string]
  defp kinds({:one_of, values}), do: values |> Enum.map(&kind_of/1) |> Enum.uniq()
  # Texts in some form, and what has several.
  defp kinds(_type), do: [:any]

  defp kind_of(nil), do: :null
  defp kind_of(value) when is_boolean(value), do: :boolean
  defp kind_of(value) when is_integer(value), do: :number
  defp kind_of(_text), do: :string
end
