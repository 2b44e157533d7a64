defmodule DSPex.Signature.TypeConverter do
  @moduledoc """
  Elixir's types and the wire's: one table, and the values of each.

  | in Elixir | on the wire | a value in Elixir |
  |---|---|---|
  | `:string` | `str` | `t:String.t/0` |
  | `:integer` | `int` | integer |
  | `:float` | `float` | float, or `:nan`, `:infinity`, `:neg_infinity` |
  | `:boolean` | `bool` | `true`, `false` |
  | `:binary` | `bytes` | binary |
  | `:any` | `any` | anything that has a form on the wire |
  | `:map` | `dict` | map |
  | `:date`, `:time`, `:datetime` | the same | `Date`, `Time`, `DateTime` (a naive one: `NaiveDateTime`) |
  | `:decimal` | `decimal` | `Decimal` where that library is loaded, else `DSPex.Decimal` |
  | `{:list, t}` | `list[t]` | list |
  | `{:set, t}` | `set[t]` | `MapSet` |
  | `{:tuple, [t, u]}` | `tuple[t, u]` | tuple |
  | `{:dict, k, v}` | `dict[k, v]` | map with keys of that type |
  | `{:optional, t}` | `t \| None` | `nil` or of type `t` |
  | `{:union, [t, u]}` | `t \| u` | of one of the types |
  | `{:one_of, [:a, "b", 1]}` | `Literal["a", "b", 1]` | one of these strings, integers, booleans, atoms |
  | `:embedding`, `{:embedding, 768}` | `embedding`, `embedding[768]` | list of floats |
  | `:probability`, `:confidence_score` | the same | float from 0 to 1 |
  | `:token_count` | the same | integer from 0 |
  | `:reasoning_chain` | the same | list of strings |
  | `:tensor` | the same | `DSPex.Tensor` |
  | `:image`, `:audio`, `:file` | the same | a string (an address, a data URI, a path), or `DSPex.Binary` |
  | `:history` | the same | list of maps |
  | `:code`, `{:code, "python"}` | `code`, `code["python"]` | string |
  | `:tool_calls` | the same | list of maps with `name` and `args` |
  | `{:constrained, t, min: 0}` | a JSON Schema | of type `t` |
  | `%{name: t, age: {:optional, u}}` | a JSON Schema | map with these keys, those that are optional or not |

  What is beside a field's type, as in `field :n, :integer, min: 0`, is a constraint of the whole
  field; `{:constrained, t, options}` is for a type within another.
  """

  alias DSPex.{Binary, Options}
  alias DSPex.Signature.{Constraints, JSONSchema, TypeParser}

  @type type :: atom() | tuple() | map()

  @names [
    string: "str",
    integer: "int",
    float: "float",
    boolean: "bool",
    any: "any",
    map: "dict",
    binary: "bytes",
    date: "date",
    time: "time",
    datetime: "datetime",
    decimal: "decimal",
    embedding: "embedding",
    probability: "probability",
    confidence_score: "confidence_score",
    token_count: "token_count",
    reasoning_chain: "reasoning_chain",
    tensor: "tensor",
    image: "image",
    audio: "audio",
    file: "file",
    history: "history",
    code: "code",
    tool_calls: "tool_calls"
  ]
  @by_name Map.new(@names, fn {type, name} -> {name, type} end)
  @plain Keyword.keys(@names)

  @composite [
    "{:list, t}",
    "{:set, t}",
    "{:tuple, [t]}",
    "{:dict, k, v}",
    "{:optional, t}",
    "{:union, [t]}",
    "{:one_of, [...]}",
    "{:embedding, 768}",
    "{:code, \"python\"}",
    "{:constrained, t, options}",
    "%{key: t}"
  ]

  @constraint_names ~w(min max multiple_of min_length max_length pattern format one_of unique
    dimensions min_items max_items)a

  # It stands in prompts, in a class's name and in a media type.
  @language ~r/\A[A-Za-z0-9#+._-]{1,40}\z/

  # What travels as the key of a map, that is as text, and can be read from it.
  @keys [:string, :integer, :float, :boolean, :date, :time, :datetime, :decimal]

  @unhashable [:map, :embedding, :reasoning_chain, :tensor] ++
                [:image, :audio, :file, :history, :code, :tool_calls]

  # An order of magnitude above the largest embedding models.
  @max_dimensions 65_536

  @int64 -0x8000_0000_0000_0000..0x7FFF_FFFF_FFFF_FFFF

  @doc "The type of a wire type that is a name alone."
  @spec from_name(String.t()) :: {:ok, type()} | :error
  def from_name(name), do: Map.fetch(@by_name, name)

  @doc "The names that a wire type may have."
  @spec wire_names() :: [String.t()]
  def wire_names,
    do: Keyword.values(@names) ++ ~w(list set tuple dict Optional Union Literal None)

  @doc """
  Whether a term is a type; if not, why.

      iex> DSPex.Signature.TypeConverter.check({:list, {:one_of, [:low, :high]}})
      :ok

      iex> {:error, message} = DSPex.Signature.TypeConverter.check({:list, :strng})
      iex> message =~ "unknown type :strng (did you mean :string?); the types are :string, :integer,"
      true
  """
  @spec check(term()) :: :ok | {:error, String.t()}
  def check(type) when type in @plain, do: :ok
  def check({:list, type}), do: check(type)

  def check({:set, type}) do
    with :ok <- check(type) do
      if wrong = unhashable(type),
        do: {:error, "a set cannot hold #{text(wrong)}; use a list"},
        else: :ok
    end
  end

  def check({:optional, type}), do: check(type)
  def check({:tuple, [_ | _] = types}), do: check_all(types)
  def check({:union, [_, _ | _] = types}), do: check_all(types)
  def check({:union, _few}), do: {:error, "{:union, [t, u]} takes a list of two types or more"}
  def check({:tuple, _none}), do: {:error, "{:tuple, [t, u]} takes a list of types"}

  def check({:dict, key, value}) do
    with :ok <- check_all([key, value]) do
      if key?(key), do: :ok, else: {:error, "#{text(key)} cannot be the key of a dict"}
    end
  end

  def check({:one_of, values}), do: check_values(values)
  def check({:embedding, size}) when is_integer(size) and size in 1..@max_dimensions, do: :ok

  def check({:embedding, _size}),
    do: {:error, "{:embedding, size} takes an integer from 1 to #{@max_dimensions}"}

  def check({:code, language}) do
    if is_binary(language) and language =~ @language,
      do: :ok,
      else: {:error, "{:code, language} takes a name of 1 to 40 letters, digits and # + - . _"}
  end

  def check({:constrained, type, options}) do
    with :ok <- check(type),
         true <- Keyword.keyword?(options) or {:error, constrained_help()},
         nil <- Enum.find(Keyword.keys(options), &(&1 not in @constraint_names)) do
      Constraints.check(type, options)
    else
      {:error, _message} = error ->
        error

      name ->
        hint = Options.did_you_mean(name, @constraint_names)
        {:error, "unknown constraint #{inspect(name)}#{hint}; #{constrained_help()}"}
    end
  end

  def check(properties) when is_map(properties) and not is_struct(properties) do
    Enum.find_value(properties, :ok, fn {name, type} ->
      cond do
        not (is_binary(name) or (is_atom(name) and name not in [nil, true, false])) ->
          {:error, "the keys of a map are atoms or strings, not #{shown(name)}"}

        match?({:error, _message}, check(type)) ->
          {:error, message} = check(type)
          {:error, "#{name}: #{message}"}

        true ->
          nil
      end
    end)
  end

  def check(other) do
    hint = if is_atom(other), do: Options.did_you_mean(other, @plain), else: ""
    known = Enum.map_join(@plain, ", ", &inspect/1) <> ", " <> Enum.join(@composite, ", ")
    {:error, "unknown type #{shown(other)}#{hint}; the types are #{known}"}
  end

  defp constrained_help,
    do: "{:constrained, t, options} takes #{Enum.map_join(@constraint_names, ", ", &"#{&1}:")}"

  defp key?({:one_of, values}), do: nil not in values
  defp key?(type), do: type in @keys

  # What in the type of a set's items Python cannot hash.
  defp unhashable({:union, types}), do: Enum.find_value(types, &unhashable/1)
  defp unhashable({:tuple, types}), do: Enum.find_value(types, &unhashable/1)
  defp unhashable({:optional, type}), do: unhashable(type)
  defp unhashable({:one_of, _values}), do: nil
  defp unhashable({:constrained, type, _options}), do: unhashable(type)
  defp unhashable(properties) when is_map(properties), do: properties
  defp unhashable(type) when is_tuple(type) or type in @unhashable, do: type
  defp unhashable(_type), do: nil

  defp check_all(types) do
    Enum.find_value(types, :ok, fn type -> with :ok <- check(type), do: nil end)
  end

  defp check_values([_ | _] = values) do
    texts = Enum.map(values, &literal/1)

    cond do
      bad = Enum.find(values, &(literal(&1) == :error)) ->
        {:error,
         "{:one_of, values} takes strings, integers of 64 bits, booleans and atoms, not #{shown(bad)}"}

      texts != Enum.uniq(texts) ->
        {:error, "{:one_of, values} has a value twice: #{shown(values -- uniq_by_text(values))}"}

      true ->
        :ok
    end
  end

  defp check_values(_none), do: {:error, "{:one_of, values} takes a list of values"}

  defp uniq_by_text(values), do: Enum.uniq_by(values, &literal/1)

  @doc """
  The type as the wire has it: text, or a JSON Schema where the grammar has none.

      iex> DSPex.Signature.TypeConverter.to_wire({:dict, :string, {:optional, {:list, :float}}})
      "dict[str, list[float] | None]"

      iex> DSPex.Signature.TypeConverter.to_wire({:one_of, [:low, "so \\"so\\"", 3, true]})
      ~S|Literal["low", "so \\"so\\"", 3, True]|
  """
  @spec to_wire(type()) :: String.t() | map()
  def to_wire(type), do: if(text?(type), do: text(type), else: JSONSchema.of_type(type))

  for {type, name} <- @names, do: defp(text(unquote(type)), do: unquote(name))
  defp text({:list, :any}), do: "list"
  defp text({:dict, :string, :any}), do: "dict"
  defp text({:list, type}), do: "list[#{text(type)}]"
  defp text({:set, type}), do: "set[#{text(type)}]"
  defp text({:optional, type}), do: "#{text(type)} | None"
  defp text({:tuple, types}), do: "tuple[#{Enum.map_join(types, ", ", &text/1)}]"
  defp text({:union, types}), do: Enum.map_join(types, " | ", &text/1)
  defp text({:dict, key, value}), do: "dict[#{text(key)}, #{text(value)}]"
  defp text({:embedding, size}), do: "embedding[#{size}]"
  defp text({:one_of, values}), do: "Literal[#{Enum.map_join(values, ", ", &literal/1)}]"
  defp text({:code, language}), do: "code[#{literal(language)}]"

  # For people alone: see `to_wire/1`.
  defp text({:constrained, type, options}) do
    "#{text(type)} (#{Enum.map_join(options, ", ", fn {name, value} -> "#{name} #{shown(value)}" end)})"
  end

  defp text(properties) when is_map(properties) do
    names =
      for {name, type} <- properties,
          do: if(match?({:optional, _}, type), do: "#{name}?", else: "#{name}")

    "{#{names |> Enum.sort() |> Enum.join(", ")}}"
  end

  defp text({:json_schema, _schema}), do: "(JSON Schema)"

  @doc """
  The type for people, and in errors: the text of the wire where it has one.

      iex> DSPex.Signature.TypeConverter.to_text({:list, {:constrained, :integer, min: 0}})
      "list[int (min 0)]"
  """
  @spec to_text(type()) :: String.t()
  def to_text(type), do: text(type)

  defp text?({:constrained, _type, _options}), do: false
  defp text?(properties) when is_map(properties), do: false
  defp text?({:one_of, _values}), do: true
  defp text?({_kind, types}) when is_list(types), do: Enum.all?(types, &text?/1)
  defp text?({:dict, key, type}), do: text?(key) and text?(type)
  defp text?({_kind, type}) when is_atom(type) or is_tuple(type) or is_map(type), do: text?(type)
  defp text?(_type), do: true

  @doc "The type that the wire's text describes."
  @spec from_wire(String.t()) :: {:ok, type()} | {:error, DSPex.Error.t()}
  defdelegate from_wire(text), to: TypeParser, as: :type

  defp literal(true), do: "True"
  defp literal(false), do: "False"
  defp literal(nil), do: "None"
  defp literal(atom) when is_atom(atom), do: literal(Atom.to_string(atom))
  defp literal(number) when is_integer(number) and number in @int64, do: Integer.to_string(number)

  defp literal(text) when is_binary(text) do
    if String.valid?(text), do: "\"#{escaped(text)}\"", else: :error
  end

  defp literal(_other), do: :error

  defp escaped(text), do: for(<<c::utf8 <- text>>, into: "", do: escape(c))

  defp escape(?\\), do: "\\\\"
  defp escape(?"), do: "\\\""
  defp escape(?\n), do: "\\n"
  defp escape(?\r), do: "\\r"
  defp escape(?\t), do: "\\t"
  defp escape(?\b), do: "\\b"
  defp escape(?\f), do: "\\f"

  defp escape(c) when c < 0x20 or c in 0x7F..0x9F,
    do: "\\x" <> Base.encode16(<<c>>, case: :lower)

  defp escape(c), do: <<c::utf8>>

  # --- values to the wire ---

  @doc """
  A value of a type, as the codec writes it. What does not fit the type is left as it is: the bridge
  says what is wrong with it, together with everything else.

      iex> DSPex.Signature.TypeConverter.dump({:tuple, [:integer, :binary]}, {1, <<255>>})
      [1, %DSPex.Binary{data: <<255>>}]
  """
  @spec dump(type(), term()) :: term()
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

  def dump({:constrained, type, _options}, value), do: dump(type, value)

  def dump(properties, map)
      when is_map(properties) and is_map(map) and not is_struct(map) do
    types = Map.new(properties, fn {name, type} -> {to_string(name), type} end)

    Map.new(map, fn {key, value} ->
      name = if is_atom(key), do: Atom.to_string(key), else: key
      {name, dump(Map.get(types, name, :any), value)}
    end)
  end

  def dump({:optional, _type}, nil), do: nil
  def dump({:optional, type}, value), do: dump(type, value)

  def dump({:union, types}, value) do
    # The first that makes something of it; a plain text stays a text where it may be one.
    if is_binary(value) and :string in types,
      do: value,
      else: Enum.find_value(types, value, &dumped(&1, value))
  end

  def dump(_type, value), do: value

  defp dumped(type, value) do
    case dump(type, value) do
      ^value -> nil
      dumped -> dumped
    end
  end

  defp dump_items(type, [value | values]), do: [dump(type, value) | dump_items(type, values)]
  # The end, or what the codec will refuse as an improper list.
  defp dump_items(_type, rest), do: rest

  defp dump_key(_type, key) when is_atom(key) or is_binary(key), do: key
  defp dump_key(_type, key) when is_integer(key), do: Integer.to_string(key)
  defp dump_key(_type, key) when is_float(key), do: Float.to_string(key)
  defp dump_key(_type, %DateTime{} = key), do: DateTime.to_iso8601(key)

  defp dump_key(_type, %module{} = key) when module in [Date, Time, NaiveDateTime],
    do: module.to_iso8601(key)

  defp dump_key(:decimal, %module{} = key) when module in [Decimal, DSPex.Decimal] do
    case DSPex.Decimal.text(key) do
      {:ok, text} -> text
      # The codec refuses it, and says where it stands.
      :error -> key
    end
  end

  defp dump_key(_type, key), do: key

  # --- values from the wire ---

  @doc """
  A value that the bridge sent, as Elixir has it.

      iex> alias DSPex.Signature.TypeConverter
      iex> TypeConverter.load({:list, {:one_of, [:low, :high]}}, ["high", "low"])
      {:ok, [:high, :low]}
      iex> TypeConverter.load({:dict, :string, :date}, %{"due" => "2024-02-30"})
      {:error, ["due"], "date"}
  """
  @spec load(type(), term()) ::
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
    with :error <- DSPex.Decimal.best(text), do: misfit(:decimal)
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

  def load({:code, _language}, value), do: load(:string, value)
  def load({:constrained, type, _options}, value), do: load(type, value)

  def load(properties, map)
      when is_map(properties) and is_map(map) and not is_struct(map) do
    Enum.reduce_while(properties, {:ok, %{}}, fn {name, type}, {:ok, loaded} ->
      key = to_string(name)

      with %{^key => value} <- map,
           {:ok, value} <- load(type, value) do
        {:cont, {:ok, Map.put(loaded, name, value)}}
      else
        {:error, path, expected} -> {:halt, {:error, [key | path], expected}}
        _left_out when is_tuple(type) and elem(type, 0) == :optional -> {:cont, {:ok, loaded}}
        _missing -> {:halt, {:error, [key], text(type)}}
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

  def load(type, _value), do: misfit(type)

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

  defp misfit(type), do: {:error, [], text(type)}

  defp shown(term), do: inspect(term, limit: 10, printable_limit: 60)
end
