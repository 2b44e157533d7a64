defmodule DSPex.Signature.TypeCheck do
  @moduledoc false
  # Whether a term is a type, and if not, what is wrong with it.

  alias DSPex.Options
  alias DSPex.Signature.{Constraints, Struct, Types, TypeText}

  @plain Types.plain()

  @composite [
    "{:list, t}",
    "{:set, t}",
    "{:tuple, [t]}",
    "{:dict, k, v}",
    "{:optional, t}",
    "{:union, [t]}",
    "{:one_of, [...]}",
    "{:constrained, t, options}",
    "{:tagged, tag, t}",
    "{:embedding, 768}",
    "{:code, \"python\"}",
    "%{key: t}",
    "the Inputs or Outputs of a signature's module"
  ]

  # What travels as the key of a map, that is as text, and can be read from it.
  @keys [:string, :integer, :float, :boolean, :date, :time, :datetime, :decimal]

  @unhashable [:map, :embedding, :reasoning_chain, :tensor] ++ Types.dspy()

  # An order of magnitude above the largest embedding models.
  @max_dimensions 65_536

  @doc "Whether a term is a type; if not, why."
  @spec check(term()) :: :ok | {:error, String.t()}
  def check(type) when type in @plain, do: :ok
  def check({:list, type}), do: check(type)

  def check({:set, type}) do
    with :ok <- check(type) do
      if wrong = unhashable(type),
        do: {:error, "a set cannot hold #{TypeText.text(wrong)}; use a list"},
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
      if key?(Types.canonical(key)),
        do: :ok,
        else: {:error, "#{TypeText.text(key)} cannot be the key of a dict"}
    end
  end

  def check({:one_of, values}), do: check_values(values)

  def check({:constrained, type, options}) do
    with :ok <- check(type),
         :ok <- Constraints.check_names(options),
         do: Constraints.check(type, options)
  end

  def check({:tagged, tag, type}) do
    if (is_atom(tag) and tag not in [nil, true, false]) or
         (is_binary(tag) and String.valid?(tag)),
       do: check(type),
       else: {:error, "{:tagged, tag, t} takes an atom or a string as its tag, not #{shown(tag)}"}
  end

  def check({:embedding, size}) when is_integer(size) and size in 1..@max_dimensions, do: :ok

  def check({:embedding, _size}),
    do: {:error, "{:embedding, size} takes an integer from 1 to #{@max_dimensions}"}

  def check({:code, language}) when is_binary(language) do
    if language =~ ~r/\A[A-Za-z0-9#+._-]{1,40}\z/,
      do: :ok,
      else: {:error, "the name of a language has 1 to 40 letters, digits and _ + # . -"}
  end

  def check({:json_schema, schema}) when is_map(schema) and not is_struct(schema), do: :ok
  def check({:json_schema, _other}), do: {:error, "{:json_schema, schema} takes a map"}

  # Only ever read from a JSON Schema, which holds the types in it to this.
  def check({:object, _properties, _rest}), do: :ok

  def check(map) when is_map(map) and not is_struct(map) do
    wrong = Enum.find(Map.keys(map), &(not key_name?(&1)))

    cond do
      map == %{} -> {:error, "%{key: t} has at least one key; the type of any map is :map"}
      wrong -> {:error, "the keys of a map are atoms or strings, not #{shown(wrong)}"}
      true -> check_properties(map)
    end
  end

  def check(other) do
    if is_atom(other) and Struct.struct?(other), do: :ok, else: {:error, unknown(other)}
  end

  defp key_name?(key) when is_atom(key), do: key not in [nil, true, false]
  defp key_name?(key), do: is_binary(key) and String.valid?(key)

  defp check_properties(map) do
    texts = map |> Map.keys() |> Enum.map(&to_string/1)

    case texts -- Enum.uniq(texts) do
      [] -> Enum.find_value(map, :ok, &check_property/1)
      [twice | _] -> {:error, "the key #{inspect(twice)} of %{key: t} stands twice"}
    end
  end

  defp check_property({key, type}) do
    case check(type) do
      :ok -> nil
      {:error, message} -> {:error, "#{key}: #{message}"}
    end
  end

  defp unknown(other) do
    hint = if is_atom(other), do: Options.did_you_mean(other, @plain), else: ""
    known = Enum.map_join(@plain, ", ", &inspect/1) <> ", " <> Enum.join(@composite, ", ")

    of_module =
      if is_atom(other) and Struct.signature?(other),
        do: " (a signature: say #{inspect(other)}.Inputs or #{inspect(other)}.Outputs)",
        else: hint

    "unknown type #{shown(other)}#{of_module}; the types are #{known}"
  end

  defp key?({:one_of, values}), do: nil not in values
  defp key?(type), do: type in @keys

  # What in the type of a set's items Python cannot hash.
  defp unhashable({:union, types}), do: Enum.find_value(types, &unhashable/1)
  defp unhashable({:tuple, types}), do: Enum.find_value(types, &unhashable/1)
  defp unhashable({:optional, type}), do: unhashable(type)
  defp unhashable({:constrained, type, _options}), do: unhashable(type)
  defp unhashable({:tagged, _tag, type}), do: unhashable(type)
  defp unhashable({:one_of, _values}), do: nil

  defp unhashable(type) do
    type = Types.canonical(type)

    if is_tuple(type) or type in @unhashable or Types.object?(type),
      do: type
  end

  defp check_all(types) do
    Enum.find_value(types, :ok, fn type -> with :ok <- check(type), do: nil end)
  end

  defp check_values([_ | _] = values) do
    texts = Enum.map(values, &TypeText.literal/1)

    cond do
      bad = Enum.find(values, &(TypeText.literal(&1) == :error)) ->
        {:error,
         "{:one_of, values} takes strings, integers of 64 bits, booleans and atoms, not #{shown(bad)}"}

      texts != Enum.uniq(texts) ->
        {:error, "{:one_of, values} has a value twice: #{shown(values -- uniq_by_text(values))}"}

      true ->
        :ok
    end
  end

  defp check_values(_none), do: {:error, "{:one_of, values} takes a list of values"}

  defp uniq_by_text(values), do: Enum.uniq_by(values, &TypeText.literal/1)

  defp shown(term), do: inspect(term, limit: 10, printable_limit: 60)
end
