defmodule DSPex.Signature.Conversion do
  @moduledoc false
  # A value to a value of a type, by the rules that `DSPex.Signature.Validator` documents, with every
  # error on the way.

  alias DSPex.{Options, Tensor}
  alias DSPex.Signature.{Checks, Constraints, Exactness, Found, Scalars, Types, TypeText, Values}

  # A type and its constraints as errors name them, and whether they are those of a field as a whole:
  # then they stand for what is in a union with nil, too.
  @type label :: {Types.t(), map(), boolean()}

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
  The value of a type within constraints, which is of no meaning where errors were added. `at` is its
  path, reversed; `stated` is what errors name as expected, where that is not the type itself.
  """
  @spec convert(Types.t(), map(), term(), [String.t() | integer()], Found.t(), label() | nil) ::
          {term(), Found.t()}
  def convert(type, constraints, value, at, found, stated \\ nil) do
    type = Types.canonical(type)
    label = stated || {type, constraints, false}
    before = found.count
    {converted, found} = walk(type, label, value, at, found)

    with ^before <- found.count,
         failed when failed != nil <- Exactness.failed(type, constraints, converted) do
      {nil, Found.add(found, Atom.to_string(failed), at, label, value)}
    else
      _met_or_refused -> {converted, found}
    end
  end

  # Whether the value converts, and to what.
  defp converted(type, value) do
    {converted, _found} = convert(type, %{}, value, [], Found.none(0))
    {:ok, converted}
  catch
    {:too_many_errors, _found} -> :error
  end

  defp walk(type, label, value, at, found) when type in @scalar_types do
    case Map.fetch!(@scalars, type).(value) do
      {:ok, converted} -> {converted, found}
      {:error, why} -> refuse(found, "type", at, label, value, why)
    end
  end

  defp walk(:any, _label, value, _at, found), do: {value, found}

  defp walk(:map, label, value, at, found) do
    if is_map(value) and not is_struct(value),
      do: {value, found},
      else: refuse(found, "type", at, label, value)
  end

  defp walk(:reasoning_chain, label, value, at, found),
    do: walk({:list, :string}, label, value, at, found)

  # Its numbers are the bridge's to judge.
  defp walk(:embedding, _label, %Tensor{shape: {_}} = tensor, _at, found),
    do: {tensor, found}

  defp walk(:embedding, label, value, at, found),
    do: walk({:list, :float}, label, value, at, found)

  defp walk({:embedding, _size}, label, value, at, found),
    do: walk(:embedding, label, value, at, found)

  defp walk({:list, type}, label, value, at, found) do
    if proper_list?(value),
      do: items(value, type, at, found),
      else: refuse(found, "type", at, label, value)
  end

  defp walk({:set, type}, label, value, at, found) do
    case value do
      %MapSet{} -> set(MapSet.to_list(value), type, label, value, at, found)
      _other -> set(value, type, label, value, at, found)
    end
  end

  defp walk({:tuple, types}, label, value, at, found) do
    items = if is_tuple(value), do: Tuple.to_list(value), else: value

    cond do
      not proper_list?(items) ->
        refuse(found, "type", at, label, value)

      length(items) != length(types) ->
        refuse(found, "length", at, label, value, "its length is #{length(items)}")

      true ->
        {converted, found} = each(Enum.zip(types, items), 0, at, found, [])
        {List.to_tuple(converted), found}
    end
  end

  defp walk({:dict, key_type, type}, label, map, at, found)
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
            {converted, Found.add(found, "key", [text | at], TypeText.text(key_type), text)}
        end
      end)

    keys = MapSet.new(converted, fn {key, _value} -> Checks.identity(key, :in_set) end)

    if found.count == before and MapSet.size(keys) < map_size(map),
      do: refuse(found, "key", at, label, map, "two of its keys are the same"),
      else: {Map.new(converted), found}
  end

  defp walk({:dict, _key_type, _type}, label, value, at, found),
    do: refuse(found, "type", at, label, value)

  defp walk({:one_of, values}, label, value, at, found) do
    case choice(values, value) do
      {:ok, choice} -> {choice, found}
      :error -> refuse(found, "literal", at, label, value)
    end
  end

  defp walk({:optional, _type}, _label, nil, _at, found), do: {nil, found}

  defp walk({:optional, type}, label, value, at, found) do
    # Of one type beside nil the errors say more than of several.
    case Types.members(type) do
      [member] -> convert(member, %{}, value, at, found, stated(label))
      members -> union(members, label, value, at, found)
    end
  end

  defp walk({:union, types} = union, label, value, at, found) do
    if value == nil and Types.allows_nil?(union),
      do: {nil, found},
      else: union(Enum.flat_map(types, &Types.members/1), label, value, at, found)
  end

  defp walk({:constrained, type, options}, label, value, at, found) do
    constraints = Constraints.normal(options)
    convert(type, constraints, value, at, found, stated(label))
  end

  # DSPy's own types and JSON Schemas.
  defp walk(type, label, value, at, found) do
    if Types.object?(type),
      do: object(type, label, value, at, found),
      else: {value, found}
  end

  defp proper_list?(value), do: is_list(value) and not List.improper?(value)

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
    with :error <- Exactness.choice(values, value) do
      Enum.find_value(values, :error, fn choice ->
        wanted = Exactness.wire_value(choice)
        if converts_to?(wanted, value), do: {:ok, choice}
      end)
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

    exact = Enum.filter(types, &Exactness.exact?(&1, value))

    # What is exactly of a type is converted too: to the names that the signature has.
    case Enum.find_value(exact ++ types, :error, &with(:error <- converted(&1, value), do: nil)) do
      {:ok, converted} -> {converted, found}
      :error -> refuse(found, "type", at, label, value)
    end
  end

  # --- objects ---

  defp object(type, label, value, at, found) do
    with {:ok, by_text} <- Exactness.by_text(type, value) do
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

  defp property(property, by_text, at, found) do
    name = to_string(property.name)

    case {by_text, property} do
      {%{^name => value}, _property} -> convert(property.type, %{}, value, [name | at], found)
      {_, %{default: {:value, value}}} -> convert(property.type, %{}, value, [name | at], found)
      {_, %{required?: false}} -> {:left_out, found}
      _missing -> {nil, Found.add(found, "missing", [name | at], property_label(property), nil)}
    end
  end

  defp property_label(property), do: {property.type, %{}, false}

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
        {others, Found.add(found, "unexpected", [text | at], what, value, hint)}
      end
    end)
  end

  defp stated({_type, _constraints, stated?} = label), do: if(stated?, do: label)

  defp refuse(found, kind, at, label, value, why \\ ""),
    do: {nil, Found.add(found, kind, at, label, value, why)}
end
