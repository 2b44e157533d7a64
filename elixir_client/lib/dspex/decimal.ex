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
  A `Decimal` where that library is loaded and can hold the number, else a `DSPex.Decimal`; `:error`
  where the text is no number.
  """
  @spec best(String.t()) :: t() | struct() | :error
  def best(text) when is_binary(text) do
    cond do
      not number?(text) -> :error
      library?() -> of_library(text)
      true -> of_text(text)
    end
  end

  # It knows no signaling NaN.
  defp of_library(text) do
    library = @library

    case library.parse(text) do
      {number, ""} -> number
      _part -> of_text(text)
    end
  end

  # Made of one that is there, so that all share their keys.
  defp of_text(text),
    do: %{unquote(Macro.escape(%{__struct__: __MODULE__, text: "0"})) | text: text}

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

  # By hand and in one pass: a regular expression would try again from every digit of a long hostile
  # text, and what is made here is made for each of a frame's decimals. So a digit is not even taken
  # apart.
  defp number?(text) when byte_size(text) == 1, do: text >= "0" and text <= "9"
  defp number?(<<sign, rest::bits>>) when sign in ~c"+-", do: unsigned?(rest)
  defp number?(<<text::bits>>), do: unsigned?(text)

  defp unsigned?("Infinity"), do: true
  defp unsigned?(<<"NaN", payload::bits>>), do: digits?(payload)
  defp unsigned?(<<"sNaN", payload::bits>>), do: digits?(payload)
  defp unsigned?(<<digit, rest::bits>>) when digit in ?0..?9, do: whole?(rest)
  defp unsigned?(<<?., digit, rest::bits>>) when digit in ?0..?9, do: fraction?(rest)
  defp unsigned?(<<_other::bits>>), do: false

  # After a digit.
  defp whole?(<<digit, rest::bits>>) when digit in ?0..?9, do: whole?(rest)
  defp whole?(<<?., rest::bits>>), do: fraction?(rest)
  defp whole?(<<rest::bits>>), do: exponent?(rest)

  defp fraction?(<<digit, rest::bits>>) when digit in ?0..?9, do: fraction?(rest)
  defp fraction?(<<rest::bits>>), do: exponent?(rest)

  defp exponent?(<<>>), do: true

  defp exponent?(<<e, sign, digit, rest::bits>>)
       when e in ~c"eE" and sign in ~c"+-" and digit in ?0..?9,
       do: digits?(rest)

  defp exponent?(<<e, digit, rest::bits>>) when e in ~c"eE" and digit in ?0..?9,
    do: digits?(rest)

  defp exponent?(<<_other::bits>>), do: false

  defp digits?(<<digit, rest::bits>>) when digit in ?0..?9, do: digits?(rest)
  defp digits?(<<rest::bits>>), do: rest == <<>>

  defimpl String.Chars do
    def to_string(decimal), do: decimal.text
  end
end
