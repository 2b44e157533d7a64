defmodule DSPex.Signature.Values do
  @moduledoc false
  # Values of a type: from Elixir to what the codec writes, and from the wire to Elixir.

  alias DSPex.Binary
  alias DSPex.Signature.{Field, Types, TypeText}

  @doc """
  A value of a type, as the codec writes it. What does not fit the type is left as it is: the bridge
  says what is wrong with it, together with everything else.

      iex> DSPex.Signature.Values.dump({:tuple, [:integer, :binary]}, {1, <<255>>})
      [1, %DSPex.Binary{data: <<255>>}]
  """
  @spec dump(Types.t(), term()) :: term()
  def dump(:binary, value) when is_binary(value), do: Binary.new(value)
  def dump({:list, type}, values) when is_list(values), do: dump_items(type, values)

  def dump({:set, type}, %MapSet{} = set),
    do: set |> MapSet.to_list() |> then(&dump_items(type, &1))

  def dump({:set, type}, values) when is_list(values), do: dump_items(type, values)

  def dump({:tuple, types}, values) when tuple_size(values) == length(types),
    do: Enum.zip_with(types, Tuple.to_list(values), &dump/2)

  def dump({:tuple, types}, values) when is_list(values) and length(values) == length(types),
    do: Enum.zip_with(types, values, &dump/2)

  def dump({:dict, key, type}, map) when is_map(map) and not is_struct(map),
    do: Map.new(map, fn {k, value} -> {dump_key(key, k), dump(type, value)} end)

  def dump({:optional, _type}, nil), do: nil
  def dump({:optional, type}, value), do: dump(type, value)

  def dump({:union, types}, value) do
    # The first that makes something of it; a plain text stays a text where it may be one.
    if is_binary(value) and :string in types,
      do: value,
      else: Enum.find_value(types, value, &dumped(&1, value))
  end

  def dump({:constrained, type, _options}, value), do: dump(type, value)

  def dump(type, value) do
    case Types.canonical(type) do
      ^type -> if Types.object?(type), do: dump_object(type, value), else: value
      other -> dump(other, value)
    end
  end

  defp dump_object(type, %module{} = value) when module == type,
    do: dump_object(type, Map.from_struct(value))

  defp dump_object(type, map) when is_map(map) and not is_struct(map) do
    %{properties: properties, additional: additional} = Types.object(type)

    for {key, value} <- dump_named(properties, additional, map),
        into: %{},
        do: {if(is_atom(key), do: Atom.to_string(key), else: key), value}
  end

  defp dump_object(_type, value), do: value

  @doc """
  Values under the names of fields, each by its field's type. Keys are atoms or strings; what stands
  under a key that is no field's is left as it is.
  """
  @spec dump_fields([Field.t()], map()) :: map()
  def dump_fields(fields, values), do: dump_named(fields, nil, values)

  defp dump_named(named, other, values) do
    types = Map.new(named, &{to_string(&1.name), &1.type})

    Map.new(values, fn {key, value} ->
      case Map.get(types, if(is_atom(key), do: Atom.to_string(key), else: key), other) do
        nil -> {key, value}
        type -> {key, dump(type, value)}
      end
    end)
  end

  defp dumped(type, value) do
    case dump(type, value) do
      ^value -> nil
      dumped -> dumped
    end
  end

  defp dump_items(type, [value | values]), do: [dump(type, value) | dump_items(type, values)]
  # The end, or what the codec will refuse as an improper list.
  defp dump_items(_type, rest), do: rest

  @doc "The key of a dict as text, where it has one."
  @spec dump_key(Types.t(), term()) :: term()
  def dump_key(_type, key) when is_atom(key) or is_binary(key), do: key
  def dump_key(_type, key) when is_integer(key), do: Integer.to_string(key)
  def dump_key(_type, key) when is_float(key), do: Float.to_string(key)
  def dump_key(_type, %DateTime{} = key), do: DateTime.to_iso8601(key)

  def dump_key(_type, %module{} = key) when module in [Date, Time, NaiveDateTime],
    do: module.to_iso8601(key)

  def dump_key(_type, %module{} = key) when module in [Decimal, DSPex.Decimal] do
    case DSPex.Decimal.text(key) do
      {:ok, text} -> text
      # The codec refuses it, and says where it stands.
      :error -> key
    end
  end

  def dump_key(_type, key), do: key

  # --- values from the wire ---

  @doc """
  A value that the bridge sent, as Elixir has it.

      iex> alias DSPex.Signature.Values
      iex> Values.load({:list, {:one_of, [:low, :high]}}, ["high", "low"])
      {:ok, [:high, :low]}
      iex> Values.load({:dict, :string, :date}, %{"due" => "2024-02-30"})
      {:error, ["due"], "date"}
  """
  @spec load(Types.t(), term()) ::
          {:ok, term()} | {:error, path :: [String.t() | integer()], expected :: String.t()}
  def load(:any, value), do: {:ok, value}
  def load({:json_schema, _schema}, value), do: {:ok, value}
  def load(:string, value) when is_binary(value), do: {:ok, value}
  def load(:integer, value) when is_integer(value), do: {:ok, value}
  def load(:boolean, value) when is_boolean(value), do: {:ok, value}
  def load(:map, value) when is_map(value) and not is_struct(value), do: {:ok, value}
  def load(:binary, %Binary{data: data}), do: {:ok, data}
  def load(:token_count, value), do: load(:integer, value)
  def load(:reasoning_chain, value), do: load({:list, :string}, value)

  def load(type, value) when type in [:float, :probability, :confidence_score] do
    cond do
      is_float(value) or value in [:nan, :infinity, :neg_infinity] -> {:ok, value}
      # Python's own floats are floats here; an int beyond a float's range is none.
      is_integer(value) and abs(value) <= 0x20_0000_0000_0000 -> {:ok, value * 1.0}
      true -> misfit(type)
    end
  end

  def load(:date, text) when is_binary(text), do: parsed(:date, Date.from_iso8601(text))
  def load(:time, text) when is_binary(text), do: parsed(:time, Time.from_iso8601(text))
  def load(:datetime, %DateTime{} = time), do: {:ok, time}

  def load(:datetime, text) when is_binary(text) do
    case DateTime.from_iso8601(text) do
      {:ok, time, _offset} -> {:ok, time}
      {:error, _no_offset} -> parsed(:datetime, NaiveDateTime.from_iso8601(text))
    end
  end

  def load(:decimal, %module{} = decimal) when module in [Decimal, DSPex.Decimal],
    do: {:ok, decimal}

  def load(:decimal, text) when is_binary(text) do
    case DSPex.Decimal.best(text) do
      :error -> misfit(:decimal)
      decimal -> {:ok, decimal}
    end
  end

  def load(:embedding, %DSPex.Tensor{} = tensor), do: {:ok, tensor}
  def load(:embedding, values), do: load({:list, :float}, values)
  def load({:embedding, _size}, values), do: load(:embedding, values)

  def load(type, value)
      when type in [:tensor, :image, :audio, :file, :history, :code, :tool_calls],
      do: {:ok, value}

  def load({:list, type}, values) when is_list(values), do: load_items(type, values)

  def load({:set, type}, values) when is_list(values) do
    with {:ok, items} <- load_items(type, values), do: {:ok, MapSet.new(items)}
  end

  def load({:tuple, types}, values) when is_list(values) and length(values) == length(types) do
    with {:ok, items} <- load_each(Enum.zip(types, values), 0, []),
         do: {:ok, List.to_tuple(items)}
  end

  def load({:dict, key, type}, map) when is_map(map) and not is_struct(map) do
    Enum.reduce_while(map, {:ok, %{}}, fn {text, value}, {:ok, loaded} ->
      with {:ok, key} <- load_key(key, text),
           {:ok, value} <- load(type, value) do
        {:cont, {:ok, Map.put(loaded, key, value)}}
      else
        {:error, path, expected} -> {:halt, {:error, [text | path], expected}}
      end
    end)
  end

  def load({:optional, _type}, nil), do: {:ok, nil}
  def load({:optional, type}, value), do: load(type, value)

  def load({:union, types} = union, value) do
    Enum.find_value(types, misfit(union), fn type ->
      with {:error, _path, _expected} <- load(type, value), do: nil
    end)
  end

  def load({:one_of, options} = type, value) do
    Enum.find_value(options, misfit(type), fn option ->
      if option === value or (is_atom(option) and is_binary(value) and name?(option, value)),
        do: {:ok, option}
    end)
  end

  def load({:constrained, type, _options}, value), do: load(type, value)
  def load({:code, _language}, value), do: {:ok, value}

  def load(type, value) do
    case Types.canonical(type) do
      ^type -> if Types.object?(type), do: load_object(type, value), else: misfit(type)
      other -> load(other, value)
    end
  end

  defp load_object(type, map) when is_map(map) and not is_struct(map) do
    object = Types.object(type)
    names = Enum.map(object.properties, &to_string(&1.name))

    with {:ok, loaded} <- load_properties(object, map),
         {:ok, others} <- load_others(Map.drop(map, names), object.additional || :any) do
      loaded = Map.merge(others, loaded)
      {:ok, if(is_atom(type), do: struct(type, loaded), else: loaded)}
    end
  end

  defp load_object(type, _other), do: misfit(type)

  defp load_properties(object, map) do
    Enum.reduce_while(object.properties, {:ok, %{}}, fn property, {:ok, loaded} ->
      name = to_string(property.name)

      case {Map.fetch(map, name), property} do
        {{:ok, value}, _property} ->
          case load(property.type, value) do
            {:ok, value} -> {:cont, {:ok, Map.put(loaded, property.name, value)}}
            {:error, path, expected} -> {:halt, {:error, [name | path], expected}}
          end

        {:error, %{required?: true}} ->
          {:halt, {:error, [name], TypeText.text(property.type)}}

        {:error, _optional} when object.partial? ->
          {:cont, {:ok, loaded}}

        {:error, _optional} ->
          {:cont, {:ok, Map.put(loaded, property.name, nil)}}
      end
    end)
  end

  defp load_others(map, type) do
    Enum.reduce_while(map, {:ok, %{}}, fn {name, value}, {:ok, loaded} ->
      case load(type, value) do
        {:ok, value} -> {:cont, {:ok, Map.put(loaded, name, value)}}
        {:error, path, expected} -> {:halt, {:error, [name | path], expected}}
      end
    end)
  end

  # `true` is a value of its own, and not the text "true".
  defp name?(option, _value) when option in [true, false, nil], do: false
  defp name?(option, value), do: Atom.to_string(option) == value

  defp load_items(type, values), do: load_each(Enum.map(values, &{type, &1}), 0, [])

  defp load_each([], _at, loaded), do: {:ok, Enum.reverse(loaded)}

  defp load_each([{type, value} | rest], at, loaded) do
    case load(type, value) do
      {:ok, value} -> load_each(rest, at + 1, [value | loaded])
      {:error, path, expected} -> {:error, [at | path], expected}
    end
  end

  defp load_key(:integer, text), do: whole(:integer, Integer.parse(text))
  defp load_key(:float, text), do: whole(:float, Float.parse(text))
  defp load_key(:boolean, "true"), do: {:ok, true}
  defp load_key(:boolean, "false"), do: {:ok, false}

  defp load_key({:one_of, options}, text) do
    Enum.find_value(options, misfit({:one_of, options}), fn option ->
      if to_string(option) == text, do: {:ok, option}
    end)
  end

  defp load_key(type, text), do: load(type, text)

  defp whole(_type, {number, ""}), do: {:ok, number}
  defp whole(type, _other), do: misfit(type)

  defp parsed(_type, {:ok, value}), do: {:ok, value}
  defp parsed(type, {:error, _reason}), do: misfit(type)

  defp misfit(type), do: {:error, [], TypeText.text(type)}

  # --- values in JSON ---

  @doc """
  A value of a type as JSON holds it, which is how defaults travel: dates and decimals as text.
  """
  @spec to_json(Types.t(), term()) :: {:ok, term()} | {:error, String.t()}
  def to_json(type, value) do
    {:ok, type |> dump(value) |> json()}
  catch
    {__MODULE__, message} -> {:error, message}
  end

  defp json(value) when value in [:nan, :infinity, :neg_infinity],
    do: throw({__MODULE__, "JSON has no #{inspect(value)}"})

  defp json(value) when is_nil(value) or is_boolean(value) or is_number(value), do: value
  defp json(atom) when is_atom(atom), do: Atom.to_string(atom)
  defp json(list) when is_list(list), do: Enum.map(list, &json/1)
  defp json(%Binary{}), do: throw({__MODULE__, "JSON has no bytes"})

  defp json(%module{} = time) when module in [DateTime, NaiveDateTime, Date, Time],
    do: module.to_iso8601(time)

  defp json(%module{} = struct) do
    case DSPex.Decimal.text(struct) do
      {:ok, text} -> text
      :error -> throw({__MODULE__, "JSON has no #{inspect(module)}"})
    end
  end

  defp json(map) when is_map(map),
    do: Map.new(map, fn {key, value} -> {to_string(key), json(value)} end)

  defp json(text) when is_binary(text) do
    if String.valid?(text), do: text, else: throw({__MODULE__, "it is not valid UTF-8"})
  end

  defp json(_other), do: throw({__MODULE__, "it has no form in JSON"})
end
