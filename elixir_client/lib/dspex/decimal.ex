defmodule DSPex.Decimal do
  @moduledoc """
  A decimal number, held as its text, where the application does not have the `Decimal` library.

  With `Decimal` loaded a decimal from Python is a `Decimal`; both are accepted on the way there.

      iex> DSPex.Decimal.new("12.50")
      {:ok, %DSPex.Decimal{text: "12.50"}}

      iex> DSPex.Decimal.new("twelve")
      :error
  """

  # The application's, if it has one. Called through this, because it is no dependency of ours.
  @library Decimal
  @compile {:no_warn_undefined, @library}

  @type t :: %__MODULE__{text: String.t()}

  @enforce_keys [:text]
  defstruct [:text]

  @doc """
  Checks the text: an optional sign, digits with an optional point and exponent; or `Infinity`,
  `NaN` or `sNaN`, as Python writes them.
  """
  @spec new(String.t()) :: {:ok, t()} | :error
  def new(text) when is_binary(text) do
    if number?(text), do: {:ok, %__MODULE__{text: text}}, else: :error
  end

  @doc """
  A `Decimal` where that library is loaded and can hold the number, else a `DSPex.Decimal`.
  """
  @spec best(String.t()) :: {:ok, t() | struct()} | :error
  def best(text) when is_binary(text) do
    with {:ok, decimal} <- new(text) do
      library = @library

      with true <- library?(),
           {number, ""} <- library.parse(text) do
        {:ok, number}
      else
        _none_or_signaling_nan -> {:ok, decimal}
      end
    end
  end

  # Asked once: where there is none, each further question would search the whole code path.
  defp library? do
    with nil <- :persistent_term.get({__MODULE__, :library?}, nil) do
      is_there = Code.ensure_loaded?(@library)
      :persistent_term.put({__MODULE__, :library?}, is_there)
      is_there
    end
  end

  @doc "The text of either kind of decimal; `:error` for anything else."
  @spec text(term()) :: {:ok, String.t()} | :error
  def text(%__MODULE__{text: text}) when is_binary(text),
    do: with({:ok, _} <- new(text), do: {:ok, text})

  def text(%{__struct__: library} = decimal) when library == @library,
    do: {:ok, library.to_string(decimal)}

  def text(_other), do: :error

  defp number?(<<sign, rest::binary>>) when sign in ~c"+-", do: unsigned?(rest)
  defp number?(text), do: unsigned?(text)

  defp unsigned?("Infinity"), do: true
  defp unsigned?("NaN" <> payload), do: match?({_count, ""}, digits(payload, 0))
  defp unsigned?("sNaN" <> payload), do: match?({_count, ""}, digits(payload, 0))

  defp unsigned?(text) do
    {whole, rest} = digits(text, 0)
    {fraction, rest} = fraction(rest)
    whole + fraction > 0 and exponent?(rest)
  end

  defp fraction("." <> rest), do: digits(rest, 0)
  defp fraction(rest), do: {0, rest}

  defp exponent?(""), do: true

  defp exponent?(<<e, sign, rest::binary>>) when e in ~c"eE" and sign in ~c"+-",
    do: digits_only?(rest)

  defp exponent?(<<e, rest::binary>>) when e in ~c"eE", do: digits_only?(rest)
  defp exponent?(_other), do: false

  defp digits_only?(text) do
    {count, rest} = digits(text, 0)
    count > 0 and rest == ""
  end

  # Counted by hand: a regular expression would try again from every digit of a long hostile text.
  defp digits(<<digit, rest::binary>>, count) when digit in ?0..?9, do: digits(rest, count + 1)
  defp digits(rest, count), do: {count, rest}

  defimpl String.Chars do
    def to_string(decimal), do: decimal.text
  end
end
