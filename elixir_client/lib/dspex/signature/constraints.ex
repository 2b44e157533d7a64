defmodule DSPex.Signature.Constraints do
  @moduledoc false
  # Which constraints a type takes, what their values must look like, and whether a value can meet
  # them at all. `DSPex.Signature.Checks` holds values to them.
  #
  #     string                                 min_length max_length pattern format one_of
  #     binary                                 min_length max_length
  #     integer token_count                    min max multiple_of one_of
  #     float probability confidence_score     min max multiple_of one_of
  #     decimal                                min max multiple_of one_of (numbers, also as text)
  #     list reasoning_chain                   min_items max_items unique
  #     set dict map                           min_items max_items
  #     embedding                              dimensions
  #
  # A union takes what all of its members take; nil takes part in none of them.

  alias DSPex.Options
  alias DSPex.Signature.{Exact, Types, TypeText}

  @schema [
    min: {:any, "the least number."},
    max: {:any, "the greatest number."},
    multiple_of: {:any, "a number that divides it."},
    min_length: {:any, "the fewest characters or bytes."},
    max_length: {:any, "the most characters or bytes."},
    pattern: {:any, "a regular expression that is found in a string, as text (Rust's syntax)."},
    format:
      {:any, "`date`, `date-time`, `email`, `hostname`, `ipv4`, `ipv6`, `time`, `uri`, `uuid`."},
    one_of: {:any, "the values there are."},
    unique: {:any, "whether a list's items differ."},
    dimensions: {:any, "the length of an embedding."},
    min_items: {:any, "the fewest items."},
    max_items: {:any, "the most items."}
  ]

  @names Keyword.keys(@schema)
  @formats ~w(date date-time email hostname ipv4 ipv6 time uri uuid)

  # A pattern is compiled for every program: a person's is short.
  @max_pattern_length 1_000

  @max_dimensions 65_536

  @text [:min_length, :max_length, :pattern, :format, :one_of]
  @number [:min, :max, :multiple_of, :one_of]
  @list [:unique, :min_items, :max_items]
  @integers [:integer, :token_count]
  @floats [:float, :probability, :confidence_score]

  @pairs [min: :max, min_length: :max_length, min_items: :max_items]

  @doc "The constraints as options of a field."
  @spec schema() :: Options.schema()
  def schema, do: @schema

  @doc "Every constraint, in the order in which they are looked at."
  @spec names() :: [atom()]
  def names, do: @names

  @doc "What constraints a type has by itself."
  @spec own(Types.t()) :: map()
  def own(type) when type in [:probability, :confidence_score], do: %{min: 0, max: 1}
  def own(:token_count), do: %{min: 0}
  def own({:embedding, size}), do: %{dimensions: size}
  def own(_type), do: %{}

  @doc """
  Constraints with their values in the form of the wire: a format is text, an atom in `one_of` too.
  """
  @spec normal(Enumerable.t()) :: map()
  def normal(options), do: Map.new(options, fn {name, value} -> {name, normal(name, value)} end)

  defp normal(:format, format) when is_atom(format), do: Atom.to_string(format)
  defp normal(:one_of, values) when is_list(values), do: Enum.map(values, &name_text/1)
  defp normal(_name, value), do: value

  defp name_text(atom) when is_atom(atom) and atom not in [nil, true, false],
    do: Atom.to_string(atom)

  defp name_text(value), do: value

  @doc "Whether these are constraints at all, as the options of `{:constrained, type, options}`."
  @spec check_names(term()) :: :ok | {:error, String.t()}
  def check_names(options) do
    known = Enum.map_join(@names, ", ", &"#{&1}:")

    with true <- Keyword.keyword?(options),
         nil <- Enum.find(Keyword.keys(options), &(&1 not in @names)) do
      :ok
    else
      false ->
        {:error, "{:constrained, t, options} takes #{known}"}

      unknown ->
        hint = Options.did_you_mean(unknown, @names)
        {:error, "unknown constraint #{inspect(unknown)}#{hint}; the constraints are #{known}"}
    end
  end

  @doc "Whether these constraints suit the type, each other, and have fit values; if not, why."
  @spec check(Types.t(), term()) :: :ok | {:error, String.t()}
  def check(type, options) do
    with {:ok, options} <- Options.validate(options, @schema),
         constraints = normal(options),
         :ok <- check_each(type, constraints),
         do: contradiction(type, constraints)
  end

  defp check_each(type, constraints) do
    allowed = of(type)

    Enum.find_value(@names, :ok, fn name ->
      cond do
        not is_map_key(constraints, name) ->
          nil

        name not in allowed ->
          {:error, "#{inspect(name)} does not apply to #{takes(type, allowed)}"}

        true ->
          check_value(name, constraints[name], type)
      end
    end)
  end

  defp takes(type, []), do: "the type #{TypeText.text(type)}, which takes no constraint"

  defp takes(type, allowed),
    do: "the type #{TypeText.text(type)}, which takes #{Enum.map_join(allowed, ", ", &inspect/1)}"

  defp check_value(name, value, type) do
    Enum.find_value(members(type), fn member ->
      if wanted = wrong(name, value, member),
        do: {:error, "option #{inspect(name)}: expected #{wanted}, got #{shown(value)}"}
    end)
  end

  defp members(type) do
    Enum.flat_map(Types.members(type), fn
      {:constrained, type, _options} -> members(type)
      member -> [member]
    end)
  end

  defp of(type) do
    of_members = Enum.map(members(type), &of_member/1)
    Enum.filter(@names, fn name -> Enum.all?(of_members, &(name in &1)) end)
  end

  defp of_member(:string), do: @text
  defp of_member(:binary), do: [:min_length, :max_length]
  defp of_member(type) when type in @integers or type in @floats, do: @number
  defp of_member(:decimal), do: @number
  defp of_member(:reasoning_chain), do: @list
  defp of_member({:list, _type}), do: @list
  defp of_member({:set, _type}), do: [:min_items, :max_items]
  defp of_member({:dict, _key, _value}), do: [:min_items, :max_items]
  defp of_member(:map), do: [:min_items, :max_items]
  defp of_member(:embedding), do: [:dimensions]
  defp of_member({:embedding, _size}), do: [:dimensions]
  defp of_member(_type), do: []

  # What the value of a constraint should have been, nil where it is fit.

  defp wrong(name, value, member) when name in [:min, :max, :multiple_of] do
    cond do
      not number?(value, member) ->
        number_words(member)

      name == :multiple_of ->
        if(above_zero?(value), do: nil, else: number_words(member) <> " above 0")

      true ->
        beyond(value, own(member))
    end
  end

  defp wrong(:one_of, [_ | _] = values, :string),
    do: if(Enum.all?(values, &is_binary/1), do: nil, else: "a list of strings")

  defp wrong(:one_of, [_ | _] = values, member) do
    if Enum.all?(values, &number?(&1, member)),
      do: nil,
      else: "a list, each item #{number_words(member)}"
  end

  defp wrong(:one_of, _other, _member), do: "a list of at least one value"

  defp wrong(:pattern, value, _member) do
    if is_binary(value) and String.valid?(value) and String.length(value) <= @max_pattern_length,
      do: nil,
      else: "a string of at most #{@max_pattern_length} characters"
  end

  defp wrong(:format, value, _member) when value in @formats, do: nil
  defp wrong(:format, _other, _member), do: "one of #{Enum.join(@formats, ", ")}"
  defp wrong(:unique, value, _member), do: if(is_boolean(value), do: nil, else: "true or false")

  defp wrong(:dimensions, value, {:embedding, size}) when value != size,
    do: "#{size}, as the type says"

  defp wrong(:dimensions, value, _member) do
    if is_integer(value) and value in 1..@max_dimensions,
      do: nil,
      else: "an integer from 1 to #{@max_dimensions}"
  end

  defp wrong(_length, value, _member),
    do: if(is_integer(value) and value >= 0, do: nil, else: "an integer from 0")

  defp number?(value, :decimal) when is_binary(value),
    do: Exact.number_text?(value) and finite?(value)

  defp number?(value, member) when is_float(value), do: member not in @integers
  defp number?(value, _member), do: is_integer(value)

  # Beyond a float's range a bound could not be written in JSON Schema.
  defp finite?(text), do: match?({:ok, _float}, DSPex.Signature.Scalars.float(text))

  defp number_words(member) when member in @integers, do: "an integer"
  defp number_words(_member), do: "a finite number"

  defp above_zero?(value), do: compare(value, 0) == :gt

  defp beyond(value, %{min: low, max: high}),
    do: if(value < low or value > high, do: "a number from #{low} to #{high}, as the type says")

  defp beyond(value, %{min: low}),
    do: if(value < low, do: "a number from #{low}, as the type says")

  defp beyond(_value, _none), do: nil

  # --- contradictions ---

  defp contradiction(type, constraints) do
    Enum.find_value(@pairs, &above(&1, constraints)) || no_choice(constraints) ||
      no_multiple(constraints) || few_keys(type, constraints) || :ok
  end

  defp above({low, high}, constraints) do
    case constraints do
      %{^low => least, ^high => most} ->
        if compare(least, most) == :gt,
          do: nothing_fits("#{inspect(low)} (#{least}) is above #{inspect(high)} (#{most})")

      %{} ->
        nil
    end
  end

  defp no_choice(%{one_of: values} = constraints) do
    unless Enum.any?(values, &meets?(&1, constraints)),
      do: nothing_fits("no value of :one_of meets the other constraints")
  end

  defp no_choice(_none), do: nil

  # What a pattern says is left open.
  defp meets?(text, %{min_length: least}) when is_binary(text),
    do: length(String.to_charlist(text)) >= least

  defp meets?(value, constraints) do
    Enum.all?(constraints, fn
      {:min, least} -> compare(value, least) != :lt
      {:max, most} -> compare(value, most) != :gt
      {:max_length, most} -> length(String.to_charlist(value)) <= most
      _other -> true
    end)
  end

  # From the least multiple that is not below the minimum.
  defp no_multiple(%{multiple_of: step, min: least, max: most})
       when is_integer(step) and is_integer(least) and is_integer(most) do
    first = -Integer.floor_div(-least, step) * step
    if first > most, do: nothing_fits("no multiple of #{step} is from #{least} to #{most}")
  end

  defp no_multiple(_constraints), do: nil

  defp few_keys(type, %{min_items: least}) do
    Enum.find_value(members(type), fn
      {:dict, {:one_of, keys}, _value} when length(keys) < least ->
        nothing_fits(":min_items (#{least}) is above the number of its keys (#{length(keys)})")

      _other ->
        nil
    end)
  end

  defp few_keys(_type, _constraints), do: nil

  defp nothing_fits(reason), do: {:error, reason <> ", so nothing fits"}

  defp compare(a, b) do
    {:ok, a} = Exact.new(a)
    {:ok, b} = Exact.new(b)
    Exact.compare(a, b)
  end

  @doc "The text of a type with its constraints, as errors have it: `int (min 0, max 10)`."
  @spec describe(Types.t(), map()) :: String.t()
  def describe(type, none) when none == %{}, do: TypeText.text(type)

  def describe(type, constraints) do
    shown =
      for name <- @names, is_map_key(constraints, name), do: "#{name} #{text(constraints[name])}"

    "#{TypeText.text(type)} (#{Enum.join(shown, ", ")})"
  end

  defp text(values) when is_list(values), do: "[#{Enum.map_join(values, ", ", &text/1)}]"
  defp text(text) when is_binary(text), do: "\"#{text}\""
  defp text(float) when is_float(float), do: Exact.float_text(float)
  defp text(value), do: to_string(value)

  defp shown(value), do: inspect(value, limit: 5, printable_limit: 60)
end
