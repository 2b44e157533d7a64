defmodule DSPex.Signature.Exactness do
  @moduledoc false
  # Whether a value is of a type without a conversion: of the members of a union, the first that is
  # so counts.

  import DSPex.Signature.Scalars, only: [is_any_float: 1]

  alias DSPex.Binary
  alias DSPex.Signature.{Checks, Constraints, Scalars, Types}

  @doc "Whether a value is of a type as it is."
  @spec exact?(Types.t(), term()) :: boolean()
  def exact?(type, value) do
    type = Types.canonical(type)
    shape?(type, value) and failed(type, %{}, value) == nil
  end

  defp shape?(:string, value), do: match?({:ok, _}, Scalars.string(value))
  defp shape?(type, value) when type in [:integer, :token_count], do: is_integer(value)

  defp shape?(type, value) when type in [:float, :probability, :confidence_score],
    do: is_any_float(value)

  defp shape?(:boolean, value), do: is_boolean(value)
  defp shape?(:binary, value), do: is_binary(value) or is_struct(value, Binary)

  defp shape?(:decimal, %module{} = value) when module in [Decimal, DSPex.Decimal],
    do: match?({:ok, _}, Scalars.decimal(value))

  defp shape?(:date, value), do: is_struct(value, Date)
  defp shape?(:time, value), do: is_struct(value, Time)
  defp shape?(:datetime, value), do: is_struct(value, DateTime) or is_struct(value, NaiveDateTime)
  defp shape?(:tensor, value), do: match?({:ok, _}, Scalars.tensor(value))
  defp shape?(:any, _value), do: true
  defp shape?(:map, value), do: is_map(value) and not is_struct(value)
  defp shape?(:reasoning_chain, value), do: shape?({:list, :string}, value)
  defp shape?(:embedding, value), do: shape?({:list, :float}, value)
  defp shape?({:embedding, _size}, value), do: shape?({:list, :float}, value)

  defp shape?({:list, type}, values),
    do: proper_list?(values) and Enum.all?(values, &exact?(type, &1))

  defp shape?({:set, type}, value),
    do: is_struct(value, MapSet) and Enum.all?(value, &exact?(type, &1))

  defp shape?({:tuple, types}, value) do
    is_tuple(value) and tuple_size(value) == length(types) and
      types
      |> Enum.zip(Tuple.to_list(value))
      |> Enum.all?(fn {type, item} -> exact?(type, item) end)
  end

  defp shape?({:dict, key_type, type}, map) do
    is_map(map) and not is_struct(map) and
      Enum.all?(map, fn {key, value} -> exact?(key_type, key) and exact?(type, value) end)
  end

  defp shape?({:one_of, values}, value), do: match?({:ok, _}, choice(values, value))
  defp shape?({:optional, _type}, nil), do: true
  defp shape?({:optional, type}, value), do: exact?(type, value)
  defp shape?({:union, types}, value), do: Enum.any?(types, &exact?(&1, value))

  defp shape?({:constrained, type, options}, value),
    do: exact?(type, value) and failed(type, Constraints.normal(options), value) == nil

  defp shape?({:json_schema, _schema}, _value), do: true
  defp shape?({:code, _language}, _value), do: true

  defp shape?(type, value),
    do: if(Types.object?(type), do: exact_object?(type, value), else: type in Types.dspy())

  defp exact_object?(type, value) do
    with {:ok, by_text} <- by_text(type, value) do
      object = Types.object(type)
      names = Enum.map(object.properties, &to_string(&1.name))
      others = Map.drop(by_text, names)

      # A default that is to be filled in leaves the value not as it was.
      Enum.all?(object.properties, &exact_property?(&1, by_text)) and
        (others == %{} or
           (object.additional != nil and
              Enum.all?(others, fn {_, item} -> exact?(object.additional, item) end)))
    else
      :error -> false
    end
  end

  defp exact_property?(property, by_text) do
    case Map.fetch(by_text, to_string(property.name)) do
      {:ok, value} -> exact?(property.type, value)
      :error -> not property.required? and property.default == :none
    end
  end

  @doc "The first constraint that a value of a type does not meet, those of the type included."
  @spec failed(Types.t(), map(), term()) :: atom() | nil
  def failed(_type, _constraints, nil), do: nil
  def failed(:binary, constraints, data), do: Checks.failed(:binary, constraints, {:bytes, data})
  def failed(type, constraints, value), do: Checks.failed(type, constraints, value)

  @doc "The one of the listed values that a value is; an atom is its text."
  @spec choice([term()], term()) :: {:ok, term()} | :error
  def choice(values, value) do
    value = wire_value(value)
    Enum.find_value(values, :error, &if(wire_value(&1) === value, do: {:ok, &1}))
  end

  @doc "A value as it goes over the wire, as far as it is text there."
  @spec wire_value(term()) :: term()
  def wire_value(value) do
    case Scalars.string(value) do
      {:ok, text} -> text
      _no_text -> value
    end
  end

  @doc "The values of an object under the texts of their keys."
  @spec by_text(Types.t(), term()) :: {:ok, map()} | :error
  def by_text(type, %module{} = value) when is_atom(type) and module == type,
    do: by_text(type, Map.from_struct(value))

  def by_text(_type, map) when is_map(map) and not is_struct(map) do
    by_text = Map.new(map, fn {key, value} -> {key_text(key), value} end)
    if map_size(by_text) == map_size(map), do: {:ok, by_text}, else: :error
  end

  def by_text(_type, _other), do: :error

  @doc "The text of a key, which is an atom or a string; of another what shows it."
  @spec key_text(term()) :: String.t()
  def key_text(key) when is_binary(key), do: key
  def key_text(key) when is_atom(key), do: Atom.to_string(key)
  def key_text(key), do: inspect(key, limit: 5, printable_limit: 60)

  defp proper_list?(value), do: is_list(value) and not List.improper?(value)
end
