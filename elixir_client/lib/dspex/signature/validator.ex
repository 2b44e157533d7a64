defmodule DSPex.Signature.Validator do
  @moduledoc """
  Values held to the fields of a signature: converted where nothing is lost, else refused with every
  reason.

  It says what the bridge says, by the same vectors, without a round trip. Conversions, and no
  others:

  | to | from |
  |---|---|
  | `:integer` | a float without a fraction; text such as `"-12"` or `"3.0"` |
  | `:float` | an integer that a float holds exactly; a number as text |
  | `:boolean` | `"true"` and `"false"`, in any case |
  | `:decimal` | an integer; a finite float, by its shortest text; a number as text |
  | `:string` | an atom, a `Date`, `Time` or `NaiveDateTime`: they travel as text |
  | `:date`, `:time`, `:datetime` | ISO 8601 text |
  | `{:tuple, [t]}`, `{:set, t}` | a list |
  | `{:one_of, values}` | what converts to one of the values; atoms only where they are listed |
  | a key of a dict | its text |
  | `{:union, [t]}` | the first type that the value is of, else the first that it converts to |

  A boolean is no number, a number is no text; `false` and `nil` are values. A field that is left out
  is its default, else `nil` where its type allows that, else an error. Fields are found under atom
  and string keys.

  Each error is a map, with string keys as on the wire:

    * `"path"` - the field, then keys and indexes;
    * `"type"` - `missing`, `unexpected`, `type`, `literal`, `length`, `key`, or the constraint that
      is not met;
    * `"expected"`, `"got"` - the type with its constraints, and the value, both as text;
    * `"message"` - a sentence of these for a person.

  What the bridge alone can judge passes here: values of a JSON Schema, of DSPy's own types, and
  patterns of a syntax that Elixir's regular expressions do not share.
  """

  import DSPex.Signature.Scalars, only: [is_any_float: 1]

  alias DSPex.{Binary, Error, Options, Tensor}
  alias DSPex.Signature.{Checks, Constraints, Field, Scalars, ShownValue, Types, Values}

  @type side :: :inputs | :outputs
  @type error :: %{required(String.t()) => term()}

  # A list of a million wrong items would otherwise make a million errors.
  @max_errors 100

  # Lines in the message of an error; its data has them all.
  @shown_errors 5

  @scalars %{
    string: &Scalars.string/1,
    integer: &Scalars.integer/1,
    token_count: &Scalars.integer/1,
    float: &Scalars.float/1,
    probability: &Scalars.float/1,
    confidence_score: &Scalars.float/1,
    boolean: &Scalars.boolean/1,
    binary: &Scalars.binary/1,
    decimal: &Scalars.decimal/1,
    date: &Scalars.date/1,
    time: &Scalars.time/1,
    datetime: &Scalars.datetime/1,
    tensor: &Scalars.tensor/1
  }
  @scalar_types Map.keys(@scalars)

  @doc """
  The values of all fields of one side of a signature, converted, under the names of the fields.

      iex> {:ok, signature} = DSPex.Signature.parse("n: int, tags: list[str] | None -> a")
      iex> DSPex.Signature.Validator.validate(signature.inputs, :inputs, %{n: 3.0})
      {:ok, %{"n" => 3, "tags" => nil}}
      iex> {:error, error} =
      ...>   DSPex.Signature.Validator.validate(signature.inputs, :inputs, %{n: 1.5, tags: [1]})
      iex> {error.code, Enum.map(error.data["errors"], & &1["path"])}
      {:input_validation, [["n"], ["tags", 0]]}
  """
  @spec validate([Field.t()], side(), map() | keyword()) :: {:ok, map()} | {:error, Error.t()}
  def validate(fields, side, %_module{} = struct),
    do: validate(fields, side, Map.from_struct(struct))

  def validate(fields, side, values) when is_map(values) or is_list(values) do
    if is_map(values) or Keyword.keyword?(values) do
      case fields(fields, Map.new(values), side) do
        {:ok, converted} -> {:ok, converted}
        {:error, errors, truncated?} -> {:error, refused(errors, truncated?, side)}
      end
    else
      no_map(side)
    end
  end

  def validate(_fields, side, _other), do: no_map(side)

  defp no_map(side), do: {:error, Error.new(:invalid_params, "#{side}: expected a map")}

  @doc "One value of a type; of the errors the first."
  @spec value(Types.t(), map(), term()) :: {:ok, term()} | {:error, error()}
  def value(type, constraints, value) do
    case convert(type, constraints, value, [], new(1)) do
      {converted, %{count: 0}} -> {:ok, converted}
      {_none, %{errors: [error]}} -> {:error, error}
    end
  catch
    {__MODULE__, %{errors: [error]}} -> {:error, error}
  end

  # --- one side ---

  defp fields(fields, values, side) do
    {by_text, found} = by_text(values, new(@max_errors))

    {converted, found} =
      Enum.reduce(fields, {%{}, found}, fn field, {converted, found} ->
        {value, found} = field(field, Map.fetch(by_text, to_string(field.name)), found)
        {Map.put(converted, field.name, value), found}
      end)

    found = unexpected(values, fields, side, found)
    if found.count == 0, do: {:ok, converted}, else: {:error, Enum.reverse(found.errors), false}
  catch
    {__MODULE__, %{errors: errors}} -> {:error, Enum.reverse(errors), true}
  end

  defp by_text(values, found) do
    Enum.reduce(values, {%{}, found}, fn {key, value}, {by_text, found} ->
      text = key_text(key)

      if is_map_key(by_text, text),
        do:
          {by_text, add(found, "key", [text], "the key once, as an atom or as a string", value)},
        else: {Map.put(by_text, text, value), found}
    end)
  end

  defp key_text(key) when is_binary(key), do: key
  defp key_text(key) when is_atom(key), do: Atom.to_string(key)
  defp key_text(key), do: inspect(key, limit: 5, printable_limit: 60)

  defp field(field, {:ok, value}, found),
    do: convert(field.type, field.constraints, value, [to_string(field.name)], found)

  defp field(%Field{default: {:value, default}} = field, :error, found),
    do: field(%{field | default: :none}, {:ok, default}, found)

  defp field(field, :error, found) do
    if Types.allows_nil?(field.type),
      do: {nil, found},
      else: {nil, add(found, "missing", [to_string(field.name)], expected(field), :missing)}
  end

  defp expected(field), do: Constraints.describe(field.type, field.constraints)

  defp unexpected(values, fields, side, found) do
    names = Enum.map(fields, &to_string(&1.name))
    what = if side == :inputs, do: "no input of this name", else: "no output of this name"

    Enum.reduce(values, found, fn {key, value}, found ->
      text = key_text(key)

      if text in names,
        do: found,
        else: add(found, "unexpected", [text], what, value, Options.did_you_mean(text, names))
    end)
  end

  # --- one value ---

  # The value of the type, which is of no meaning where errors were added.
  defp convert(type, constraints, value, at, found, label \\ nil) do
    type = Types.canonical(type)
    label = label || {type, constraints}
    before = found.count
    {converted, found} = walk(type, constraints, label, value, at, found)

    with ^before <- found.count,
         failed when failed != nil <- failed(type, constraints, converted) do
      {nil, add(found, Atom.to_string(failed), at, described(label), value)}
    else
      _met_or_refused -> {converted, found}
    end
  end

  defp failed(_type, _constraints, nil), do: nil
  defp failed(:binary, constraints, data), do: Checks.failed(:binary, constraints, {:bytes, data})
  defp failed(type, constraints, value), do: Checks.failed(type, constraints, value)

  defp described({type, constraints}), do: Constraints.describe(type, constraints)

  # Whether the value converts, and to what.
  defp converted(type, value) do
    {converted, _found} = convert(type, %{}, value, [], new(0))
    {:ok, converted}
  catch
    {__MODULE__, _found} -> :error
  end

  defp walk(type, _constraints, label, value, at, found) when type in @scalar_types do
    case Map.fetch!(@scalars, type).(value) do
      {:ok, converted} -> {converted, found}
      {:error, why} -> refuse(found, "type", at, label, value, why)
    end
  end

  defp walk(:any, _constraints, _label, value, _at, found), do: {value, found}

  defp walk(:map, _constraints, label, value, at, found) do
    if is_map(value) and not is_struct(value),
      do: {value, found},
      else: refuse(found, "type", at, label, value)
  end

  defp walk(:reasoning_chain, constraints, label, value, at, found),
    do: walk({:list, :string}, constraints, label, value, at, found)

  # Its numbers are the bridge's to judge.
  defp walk(:embedding, _constraints, _label, %Tensor{shape: {_}} = tensor, _at, found),
    do: {tensor, found}

  defp walk(:embedding, constraints, label, value, at, found),
    do: walk({:list, :float}, constraints, label, value, at, found)

  defp walk({:embedding, _size}, constraints, label, value, at, found),
    do: walk(:embedding, constraints, label, value, at, found)

  defp walk({:list, type}, _constraints, label, value, at, found) do
    if proper_list?(value),
      do: items(value, type, at, found),
      else: refuse(found, "type", at, label, value)
  end

  defp walk({:set, type}, _constraints, label, value, at, found) do
    case value do
      %MapSet{} -> set(MapSet.to_list(value), type, label, value, at, found)
      _other -> set(value, type, label, value, at, found)
    end
  end

  defp walk({:tuple, types}, _constraints, label, value, at, found) do
    items = if is_tuple(value), do: Tuple.to_list(value), else: value

    cond do
      not proper_list?(items) ->
        refuse(found, "type", at, label, value)

      length(items) != length(types) ->
        refuse(found, "length", at, label, value, "its length is #{length(items)}")

      true ->
        {converted, found} = each(Enum.zip(types, items), 0, at, found, [])
        {as_tuple(types, converted), found}
    end
  end

  defp walk({:dict, key_type, type}, _constraints, label, map, at, found)
       when is_map(map) and not is_struct(map) do
    before = found.count

    {converted, found} =
      Enum.reduce(map, {[], found}, fn {key, value}, {converted, found} ->
        text = dict_key(key_type, key)

        case converted(key_type, text) do
          {:ok, key} ->
            {value, found} = convert(type, %{}, value, [text | at], found)
            {[{key, value} | converted], found}

          :error ->
            {converted, add(found, "key", [text | at], Types.text(key_type), text)}
        end
      end)

    keys = MapSet.new(converted, fn {key, _value} -> Checks.identity(key, :in_set) end)

    if found.count == before and MapSet.size(keys) < map_size(map),
      do: refuse(found, "key", at, label, map, "two of its keys are the same"),
      else: {Map.new(converted), found}
  end

  defp walk({:one_of, values}, _constraints, label, value, at, found) do
    case choice(values, value) do
      {:ok, choice} -> {choice, found}
      :error -> refuse(found, "literal", at, label, value)
    end
  end

  defp walk({:optional, _type}, _constraints, _label, nil, _at, found), do: {nil, found}

  defp walk({:optional, type}, _constraints, label, value, at, found) do
    # Of one type beside nil the errors say more than of several.
    case Types.members(type) do
      [member] -> convert(member, %{}, value, at, found, label)
      members -> union(members, label, value, at, found)
    end
  end

  defp walk({:union, types} = union, _constraints, label, value, at, found) do
    if value == nil and Types.allows_nil?(union),
      do: {nil, found},
      else: union(Enum.flat_map(types, &Types.members/1), label, value, at, found)
  end

  defp walk({:constrained, type, options}, _constraints, label, value, at, found) do
    constraints = Constraints.normal(options)
    label = with {{:constrained, _, _}, none} when none == %{} <- label, do: {type, constraints}
    convert(type, constraints, value, at, found, label)
  end

  # DSPy's own types and JSON Schemas.
  defp walk(type, _constraints, label, value, at, found) do
    if Types.object?(type),
      do: object(type, label, value, at, found),
      else: {value, found}
  end

  defp proper_list?(value), do: is_list(value) and List.improper?(value) == false

  # A tagged value keeps its tag, and the place of both.
  defp as_tuple(types, converted) when length(types) == length(converted),
    do: List.to_tuple(converted)

  defp items(values, type, at, found), do: each(Enum.map(values, &{type, &1}), 0, at, found, [])

  defp each([{type, value} | rest], index, at, found, done) do
    {converted, found} = convert(type, %{}, value, [index | at], found)
    each(rest, index + 1, at, found, [converted | done])
  end

  defp each([], _index, _at, found, done), do: {Enum.reverse(done), found}

  defp set(items, type, label, value, at, found) do
    before = found.count

    if proper_list?(items) do
      {converted, found} = items(items, type, at, found)

      cond do
        found.count > before ->
          {nil, found}

        Enum.any?(converted, &(is_list(&1) or (is_map(&1) and not is_struct(&1)))) ->
          refuse(found, "type", at, label, value, "a set holds no lists and no maps")

        true ->
          {converted |> Enum.uniq_by(&Checks.identity(&1, :in_set)) |> MapSet.new(), found}
      end
    else
      refuse(found, "type", at, label, value)
    end
  end

  # As it goes over the wire: text. A key that has none is shown.
  defp dict_key(type, key) do
    case Values.dump_key(type, key) do
      text when is_binary(text) -> text
      atom when is_atom(atom) -> Atom.to_string(atom)
      other -> inspect(other, limit: 5, printable_limit: 60)
    end
  end

  # --- choices ---

  defp choice(values, value) do
    with :error <- exact_choice(values, value) do
      Enum.find_value(values, :error, fn choice ->
        wanted = wire_value(choice)
        if converts_to?(wanted, value), do: {:ok, choice}
      end)
    end
  end

  defp exact_choice(values, value) do
    value = wire_value(value)
    Enum.find_value(values, :error, &if(wire_value(&1) === value, do: {:ok, &1}))
  end

  defp wire_value(value) do
    case Scalars.string(value) do
      {:ok, text} -> text
      _no_text -> value
    end
  end

  defp converts_to?(wanted, value) do
    convert =
      cond do
        is_boolean(wanted) -> &Scalars.boolean/1
        is_integer(wanted) -> &Scalars.integer/1
        is_binary(wanted) -> &Scalars.string/1
        is_nil(wanted) -> &Scalars.null/1
      end

    convert.(value) == {:ok, wanted}
  end

  # --- unions ---

  defp union(types, label, value, at, found) do
    # Every binary could be bytes: where it may be text, it is.
    types = if is_binary(value) and :string in types, do: List.delete(types, :binary), else: types

    exact = Enum.filter(types, &exact?(&1, value))

    # What is exactly of a type is converted too: to the names that the signature has.
    case Enum.find_value(exact ++ types, :error, &with(:error <- converted(&1, value), do: nil)) do
      {:ok, converted} -> {converted, found}
      :error -> refuse(found, "type", at, label, value)
    end
  end

  defp exact?(type, value) do
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

  defp shape?({:one_of, values}, value), do: match?({:ok, _}, exact_choice(values, value))
  defp shape?({:optional, _type}, nil), do: true
  defp shape?({:optional, type}, value), do: exact?(type, value)
  defp shape?({:union, types}, value), do: Enum.any?(types, &exact?(&1, value))

  defp shape?({:constrained, type, options}, value),
    do: exact?(type, value) and failed(type, Constraints.normal(options), value) == nil

  defp shape?({:json_schema, _schema}, _value), do: true
  defp shape?({:code, _language}, _value), do: true

  defp shape?(type, value),
    do: if(Types.object?(type), do: exact_object?(type, value), else: type in Types.dspy())

  # --- objects ---

  defp object(type, label, value, at, found) do
    with {:ok, map} <- object_map(type, value),
         {:ok, by_text} <- distinct(map) do
      object = Types.object(type)

      {converted, found} =
        Enum.reduce(object.properties, {%{}, found}, fn property, {converted, found} ->
          case property(property, by_text, at, found) do
            {:left_out, found} when object.partial? -> {converted, found}
            {:left_out, found} -> {Map.put(converted, property.name, nil), found}
            {value, found} -> {Map.put(converted, property.name, value), found}
          end
        end)

      {others, found} = others(by_text, object, at, found)
      converted = Map.merge(converted, others)
      {if(is_atom(type), do: struct(type, converted), else: converted), found}
    else
      :error -> refuse(found, "type", at, label, value)
    end
  end

  defp object_map(type, %module{} = value) when is_atom(type) and module == type,
    do: {:ok, Map.from_struct(value)}

  defp object_map(_type, value) when is_map(value) and not is_struct(value), do: {:ok, value}
  defp object_map(_type, _other), do: :error

  defp distinct(map) do
    by_text = Map.new(map, fn {key, value} -> {key_text(key), value} end)
    if map_size(by_text) == map_size(map), do: {:ok, by_text}, else: :error
  end

  defp property(property, by_text, at, found) do
    name = to_string(property.name)

    case {by_text, property} do
      {%{^name => value}, _property} -> convert(property.type, %{}, value, [name | at], found)
      {_, %{default: {:value, value}}} -> convert(property.type, %{}, value, [name | at], found)
      {_, %{required?: false}} -> {:left_out, found}
      _missing -> {nil, add(found, "missing", [name | at], Types.text(property.type), :missing)}
    end
  end

  defp others(by_text, object, at, found) do
    names = Enum.map(object.properties, &to_string(&1.name))

    by_text
    |> Map.drop(names)
    |> Enum.reduce({%{}, found}, fn {text, value}, {others, found} ->
      if object.additional do
        {value, found} = convert(object.additional, %{}, value, [text | at], found)
        {Map.put(others, text, value), found}
      else
        hint = Options.did_you_mean(text, names)
        what = "no property of this name"
        {others, add(found, "unexpected", [text | at], what, value, hint)}
      end
    end)
  end

  defp exact_object?(type, value) do
    with {:ok, map} <- object_map(type, value),
         {:ok, by_text} <- distinct(map) do
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

  # --- errors ---

  defp new(limit), do: %{errors: [], count: 0, limit: limit}

  defp refuse(found, kind, at, label, value, why \\ "") do
    # Where nobody reads the error it is not written.
    expected = if found.limit == 0, do: "", else: described(label)
    {nil, add(found, kind, at, expected, value, why)}
  end

  defp add(found, kind, at, expected, value, why \\ "")

  defp add(%{count: limit, limit: limit} = found, _kind, _at, _expected, _value, _why),
    do: throw({__MODULE__, found})

  defp add(found, kind, at, expected, value, why) do
    got = if value == :missing and kind == "missing", do: "nothing", else: ShownValue.text(value)
    reason = if why == "", do: "", else: ": " <> String.trim(why)

    error = %{
      "path" => Enum.reverse(at),
      "type" => kind,
      "message" => "expected #{expected}, got #{got}#{reason}",
      "expected" => expected,
      "got" => got
    }

    %{found | errors: [error | found.errors], count: found.count + 1}
  end

  defp refused(errors, truncated?, side) do
    code = if side == :inputs, do: :input_validation, else: :output_validation

    data =
      if truncated?, do: %{"errors" => errors, "truncated" => true}, else: %{"errors" => errors}

    count = if length(errors) == 1, do: "1 error", else: "#{length(errors)} errors"
    lines = errors |> Enum.take(@shown_errors) |> Enum.map(&"#{place(&1)}: #{&1["message"]}")
    more = length(errors) - @shown_errors
    lines = if more > 0, do: lines ++ ["and #{more} more"], else: lines

    shown = if match?([_], lines), do: " " <> hd(lines), else: Enum.map(lines, &"\n  #{&1}")
    Error.new(code, IO.iodata_to_binary(["#{count} in the #{side}:", shown]), data: data)
  end

  defp place(%{"path" => [field | rest]}),
    do: "#{field}#{for part <- rest, do: "[#{inspect(part)}]"}"
end
