defmodule DSPex.Signature.Exact do
  @moduledoc false
  # Decimal arithmetic, as far as constraints need it: a number is `{sign, coefficient, exponent}`,
  # that is sign * coefficient * 10^exponent.

  @type t :: {1 | -1, non_neg_integer(), integer()}

  # JSON's form of a number: no leading zeros, spaces or underscores.
  @number ~r/\A-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\z/

  # Longer than any float's text, short enough that reading it is quick.
  @max_number_text 400

  # Decimals with more digits between them than this are no multiples of one another, rather than
  # divided at any cost.
  @max_quotient_digits 1000

  @doc "Whether a text is a number in JSON's form, of a length that is read."
  @spec number_text?(term()) :: boolean()
  def number_text?(text),
    do: is_binary(text) and byte_size(text) <= @max_number_text and Regex.match?(@number, text)

  @doc "Reads an integer, a float by its shortest text, the text of a decimal, or a decimal."
  @spec new(term()) :: {:ok, t()} | :error
  def new(number) when is_integer(number), do: {:ok, {sign(number), abs(number), 0}}
  def new(number) when is_float(number), do: new(:erlang.float_to_binary(number, [:short]))

  def new(text) when is_binary(text) do
    case Regex.run(~r/\A([+-]?)([0-9]*)\.?([0-9]*)(?:[eE]([+-]?[0-9]+))?\z/, text) do
      [_, _sign, "", "" | _] ->
        :error

      [_, sign, whole, fraction | exponent] ->
        exponent = exponent |> List.first("0") |> String.to_integer()
        coefficient = String.to_integer(whole <> fraction)
        {:ok, {if(sign == "-", do: -1, else: 1), coefficient, exponent - byte_size(fraction)}}

      nil ->
        :error
    end
  end

  def new(%module{} = decimal) when module in [Decimal, DSPex.Decimal] do
    with {:ok, text} <- DSPex.Decimal.text(decimal), do: new(text)
  end

  def new(_other), do: :error

  @doc "All the digits of a float, where `new/1` has the shortest that stand for it."
  @spec of_float(float()) :: t()
  def of_float(float) do
    {numerator, denominator} = Float.ratio(float)
    twos = denominator |> Integer.digits(2) |> length() |> Kernel.-(1)
    {sign(numerator), abs(numerator) * Integer.pow(5, twos), -twos}
  end

  @doc "Whether `a` is less than, equal to or greater than `b`."
  @spec compare(t(), t()) :: :lt | :eq | :gt
  def compare({_, 0, _}, {_, 0, _}), do: :eq
  def compare({_, 0, _}, {sign, _, _}), do: if(sign > 0, do: :lt, else: :gt)
  def compare({sign, _, _}, {_, 0, _}), do: if(sign > 0, do: :gt, else: :lt)
  def compare({1, _, _}, {-1, _, _}), do: :gt
  def compare({-1, _, _}, {1, _, _}), do: :lt
  def compare({-1, a, ea}, {-1, b, eb}), do: compare({1, b, eb}, {1, a, ea})

  def compare({1, a, ea} = left, {1, b, eb} = right) do
    # By magnitude first: aligning 1e999999 with 1 would write all its zeros.
    case {magnitude(left), magnitude(right)} do
      {same, same} ->
        least = min(ea, eb)
        order(a * Integer.pow(10, ea - least), b * Integer.pow(10, eb - least))

      {left, right} ->
        order(left, right)
    end
  end

  @doc "Whether a number is a whole multiple of another, which is above 0."
  @spec multiple?(t(), t()) :: boolean()
  def multiple?({_, 0, _}, _step), do: true

  def multiple?({_, a, ea} = number, {_, b, eb} = step) do
    if (magnitude(number) - magnitude(step)) in -1..@max_quotient_digits//1 do
      least = min(ea, eb)
      {a, b} = {a * Integer.pow(10, ea - least), b * Integer.pow(10, eb - least)}
      rem(a, b) == 0 and div(a, b) < Integer.pow(10, @max_quotient_digits)
    else
      false
    end
  end

  @doc "Without zeros at the end: equal numbers are equal terms. Zero has no sign."
  @spec normal(t()) :: t()
  def normal({_, 0, _}), do: {1, 0, 0}

  def normal({sign, coefficient, exponent}) do
    digits = Integer.to_string(coefficient)
    kept = String.trim_trailing(digits, "0")
    {sign, String.to_integer(kept), exponent + byte_size(digits) - byte_size(kept)}
  end

  @doc """
  The text of a decimal, as Python's `str` writes it.

      iex> {:ok, number} = DSPex.Signature.Exact.new("-0.5e-3")
      iex> DSPex.Signature.Exact.to_text(number)
      "-0.0005"
  """
  @spec to_text(t()) :: String.t()
  def to_text({sign, coefficient, exponent}) do
    digits = Integer.to_string(coefficient)
    point = byte_size(digits) + exponent

    text =
      if exponent <= 0 and point > -6,
        do: with_point(digits, point),
        else: with_point(digits, 1) <> exponent_text(point - 1, "E", 1)

    if sign < 0, do: "-" <> text, else: text
  end

  @doc """
  The text of a float, as Python's `repr` writes it.

      iex> Enum.map([1.0e22, 1.5, 1.0e-5], &DSPex.Signature.Exact.float_text/1)
      ["1e+22", "1.5", "1e-05"]
  """
  @spec float_text(float()) :: String.t()
  def float_text(float) do
    {:ok, number} = new(float)
    {_sign, coefficient, exponent} = normal(number)
    digits = Integer.to_string(coefficient)
    point = byte_size(digits) + exponent

    text =
      cond do
        # Zero has no magnitude.
        coefficient == 0 -> "0.0"
        point in -3..16 and point >= byte_size(digits) -> with_point(digits, point) <> ".0"
        point in -3..16 -> with_point(digits, point)
        true -> with_point(digits, 1) <> exponent_text(point - 1, "e", 2)
      end

    if <<float::float>> |> :binary.first() >= 0x80, do: "-" <> text, else: text
  end

  defp with_point(digits, point) when point <= 0,
    do: "0." <> String.duplicate("0", -point) <> digits

  defp with_point(digits, point) when point >= byte_size(digits),
    do: String.pad_trailing(digits, point, "0")

  defp with_point(digits, point) do
    <<whole::binary-size(point), fraction::binary>> = digits
    whole <> "." <> fraction
  end

  defp exponent_text(0, "E", _width), do: ""

  defp exponent_text(exponent, letter, width) do
    sign = if exponent < 0, do: "-", else: "+"
    letter <> sign <> String.pad_leading(Integer.to_string(abs(exponent)), width, "0")
  end

  defp magnitude({_sign, coefficient, exponent}),
    do: byte_size(Integer.to_string(coefficient)) + exponent

  defp order(a, b) when a < b, do: :lt
  defp order(a, b) when a > b, do: :gt
  defp order(_, _), do: :eq

  defp sign(number), do: if(number < 0, do: -1, else: 1)
end
