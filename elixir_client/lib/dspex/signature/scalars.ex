defmodule DSPex.Signature.Scalars do
  @moduledoc false
  # Conversion of single values. Each function gives `{:ok, value}` of its type or `{:error, why}`,
  # `why` being empty where there is no more to say. Nothing is lost by a conversion, and what is of
  # the type already comes back as it is.

  alias DSPex.{Binary, Tensor}
  alias DSPex.Signature.Exact

  @type result :: {:ok, term()} | {:error, String.t()}

  @integer ~r/\A(-?(?:0|[1-9][0-9]*))(?:\.0+)?\z/
  @date "([0-9]{4}-[0-9]{2}-[0-9]{2})"
  @time "([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\\.([0-9]{1,9}))?)?"
  @date_text Regex.compile!("\\A#{@date}\\z")
  @time_text Regex.compile!("\\A#{@time}\\z")
  @datetime_text Regex.compile!("\\A#{@date}[T ]#{@time}(Z|[+-][0-9]{2}:[0-9]{2})?\\z")

  @not_finite [:nan, :infinity, :neg_infinity]

  # Nested lists standing for a tensor: more axes than anybody uses.
  @max_axes 32

  @doc "Whether a term is a float, or one that the BEAM has no float for."
  defguard is_any_float(value) when is_float(value) or value in @not_finite

  @spec string(term()) :: result()
  def string(text) when is_binary(text) do
    if String.valid?(text), do: {:ok, text}, else: {:error, "it is not valid UTF-8"}
  end

  # An atom and a date travel as text.
  def string(value) when is_atom(value) and value not in [nil, true, false | @not_finite],
    do: {:ok, Atom.to_string(value)}

  def string(%module{} = value) when module in [Date, Time, NaiveDateTime],
    do: {:ok, module.to_iso8601(value)}

  def string(_other), do: {:error, ""}

  @spec integer(term()) :: result()
  def integer(value) when is_boolean(value), do: {:error, "a boolean is no number"}
  def integer(value) when is_integer(value), do: {:ok, value}

  def integer(value) when is_float(value) do
    # A float beyond 2^53 has no fraction.
    if trunc(value) == value, do: {:ok, trunc(value)}, else: {:error, "it has a fraction"}
  end

  def integer(value) when value in @not_finite, do: {:error, "it is not finite"}

  def integer(value) do
    with {:ok, text} <- short_text(value),
         [_, digits] <- Regex.run(@integer, text) do
      {:ok, String.to_integer(digits)}
    else
      _other -> {:error, ""}
    end
  end

  @spec float(term()) :: result()
  def float(value) when is_any_float(value), do: {:ok, value}
  def float(value) when is_boolean(value), do: {:error, "a boolean is no number"}

  def float(value) when is_integer(value) do
    float = value * 1.0
    if trunc(float) == value, do: {:ok, float}, else: {:error, "a float cannot hold it exactly"}
  rescue
    ArithmeticError -> {:error, "a float cannot hold it"}
  end

  def float(value) do
    with {:ok, text} <- short_text(value),
         true <- Exact.number_text?(text),
         do: parse_float(text),
         else: (_other -> {:error, ""})
  end

  # `Float.parse/1` wants no fraction, but has limits of its own for what is beyond a float.
  defp parse_float(text) do
    {:ok, {sign, coefficient, exponent}} = Exact.new(text)
    digits = Integer.to_string(coefficient)
    power = byte_size(digits) - 1 + exponent

    cond do
      # -0.0 has its sign.
      coefficient == 0 or power < -400 -> {:ok, sign * 0.0}
      power > 400 -> {:error, "a float cannot hold it"}
      true -> {:ok, sign * String.to_float(scientific(digits, power))}
    end
  rescue
    ArgumentError -> {:error, "a float cannot hold it"}
  end

  defp scientific(<<first, rest::binary>>, power), do: <<first, ?., rest::binary, "0e#{power}">>

  @spec boolean(term()) :: result()
  def boolean(value) when is_boolean(value), do: {:ok, value}

  def boolean(value) do
    with {:ok, text} <- short_text(value) do
      case String.downcase(text) do
        "true" -> {:ok, true}
        "false" -> {:ok, false}
        _other -> {:error, ""}
      end
    end
  end

  @doc "Bytes; text is bytes here, because every binary is."
  @spec binary(term()) :: result()
  def binary(%Binary{data: data}) when is_binary(data), do: {:ok, data}
  def binary(data) when is_binary(data), do: {:ok, data}
  def binary(_other), do: {:error, ""}

  @spec decimal(term()) :: result()
  def decimal(value) when is_boolean(value), do: {:error, "a boolean is no number"}
  def decimal(value) when value in @not_finite, do: {:error, "it is not finite"}
  def decimal(value) when is_integer(value), do: decimal_text(Integer.to_string(value))
  def decimal(value) when is_float(value), do: decimal_text(Exact.float_text(value))

  def decimal(%module{} = value) when module in [Decimal, DSPex.Decimal] do
    case Exact.new(value) do
      {:ok, _number} -> {:ok, value}
      :error -> {:error, "it is not finite"}
    end
  end

  def decimal(value) do
    with {:ok, text} <- short_text(value),
         true <- Exact.number_text?(text),
         do: decimal_text(text),
         else: (_other -> {:error, ""})
  end

  defp decimal_text(text) do
    {:ok, number} = Exact.new(text)
    {:ok, DSPex.Decimal.best(Exact.to_text(number))}
  end

  @spec date(term()) :: result()
  def date(%Date{} = date), do: {:ok, date}

  def date(value) do
    with {:ok, text} <- short_text(value),
         [_, text] <- Regex.run(@date_text, text),
         {:ok, date} <- a_date(text) do
      {:ok, date}
    else
      _other -> {:error, ~s(a date is text such as "2024-05-01")}
    end
  end

  # Year 0 is the BEAM's alone.
  defp a_date("0000" <> _rest), do: :error
  defp a_date(text), do: Date.from_iso8601(text)

  @spec time(term()) :: result()
  def time(%Time{} = time), do: {:ok, time}

  def time(value) do
    with {:ok, text} <- short_text(value),
         [_ | parts] <- Regex.run(@time_text, text),
         {:ok, time} <- a_time(parts) do
      {:ok, time}
    else
      _other -> {:error, ~s(a time is text such as "10:30:00")}
    end
  end

  defp a_time([hour, minute | rest]) do
    second = rest |> Enum.at(0, "") |> or_zero() |> String.to_integer()

    Time.new(
      String.to_integer(hour),
      String.to_integer(minute),
      second,
      fraction(Enum.at(rest, 1, ""))
    )
  end

  defp or_zero(""), do: "0"
  defp or_zero(text), do: text

  # Beyond the microsecond it is cut.
  defp fraction(""), do: {0, 0}

  defp fraction(digits) do
    digits = String.slice(digits, 0, 6)
    {digits |> String.pad_trailing(6, "0") |> String.to_integer(), byte_size(digits)}
  end

  @spec datetime(term()) :: result()
  def datetime(%module{} = value) when module in [DateTime, NaiveDateTime], do: {:ok, value}

  def datetime(value) do
    with {:ok, text} <- short_text(value),
         [_, date | parts] <- Regex.run(@datetime_text, text),
         {:ok, date} <- a_date(date),
         {:ok, time} <- a_time(parts),
         {:ok, naive} <- NaiveDateTime.new(date, time),
         {:ok, datetime} <- at_offset(naive, Enum.at(parts, 4, "")) do
      {:ok, datetime}
    else
      _other -> {:error, ~s(a datetime is text such as "2024-05-01T10:30:00Z")}
    end
  end

  defp at_offset(naive, ""), do: {:ok, naive}
  defp at_offset(naive, "Z"), do: DateTime.from_naive(naive, "Etc/UTC")

  defp at_offset(naive, <<sign, hours::binary-size(2), ?:, minutes::binary-size(2)>>) do
    minutes = String.to_integer(hours) * 60 + String.to_integer(minutes)
    seconds = if sign == ?-, do: minutes * 60, else: -minutes * 60

    # As Python has it: an offset is less than a day.
    if minutes < 24 * 60,
      do: naive |> NaiveDateTime.add(seconds) |> DateTime.from_naive("Etc/UTC"),
      else: :error
  end

  @spec null(term()) :: result()
  def null(nil), do: {:ok, nil}
  def null(_other), do: {:error, ""}

  @doc "A tensor as it is; nested lists of numbers where they are rectangular."
  @spec tensor(term()) :: result()
  def tensor(%Tensor{} = tensor), do: {:ok, tensor}

  def tensor(list) when is_list(list) do
    with {:ok, _shape} <- shape(list, @max_axes), do: {:ok, list}
  end

  def tensor(_other), do: {:error, ""}

  defp shape(number, _axes) when is_number(number) or is_boolean(number) or number in @not_finite,
    do: {:ok, []}

  defp shape(list, axes) when is_list(list) and axes > 0 do
    items = Enum.map(list, &shape(&1, axes - 1))

    case Enum.uniq(items) do
      [] -> {:ok, [0]}
      [{:ok, shape}] -> {:ok, [length(list) | shape]}
      [_ | _] -> if(error = List.keyfind(items, :error, 0), do: error, else: differ())
    end
  end

  defp shape(_other, _axes), do: {:error, "a tensor is nested lists of numbers"}

  defp differ, do: {:error, "its rows differ in length"}

  # Longer than the text of any number or date, short enough that reading it is quick.
  defp short_text(value) do
    case string(value) do
      {:ok, text} when byte_size(text) <= 400 -> {:ok, text}
      _other -> {:error, ""}
    end
  end
end
