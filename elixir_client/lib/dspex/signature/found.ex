defmodule DSPex.Signature.Found do
  @moduledoc false
  # The errors that a validation has found so far. Paths are reversed: the last part first.

  alias DSPex.Signature.{Constraints, ShownValue, Types}

  @type t :: %{errors: [map()], count: non_neg_integer(), limit: non_neg_integer()}

  # What an error says was expected: a text, or a type and its constraints.
  @type expected :: String.t() | {Types.t(), map(), boolean()}

  @doc "None yet; one more than `limit` is thrown as `{:too_many_errors, found}`."
  @spec none(non_neg_integer()) :: t()
  def none(limit), do: %{errors: [], count: 0, limit: limit}

  @doc "Adds an error, unless there are too many."
  @spec add(t(), String.t(), [String.t() | integer()], expected(), term(), String.t()) :: t()
  def add(found, kind, at, expected, value, why \\ "")

  def add(%{count: limit, limit: limit} = found, _kind, _at, _expected, _value, _why),
    do: throw({:too_many_errors, found})

  def add(found, kind, at, expected, value, why) do
    expected = text(expected)
    got = if kind == "missing", do: "nothing", else: ShownValue.text(value)

    error = %{
      "path" => Enum.reverse(at),
      "type" => kind,
      "message" => message(kind, expected, got, String.trim(why)),
      "expected" => expected,
      "got" => got
    }

    %{found | errors: [error | found.errors], count: found.count + 1}
  end

  # What the value of a name too many is matters to nobody.
  defp message("unexpected", expected, _got, ""), do: "there is #{expected}"
  defp message("unexpected", expected, _got, why), do: "there is #{expected} #{why}"
  defp message(_kind, expected, got, ""), do: "expected #{expected}, got #{got}"
  defp message(_kind, expected, got, why), do: "expected #{expected}, got #{got}: #{why}"

  defp text(text) when is_binary(text), do: text
  defp text({type, constraints, _stated?}), do: Constraints.describe(type, constraints)
end
