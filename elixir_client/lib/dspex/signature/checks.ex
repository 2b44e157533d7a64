defmodule DSPex.Signature.Checks do
  @moduledoc false
  # What each constraint means: the first one that a value of the right type does not meet.

  alias DSPex.{Binary, Tensor}
  alias DSPex.Signature.{Constraints, Exact, Pattern, Scalars, Types}

  # A float is a multiple where it is within rounding of one, relative to its own size.
  @multiple_tolerance 1.0e-9

  @label "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
  @hostname Regex.compile!("\\A#{@label}(?:\\.#{@label})*\\z")
  # Python's \s is Unicode's.
  @email Regex.compile!("\\A[^@\\s]+@#{@label}(?:\\.#{@label})+\\z", "u")
  @uri Regex.compile!("\\A[A-Za-z][A-Za-z0-9+.-]*:[^\\s]+\\z", "u")
  @uuid ~r/\A[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\z/
  @ipv4_part "(?:0|[1-9][0-9]{0,2})"
  @ipv4 Regex.compile!("\\A#{@ipv4_part}(?:\\.#{@ipv4_part}){3}\\z")

  @doc "The first constraint in their order that a value does not meet; nil where it meets all."
  @spec failed(Types.t(), map(), term()) :: atom() | nil
  def failed(type, constraints, value) do
    own = Constraints.own(type)
    first(own, type, value) || first(constraints, type, value)
  end

  defp first(none, _type, _value) when none == %{}, do: nil

  defp first(constraints, type, value) do
    Enum.find(Constraints.names(), fn name ->
      case constraints do
        %{^name => wanted} -> not met?(name, wanted, value, type)
        %{} -> false
      end
    end)
  end

  defp met?(:min, least, value, type), do: compare(value, least, type) in [:gt, :eq]
  defp met?(:max, most, value, type), do: compare(value, most, type) in [:lt, :eq]
  defp met?(:multiple_of, step, value, type), do: multiple?(value, step, exact?(type))
  defp met?(:min_length, least, value, _type), do: size(value) >= least
  defp met?(:max_length, most, value, _type), do: size(value) <= most
  defp met?(:pattern, pattern, text, _type), do: Pattern.found?(pattern, text)
  defp met?(:format, format, text, _type), do: format?(format, text)

  defp met?(:one_of, values, value, type),
    do: Enum.any?(values, &(compare(value, &1, type) == :eq))

  defp met?(:dimensions, size, %Tensor{shape: {length}}, _type), do: length == size
  defp met?(:dimensions, size, value, _type), do: length(value) == size
  defp met?(:min_items, least, value, _type), do: Enum.count(value) >= least
  defp met?(:max_items, most, value, _type), do: Enum.count(value) <= most
  defp met?(:unique, false, _value, _type), do: true

  defp met?(:unique, true, values, _type) do
    identities = Enum.map(values, &identity/1)
    length(Enum.uniq(identities)) == length(identities)
  end

  # Characters of a text, which are code points, and bytes of bytes.
  defp size(%Binary{data: data}), do: byte_size(data)
  defp size({:bytes, data}), do: byte_size(data)
  defp size(text), do: count(text, 0)

  defp count(<<_::utf8, rest::binary>>, count), do: count(rest, count + 1)
  defp count(<<>>, count), do: count

  # --- numbers ---

  # A decimal among the types makes the limits decimals.
  defp exact?(type), do: :decimal in Types.members(type)

  defp compare(text, text, _type) when is_binary(text), do: :eq
  defp compare(text, _other, _type) when is_binary(text), do: :different
  defp compare(:nan, _limit, _type), do: :different
  defp compare(:infinity, _limit, _type), do: :gt
  defp compare(:neg_infinity, _limit, _type), do: :lt

  defp compare(value, limit, type) do
    if is_number(value) and is_number(limit) and not exact?(type) do
      order(value, limit)
    else
      {:ok, limit} = Exact.new(limit)
      Exact.compare(exact(value), limit)
    end
  end

  defp exact(float) when is_float(float), do: Exact.of_float(float)

  defp exact(value) do
    {:ok, number} = Exact.new(value)
    number
  end

  # The BEAM compares integers and floats exactly.
  defp order(a, b) when a < b, do: :lt
  defp order(a, b) when a > b, do: :gt
  defp order(_, _), do: :eq

  defp multiple?(value, _step, _exact?) when value in [:nan, :infinity, :neg_infinity], do: false

  defp multiple?(value, step, exact?) when is_float(value) do
    step = if exact?, do: to_float(step), else: step * 1.0
    nearest = round(value / step) * step
    abs(value - nearest) <= abs(value) * @multiple_tolerance
  rescue
    # The quotient is beyond a float, and so of no fraction that could be told.
    ArithmeticError -> true
  end

  defp multiple?(value, step, _exact?) do
    {:ok, step} = Exact.new(step)
    Exact.multiple?(exact(value), step)
  end

  defp to_float(number) when is_number(number), do: number * 1.0

  defp to_float(text) do
    {:ok, float} = Scalars.float(text)
    float
  end

  # --- the same ---

  @doc """
  What two values have in common when they are the same to Python: 1 and 1.0 are, NaN and NaN are
  not. A boolean is a number only as the member of a set or the key of a dict, with `:in_set`.
  """
  @spec identity(term(), :in_list | :in_set) :: term()
  def identity(value, where \\ :in_list)
  def identity(true, :in_set), do: identity(1)
  def identity(false, :in_set), do: identity(0)
  def identity(:nan, _where), do: make_ref()
  def identity(number, _where) when is_integer(number), do: exact_identity(number)
  def identity(number, _where) when is_float(number), do: {:number, Exact.normal(exact(number))}

  def identity(%module{} = decimal, _where) when module in [Decimal, DSPex.Decimal],
    do: exact_identity(decimal)

  def identity(%DateTime{} = time, _where), do: {:instant, DateTime.to_unix(time, :microsecond)}
  def identity(%MapSet{} = set, where), do: {:set, MapSet.new(set, &identity(&1, where))}
  def identity(%_module{} = struct, _where), do: struct
  def identity(list, where) when is_list(list), do: Enum.map(list, &identity(&1, where))

  def identity(tuple, where) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> Enum.map(&identity(&1, where))

  def identity(map, where) when is_map(map),
    do: {:map, Map.new(map, fn {key, value} -> {to_string(key), identity(value, where)} end)}

  def identity(atom, _where) when is_atom(atom) and atom not in [nil, true, false],
    do: Atom.to_string(atom)

  def identity(value, _where), do: value

  defp exact_identity(number) do
    case Exact.new(number) do
      {:ok, number} -> {:number, Exact.normal(number)}
      :error -> number
    end
  end

  # --- formats ---

  defp format?("date", text), do: match?({:ok, _}, Scalars.date(text))
  defp format?("time", text), do: match?({:ok, _}, Scalars.time(text))
  defp format?("date-time", text), do: match?({:ok, _}, Scalars.datetime(text))
  defp format?("email", text), do: Regex.match?(@email, text)
  defp format?("hostname", text), do: Regex.match?(@hostname, text)
  defp format?("uri", text), do: Regex.match?(@uri, text)
  defp format?("uuid", text), do: Regex.match?(@uuid, text)
  defp format?("ipv4", text), do: ipv4?(text)
  defp format?("ipv6", text), do: not String.contains?(text, "%") and ipv6?(text)

  # inet takes shorter and octal forms too.
  defp ipv4?(text) do
    Regex.match?(@ipv4, text) and
      text |> String.split(".") |> Enum.all?(&(String.to_integer(&1) <= 255))
  end

  defp ipv6?(text) do
    case :inet.parse_ipv6strict_address(String.to_charlist(text)) do
      {:ok, _address} -> dotted_part(text) in [nil, true]
      {:error, _reason} -> false
    end
  end

  # The last part of an address may be an IPv4 one, of four numbers.
  defp dotted_part(text) do
    last = text |> String.split(":") |> List.last()
    if String.contains?(last, "."), do: ipv4?(last)
  end
end
