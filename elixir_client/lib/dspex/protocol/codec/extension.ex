defmodule DSPex.Protocol.Codec.Extension do
  @moduledoc false
  # What stands in the bytes of an ext type. Nothing is made on the way to a value: a frame of such
  # values alone is what grows most.

  alias DSPex.{Binary, Decimal, Error, Tensor}
  alias DSPex.Protocol.Codec.{Decoder, Limits}

  @timestamp -1
  @integer 1
  @tensor 2
  @decimal 3

  @int64_min -0x8000_0000_0000_0000
  @uint64_max 0xFFFF_FFFF_FFFF_FFFF

  @max_integer_bytes Limits.max_integer_bytes()
  @max_decimal_bytes Limits.max_decimal_bytes()
  @max_nanosecond 999_999_999
  @first_second Limits.seconds().first
  @last_second Limits.seconds().last

  @doc "The value, or why there is none: no value is a tuple."
  @spec read(integer(), binary(), non_neg_integer()) :: term() | {:refused, String.t()}
  def read(@timestamp, data, _copy), do: timestamp(data)

  def read(@integer, data, _copy) when byte_size(data) <= @max_integer_bytes do
    size = byte_size(data)
    <<number::signed-size(size)-unit(8)>> = data

    cond do
      number in @int64_min..@uint64_max ->
        {:refused, "ext 1 is for integers beyond 64 bits; #{number} is not"}

      padded?(data) ->
        {:refused, "an ext 1 integer is not in its shortest form"}

      true ->
        number
    end
  end

  def read(@integer, data, _copy),
    do: {:refused, "an integer of #{byte_size(data)} bytes; the limit is #{@max_integer_bytes}"}

  def read(@tensor, data, copy) do
    with {:ok, [dtype, shape, %Binary{data: bytes}]} when is_list(shape) <- Decoder.decode(data),
         bytes = Decoder.kept(bytes, copy),
         {:ok, tensor} <- Tensor.new(dtype(dtype), List.to_tuple(shape), bytes) do
      tensor
    else
      {:ok, _other} -> {:refused, "a tensor is an array of dtype, shape and bytes"}
      {:error, %Error{message: message}} -> {:refused, "inside a tensor: #{message}"}
      {:error, message} -> {:refused, message}
    end
  end

  def read(@decimal, data, _copy) when byte_size(data) > @max_decimal_bytes,
    do: {:refused, Limits.long_decimal(data)}

  def read(@decimal, data, copy) do
    with :error <- data |> Decoder.kept(copy) |> Decimal.best(),
         do: {:refused, "a decimal is digits with an optional sign, point and exponent"}
  end

  def read(type, _data, _copy), do: {:refused, "ext type #{type} is not in use"}

  defp padded?(<<0x00, 0::1, _::bits>>), do: true
  defp padded?(<<0xFF, 1::1, _::bits>>), do: true
  defp padded?(_data), do: false

  for dtype <- ~w(f16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 bool)a do
    defp dtype(unquote(Atom.to_string(dtype))), do: unquote(dtype)
  end

  defp dtype(other), do: other

  # In a function of its own: the bytes of other types are not to be matched on the way.
  defp timestamp(<<second::32>>), do: timestamp(second, 0)
  defp timestamp(<<nanosecond::30, second::34>>), do: timestamp(second, nanosecond)
  defp timestamp(<<nanosecond::32, second::signed-64>>), do: timestamp(second, nanosecond)

  defp timestamp(data),
    do: {:refused, "a timestamp has 4, 8 or 12 bytes, not #{byte_size(data)}"}

  @doc "The time so many seconds after the year 1970 began, in UTC."
  @spec timestamp(integer(), non_neg_integer()) :: DateTime.t() | {:refused, String.t()}
  def timestamp(_second, nanosecond) when nanosecond > @max_nanosecond,
    do: {:refused, "a timestamp has at most #{@max_nanosecond} nanoseconds, not #{nanosecond}"}

  def timestamp(second, _nanosecond) when second < @first_second or second > @last_second,
    do: {:refused, Limits.years()}

  # The calendar by hand, since DateTime.from_unix/2 makes six times the result's size on its way to
  # it. A cycle is the 400 years after which leap years repeat; years begin in March, so that the
  # leap day is their last and the lengths of the months before it, 153 days in five, a straight line.
  @days_of_cycle 146_097
  @days_of_century 36_524
  @days_of_four_years 1_461
  # From March 1 of the year 0 to January 1, 1970.
  @days_to_1970 719_468

  # A struct that is made of another shares its keys, which are most of it otherwise.
  @epoch ~U[1970-01-01 00:00:00.000000Z]

  def timestamp(second, nanosecond) do
    day = Integer.floor_div(second, 86_400) + @days_to_1970
    second_of_day = Integer.mod(second, 86_400)

    # No day is before the year 0, so dividing never rounds up.
    cycle = div(day, @days_of_cycle)
    day = rem(day, @days_of_cycle)

    # Leap days taken out, every year has 365.
    leap_days =
      div(day, @days_of_four_years - 1) - div(day, @days_of_century) +
        div(day, @days_of_cycle - 1)

    year = div(day - leap_days, 365)
    day = day - (365 * year + div(year, 4) - div(year, 100))
    march_month = div(5 * day + 2, 153)
    month = if march_month < 10, do: march_month + 3, else: march_month - 9

    %{
      @epoch
      | year: 400 * cycle + year + if(month <= 2, do: 1, else: 0),
        month: month,
        day: day - div(153 * march_month + 2, 5) + 1,
        hour: div(second_of_day, 3600),
        minute: second_of_day |> rem(3600) |> div(60),
        second: rem(second_of_day, 60),
        microsecond: microsecond(nanosecond)
    }
  end

  # The first of these is a literal, and no memory.
  defp microsecond(nanosecond) when nanosecond < 1000, do: {0, 6}
  defp microsecond(nanosecond), do: {div(nanosecond, 1000), 6}
end
