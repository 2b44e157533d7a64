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

  alias DSPex.{Error, Options}
  alias DSPex.Signature.{Conversion, Exactness, Field, Found, Types}

  @type side :: :inputs | :outputs
  @type error :: %{required(String.t()) => term()}

  # A list of a million wrong items would otherwise make a million errors.
  @max_errors 100

  # Lines in the message of an error; its data has them all.
  @shown_errors 5

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

  defp no_map(side),
    do: {:error, Error.new(:invalid_params, "#{side}: expected a map or a keyword list")}

  @doc "One value of a type; of the errors the first."
  @spec value(Types.t(), map(), term()) :: {:ok, term()} | {:error, error()}
  def value(type, constraints, value) do
    case Conversion.convert(type, constraints, value, [], Found.none(1)) do
      {converted, %{count: 0}} -> {:ok, converted}
      {_none, %{errors: [error]}} -> {:error, error}
    end
  catch
    {:too_many_errors, %{errors: [error]}} -> {:error, error}
  end

  # --- one side ---

  defp fields(fields, values, side) do
    {by_text, found} = by_text(values, Found.none(@max_errors))

    {converted, found} =
      Enum.reduce(fields, {%{}, found}, fn field, {converted, found} ->
        {value, found} = field(field, Map.fetch(by_text, to_string(field.name)), found)
        {Map.put(converted, field.name, value), found}
      end)

    found = unexpected(values, fields, side, found)
    if found.count == 0, do: {:ok, converted}, else: {:error, Enum.reverse(found.errors), false}
  catch
    {:too_many_errors, %{errors: errors}} -> {:error, Enum.reverse(errors), true}
  end

  defp by_text(values, found) do
    Enum.reduce(values, {%{}, found}, fn {key, value}, {by_text, found} ->
      text = Exactness.key_text(key)

      if is_map_key(by_text, text),
        do:
          {by_text,
           Found.add(found, "key", [text], "the key once, as an atom or as a string", value)},
        else: {Map.put(by_text, text, value), found}
    end)
  end

  defp field(field, {:ok, value}, found),
    do:
      Conversion.convert(
        field.type,
        field.constraints,
        value,
        [to_string(field.name)],
        found,
        label(field)
      )

  defp field(%Field{default: {:value, default}} = field, :error, found),
    do: field(%{field | default: :none}, {:ok, default}, found)

  defp field(field, :error, found) do
    if Types.allows_nil?(field.type),
      do: {nil, found},
      else: {nil, Found.add(found, "missing", [to_string(field.name)], label(field), nil)}
  end

  defp label(field), do: {field.type, field.constraints, true}

  defp unexpected(values, fields, side, found) do
    names = Enum.map(fields, &to_string(&1.name))
    what = if side == :inputs, do: "no input of this name", else: "no output of this name"

    Enum.reduce(values, found, fn {key, value}, found ->
      text = Exactness.key_text(key)

      if text in names,
        do: found,
        else:
          Found.add(found, "unexpected", [text], what, value, Options.did_you_mean(text, names))
    end)
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
