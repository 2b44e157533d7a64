defmodule DSPex.Options do
  @moduledoc false
  # Options defined once: a schema gives the check, the error that lists what is valid, and the
  # documentation. A schema is a keyword list of `name: {type, doc}` or `name: {type, doc, default}`.

  @type type ::
          :any
          | :atom
          | :boolean
          | :string
          | :name
          | :map
          | :list
          | :timeout
          | {:integer, min :: integer(), max :: integer() | :infinity}
          | :command
          | {:is, (term() -> {:ok, term()} | {:error, String.t()})}

  @type schema :: [{atom(), {type(), String.t()} | {type(), String.t(), term()}}]

  @doc "Checks options against a schema, filling in the defaults."
  @spec validate(term(), schema()) :: {:ok, keyword()} | {:error, String.t()}
  def validate(options, schema) do
    with :ok <- keyword(options) do
      case check_all(schema, options, [], length(options)) do
        {:ok, checked, 0} ->
          {:ok, checked}

        # Unknown names and those that are given twice are looked for where there are any: this is done
        # with every call.
        wrong ->
          with :ok <- known(options, Keyword.keys(schema)),
               :ok <- distinct(options),
               do: wrong
      end
    end
  end

  @doc "Options as a keyword list: those of a file are a map with string keys."
  @spec atom_keys(map() | keyword(), schema()) :: {:ok, keyword()} | {:error, String.t()}
  def atom_keys(options, schema) do
    names = Keyword.keys(schema)
    by_text = Map.new(names, &{Atom.to_string(&1), &1})

    Enum.reduce_while(options, {:ok, []}, fn
      {key, value}, {:ok, done} when is_atom(key) ->
        {:cont, {:ok, [{key, value} | done]}}

      {key, value}, {:ok, done} when is_map_key(by_text, key) ->
        {:cont, {:ok, [{by_text[key], value} | done]}}

      {key, _value}, _done ->
        shown = inspect(key, limit: 5, printable_limit: 60)
        {:halt, {:error, unknown(shown, key, names)}}
    end)
  end

  @doc "Whether all names of a keyword list are among these."
  @spec known(keyword(), [atom()]) :: :ok | {:error, String.t()}
  def known(options, names) do
    case Enum.find(Keyword.keys(options), &(&1 not in names)) do
      nil -> :ok
      unknown -> {:error, unknown(inspect(unknown), unknown, names)}
    end
  end

  @doc "A Markdown list of the options of a schema."
  @spec docs(schema()) :: String.t()
  def docs(schema) do
    Enum.map_join(schema, "\n", fn
      {name, {_type, doc}} -> "  * `:#{name}` - #{doc}"
      {name, {_type, doc, default}} -> "  * `:#{name}` - #{doc} Default: `#{inspect(default)}`."
    end)
  end

  @doc "The likeliest of the valid names for a wrong one, in brackets."
  @spec did_you_mean(term(), [atom()]) :: String.t()
  def did_you_mean(wrong, valid) when is_atom(wrong) or is_binary(wrong) do
    wrong = to_string(wrong)
    # Elixir 1.18 raises where it compares with what is no text.
    valid = if String.valid?(wrong), do: valid, else: []

    case Enum.max_by(valid, &String.jaro_distance(to_string(&1), wrong), fn -> nil end) do
      nil -> ""
      best -> if close?(best, wrong), do: " (did you mean #{inspect(best)}?)", else: ""
    end
  end

  def did_you_mean(_wrong, _valid), do: ""

  defp close?(best, wrong), do: String.jaro_distance(to_string(best), wrong) > 0.75

  defp keyword(options) do
    if Keyword.keyword?(options),
      do: :ok,
      else: {:error, "options are a keyword list"}
  end

  defp unknown(shown, key, valid) do
    "unknown option #{shown}#{did_you_mean(key, valid)}; " <>
      "the options are #{Enum.map_join(valid, ", ", &inspect/1)}"
  end

  defp distinct(options) do
    names = Keyword.keys(options)

    case names -- Enum.uniq(names) do
      [] -> :ok
      [twice | _] -> {:error, "the option #{inspect(twice)} is given twice"}
    end
  end

  # `left` counts the options that have not been checked.
  defp check_all([], _options, checked, left), do: {:ok, Enum.reverse(checked), left}

  defp check_all([{name, spec} | schema], options, checked, left) do
    case :lists.keyfind(name, 1, options) do
      {_name, value} ->
        case check(elem(spec, 0), value) do
          {:ok, value} -> check_all(schema, options, [{name, value} | checked], left - 1)
          {:error, message} -> {:error, "option #{inspect(name)}: #{message}"}
        end

      false when tuple_size(spec) == 3 ->
        check_all(schema, options, [{name, elem(spec, 2)} | checked], left)

      false ->
        check_all(schema, options, checked, left)
    end
  end

  defp check({:is, fun}, value), do: fun.(value)
  defp check(:any, value), do: {:ok, value}

  defp check(:atom, value) when is_atom(value) and value not in [nil, true, false],
    do: {:ok, value}

  defp check(:atom, value), do: expected("an atom", value)
  defp check(:boolean, value) when is_boolean(value), do: {:ok, value}
  defp check(:boolean, value), do: expected("true or false", value)
  defp check(:string, value) when is_binary(value), do: {:ok, value}
  defp check(:string, value), do: expected("a string", value)

  defp check(:name, value) when is_atom(value) and value not in [nil, true, false],
    do: {:ok, Atom.to_string(value)}

  defp check(:name, value) when is_binary(value) and value != "", do: {:ok, value}
  defp check(:name, value), do: expected("a name: an atom or a string", value)
  defp check(:map, value) when is_map(value) and not is_struct(value), do: {:ok, value}

  defp check(:map, value) do
    if Keyword.keyword?(value),
      do: {:ok, Map.new(value)},
      else: expected("a map or a keyword list", value)
  end

  defp check(:list, value) when is_list(value), do: {:ok, value}
  defp check(:list, value), do: expected("a list", value)
  defp check(:timeout, :infinity), do: {:ok, :infinity}
  defp check(:timeout, value) when is_integer(value) and value > 0, do: {:ok, value}
  defp check(:timeout, value), do: expected("milliseconds from 1, or :infinity", value)

  # Every number is less than :infinity, as than any atom.
  defp check({:integer, min, max}, value)
       when is_integer(value) and value >= min and value <= max,
       do: {:ok, value}

  defp check({:integer, min, :infinity}, value), do: expected("an integer from #{min}", value)
  defp check({:integer, min, max}, value), do: expected("an integer from #{min} to #{max}", value)

  defp check(:command, [executable | args] = value) when is_binary(executable) do
    if executable != "" and Enum.all?(args, &is_binary/1),
      do: {:ok, value},
      else: expected(~s(a list of strings such as ["dspex", "bridge"]), value)
  end

  defp check(:command, value),
    do: expected(~s(a list of strings such as ["dspex", "bridge"]), value)

  defp expected(what, value), do: {:error, "expected #{what}, got #{shown(value)}"}

  @doc """
  A value for a message. What is in a list or a map is not shown: an LM with its key is one, and easily
  put in the wrong place.
  """
  @spec shown(term()) :: String.t()
  def shown(value) when is_atom(value) or is_number(value) or is_binary(value),
    do: inspect(value, printable_limit: 60)

  def shown(value) when is_list(value), do: "a list"
  def shown(value) when is_map(value), do: "a map"
  def shown(_value), do: "something else"
end
