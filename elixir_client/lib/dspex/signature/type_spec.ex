defmodule DSPex.Signature.TypeSpec do
  @moduledoc false
  # Types as Elixir's typespecs, and fields as lines of documentation.

  alias DSPex.Signature.{Constraints, Field, Types}

  # Like the number of a struct's fields: a longer choice says no more to a reader.
  @max_choices 32

  @plain %{
    string: quote(do: String.t()),
    integer: quote(do: integer()),
    token_count: quote(do: non_neg_integer()),
    float: quote(do: float() | :nan | :infinity | :neg_infinity),
    probability: quote(do: float()),
    confidence_score: quote(do: float()),
    boolean: quote(do: boolean()),
    map: quote(do: map()),
    binary: quote(do: binary()),
    date: quote(do: Date.t()),
    time: quote(do: Time.t()),
    datetime: quote(do: DateTime.t() | NaiveDateTime.t()),
    # A `Decimal` where the application has that library.
    decimal: quote(do: DSPex.Decimal.t() | struct()),
    embedding: quote(do: [float()] | DSPex.Tensor.t()),
    reasoning_chain: quote(do: [String.t()]),
    tensor: quote(do: DSPex.Tensor.t() | [term()])
  }

  @doc "The typespec of a field's value."
  @spec spec(Field.t()) :: Macro.t()
  def spec(%Field{type: type} = field) do
    if Types.may_be_left_out?(field) and not Types.allows_nil?(type) and field.default == :none,
      do: quote(do: unquote(type(type)) | nil),
      else: type(type)
  end

  defp type({:list, type}), do: quote(do: [unquote(type(type))])
  defp type({:set, type}), do: quote(do: MapSet.t(unquote(type(type))))
  defp type({:tuple, types}), do: {:{}, [], Enum.map(types, &type/1)}
  defp type({:optional, type}), do: quote(do: unquote(type(type)) | nil)
  defp type({:union, types}), do: any_of(Enum.map(types, &type/1))
  defp type({:one_of, values}), do: choices(values)
  defp type({:constrained, type, _options}), do: type(type)
  defp type({:embedding, _size}), do: type(:embedding)
  defp type({:tagged, tag, type}), do: {:{}, [], [choices([tag]), type(type)]}

  defp type({:dict, key, type}),
    do: quote(do: %{optional(unquote(type(key))) => unquote(type(type))})

  defp type(map) when is_map(map) do
    pairs =
      for {key, type} <- map, is_atom(key), do: {quote(do: required(unquote(key))), type(type)}

    if length(pairs) == map_size(map), do: {:%{}, [], pairs}, else: quote(do: map())
  end

  defp type(type) do
    cond do
      spec = @plain[type] -> spec
      is_atom(type) and Types.object?(type) -> quote(do: unquote(type).t())
      Types.canonical(type) != type -> type(Types.canonical(type))
      true -> quote(do: term())
    end
  end

  # A typespec has no strings and no values but atoms and integers.
  defp choices(values) when length(values) > @max_choices, do: quote(do: term())

  defp choices(values) do
    values
    |> Enum.map(&if is_binary(&1), do: quote(do: String.t()), else: &1)
    |> Enum.uniq()
    |> any_of()
  end

  defp any_of(specs), do: Enum.reduce(Enum.reverse(specs), &{:|, [], [&1, &2]})

  @doc "A field as a line of Markdown."
  @spec line(Field.t()) :: String.t()
  def line(%Field{} = field) do
    "  * `#{field.name}` (`#{Constraints.describe(field.type, field.constraints)}`" <>
      default(field) <> ")" <> description(field)
  end

  defp default(%Field{default: {:value, value}}),
    do: ", default `#{inspect(value, limit: 10, printable_limit: 60)}`"

  defp default(%Field{default: :none}), do: ""

  defp description(%Field{description: nil}), do: ""
  defp description(%Field{description: text}), do: ": " <> text
end
