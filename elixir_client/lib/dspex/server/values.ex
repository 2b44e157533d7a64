defmodule DSPex.Server.Values do
  @moduledoc false
  # Values as a server writes them: what JSON does not have stands in a map with one key that begins
  # with `$`, and a map of the user's own with such a key inside `$map`.

  alias DSPex.{Binary, Decimal, Error, Tensor}
  alias DSPex.Protocol.Codec

  @dtypes Map.new(~w(f16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 bool)a, &{Atom.to_string(&1), &1})
  @floats %{"nan" => :nan, "inf" => :infinity, "-inf" => :neg_infinity}

  @doc """
  A term as JSON. What has no form on the wire has none here either, and is refused with the same
  error: the codec looks at it first.

      iex> DSPex.Server.Values.to_json(%{photo: DSPex.Binary.new(<<0, 255>>), score: :nan})
      {:ok, %{"photo" => %{"$bytes" => "AP8="}, "score" => %{"$float" => "nan"}}}
  """
  @spec to_json(term()) :: {:ok, term()} | {:error, Error.t()}
  def to_json(term) do
    with {:ok, bytes} <- Codec.encode(term),
         {:ok, term} <- Codec.decode(bytes),
         do: {:ok, tag(term)}
  end

  defp tag(list) when is_list(list), do: Enum.map(list, &tag/1)
  defp tag(%Binary{data: data}), do: %{"$bytes" => Base.encode64(data)}
  defp tag(%DateTime{} = time), do: %{"$datetime" => DateTime.to_iso8601(time)}

  defp tag(%Tensor{} = tensor) do
    shape = Tuple.to_list(tensor.shape)
    %{"$tensor" => [Atom.to_string(tensor.dtype), shape, Base.encode64(tensor.data)]}
  end

  defp tag(%{__struct__: _decimal} = decimal) do
    {:ok, text} = Decimal.text(decimal)
    %{"$decimal" => text}
  end

  defp tag(map) when is_map(map) do
    plain = Map.new(map, fn {key, value} -> {key, tag(value)} end)
    if Enum.any?(plain, &match?({"$" <> _, _}, &1)), do: %{"$map" => plain}, else: plain
  end

  for {text, atom} <- @floats do
    defp tag(unquote(atom)), do: %{"$float" => unquote(text)}
  end

  defp tag(other), do: other

  @doc """
  A term as JSON that the server takes as it is, without the forms: definitions and parameters.

      iex> DSPex.Server.Values.to_plain(%{temperature: 0.5, stop: ["."]})
      {:ok, %{"temperature" => 0.5, "stop" => ["."]}}
  """
  @spec to_plain(term()) :: {:ok, term()} | {:error, Error.t()}
  def to_plain(term) do
    with {:ok, bytes} <- Codec.encode(term),
         {:ok, plain} <- Codec.decode(bytes) do
      if plain?(plain),
        do: {:ok, plain},
        else: {:error, Error.new(:encode_error, "only values that JSON has may stand here")}
    end
  end

  defp plain?(list) when is_list(list), do: Enum.all?(list, &plain?/1)

  defp plain?(map) when is_map(map) and not is_struct(map),
    do: Enum.all?(Map.values(map), &plain?/1)

  defp plain?(scalar) when scalar in [nil, true, false], do: true
  defp plain?(scalar), do: is_binary(scalar) or is_number(scalar)

  @doc """
  The term that JSON stands for.

      iex> DSPex.Server.Values.from_json(%{"photo" => %{"$bytes" => "AP8="}})
      {:ok, %{"photo" => %DSPex.Binary{data: <<0, 255>>}}}
  """
  @spec from_json(term()) :: {:ok, term()} | {:error, Error.t()}
  def from_json(json) do
    {:ok, untag(json)}
  catch
    {__MODULE__, tag} ->
      {:error, Error.new(:parse_error, "the server sent a #{tag} that is none")}
  end

  defp untag(list) when is_list(list), do: Enum.map(list, &untag/1)

  defp untag(map) when map_size(map) == 1 do
    case :maps.to_list(map) do
      [{"$map", inner}] when is_map(inner) -> untag_all(inner)
      [{"$" <> _ = tag, inner}] -> special(tag, inner)
      _plain -> untag_all(map)
    end
  end

  defp untag(map) when is_map(map), do: untag_all(map)
  defp untag(other), do: other

  defp untag_all(map), do: Map.new(map, fn {key, value} -> {key, untag(value)} end)

  defp special("$bytes", text) when is_binary(text) do
    case Base.decode64(text) do
      {:ok, data} -> Binary.new(data)
      :error -> wrong("$bytes")
    end
  end

  defp special("$decimal", text) when is_binary(text) do
    with :error <- Decimal.best(text), do: wrong("$decimal")
  end

  defp special("$datetime", text) when is_binary(text) do
    case DateTime.from_iso8601(text) do
      {:ok, time, _offset} -> time
      # Of no time zone: text, as `NaiveDateTime` is on the wire.
      {:error, :missing_offset} -> text
      {:error, _reason} -> wrong("$datetime")
    end
  end

  defp special("$float", text) when is_map_key(@floats, text), do: @floats[text]

  defp special("$tensor", [dtype, shape, text])
       when is_map_key(@dtypes, dtype) and is_list(shape) and is_binary(text) do
    with {:ok, data} <- Base.decode64(text),
         {:ok, tensor} <- Tensor.new(@dtypes[dtype], List.to_tuple(shape), data) do
      tensor
    else
      _wrong -> wrong("$tensor")
    end
  end

  # A map of the user's own has its `$` inside `$map`.
  defp special(tag, _inner), do: wrong(inspect(tag, printable_limit: 20))

  defp wrong(tag), do: throw({__MODULE__, tag})
end
