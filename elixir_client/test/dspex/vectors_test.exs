defmodule DSPex.VectorsTest do
  # The vectors that every implementation of the protocol has to pass.
  use ExUnit.Case, async: true

  @moduletag :protocol

  alias DSPex.{Binary, Error, Signature, Tensor}
  alias DSPex.Protocol.{Codec, Message}
  alias DSPex.Signature.TypeConverter
  alias DSPex.Test.{JSON, Peer, Scripted}

  defp bytes(%{"hex" => hex}), do: Base.decode16!(hex, case: :lower)

  defp bytes(%{"parts" => parts}) do
    for [hex, count] <- parts,
        into: "",
        do: String.duplicate(Base.decode16!(hex, case: :lower), count)
  end

  # What JSON cannot say is a map with one key.
  defp value(%{"$int" => text}), do: String.to_integer(text)
  defp value(%{"$power" => [base, exponent]}), do: Integer.pow(base, exponent)
  defp value(%{"$float" => "nan"}), do: :nan
  defp value(%{"$float" => "inf"}), do: :infinity
  defp value(%{"$float" => "-inf"}), do: :neg_infinity

  defp value(%{"$float" => text}) do
    {float, ""} = Float.parse(text)
    float
  end

  defp value(%{"$text" => [text, count]}), do: String.duplicate(text, count)
  defp value(%{"$bytes" => text}), do: Binary.new(Base.decode64!(text))
  defp value(%{"$zeros" => count}), do: Binary.new(:binary.copy(<<0>>, count))
  defp value(%{"$repeat" => [item, count]}), do: List.duplicate(value(item), count)
  defp value(%{"$map" => pairs}), do: Map.new(pairs, fn [key, item] -> {key, value(item)} end)
  defp value(%{"$decimal" => text}), do: %DSPex.Decimal{text: value(text)}

  defp value(%{"$timestamp" => text}) do
    {:ok, time, 0} = DateTime.from_iso8601(text)
    {microsecond, _precision} = time.microsecond
    %{time | microsecond: {microsecond, 6}}
  end

  defp value(%{"$tensor" => [dtype, shape, data]}) do
    dtype = String.to_existing_atom(dtype)
    {:ok, tensor} = Tensor.new(dtype, List.to_tuple(value(shape)), Base.decode64!(data))
    tensor
  end

  defp value(%{"$nested" => [depth, inner]}),
    do: Enum.reduce(1..depth, value(inner), fn _, inner -> [inner] end)

  defp value(%{"$nested_map" => [depth, key, inner]}),
    do: Enum.reduce(1..depth, value(inner), fn _, inner -> %{key => inner} end)

  defp value(map) when is_map(map), do: Map.new(map, fn {key, item} -> {key, value(item)} end)
  defp value(list) when is_list(list), do: Enum.map(list, &value/1)
  defp value(other), do: other

  test "values.json: accepted bytes are read as their value, and written from it" do
    for %{"name" => name, "value" => json} = vector <- JSON.vectors("values.json")["accepted"] do
      bytes = bytes(vector)
      value = value(json)
      assert {name, Codec.decode(bytes)} === {name, {:ok, value}}

      unless vector["decode_only"] do
        assert {:ok, written} = Codec.encode(value)
        # The order of a map's keys is nobody's.
        assert {name, byte_size(written)} == {name, byte_size(bytes)}
        assert {name, Codec.decode(written)} === {name, {:ok, value}}
        unless map_with_keys?(value), do: assert({name, written} == {name, bytes})
      end
    end
  end

  defp map_with_keys?(map) when is_map(map) and not is_struct(map),
    do: map_size(map) > 1 or Enum.any?(Map.values(map), &map_with_keys?/1)

  defp map_with_keys?(list) when is_list(list), do: Enum.any?(list, &map_with_keys?/1)
  defp map_with_keys?(_other), do: false

  test "values.json: refused bytes are refused" do
    for %{"name" => name, "error" => error} = vector <- JSON.vectors("values.json")["refused"] do
      assert {^name, {:error, %Error{code: code}}} = {name, Codec.decode(bytes(vector))}
      assert {name, Atom.to_string(code)} == {name, error}
    end
  end

  test "messages.json: messages are read" do
    for %{"name" => name} = vector <- JSON.vectors("messages.json")["messages"] do
      assert {name, Message.parse(bytes(vector))} ==
               {name, {:ok, message(value(vector["message"]))}}

      assert {name, kind(Message.peek(bytes(vector)))} ==
               {name, peeked(vector["kind"], vector["message"])}
    end
  end

  defp message([0, id, method, params]), do: {:request, id, method, params}
  defp message([1, id, nil, result]), do: {:response, id, {:ok, result}}

  defp message([1, id, error, nil]) do
    {:ok, error} = Error.from_wire(error)
    {:response, id, {:error, error}}
  end

  defp message([2, method, params]), do: {:notification, method, params}

  defp kind({kind, _id, _outcome}), do: kind
  defp kind(other), do: other

  defp peeked(kind, _message), do: String.to_existing_atom(kind)

  @tag :capture_log
  test "messages.json: malformed ones are answered or ignored, and the connection goes on" do
    {listener, command} = Peer.listen()
    Scripted.start(name: __MODULE__, command: command)
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()

    # Those with frames before them, or with a limit, are for a bridge; what begins as a response goes
    # unread to its caller, if it has one.
    for %{"name" => name, "answer" => answer} = vector <-
          JSON.vectors("messages.json")["malformed"],
        not is_map_key(vector, "before") and not is_map_key(vector, "max_frame_bytes"),
        not match?({:response, _id, _outcome}, Message.peek(bytes(vector))),
        reduce: peer do
      peer ->
        Peer.frame(peer, bytes(vector))
        # Its answer comes next where the one before was ignored.
        Peer.message(peer, [0, 77, "next", %{}])

        peer =
          if answer == "ignored" do
            peer
          else
            [1, id, %{"code" => code}, nil] = answer
            {message, peer} = Peer.next(peer)
            assert {^name, {:response, answered_id, {:error, error}}} = {name, message}
            assert {name, answered_id, Atom.to_string(error.code)} == {name, value(id), code}
            peer
          end

        assert {{:response, 77, {:error, %{code: :method_not_found}}}, peer} = Peer.next(peer)
        peer
    end
  end

  test "types.json: types are read, and written in their canonical form" do
    for %{"text" => text, "canonical" => canonical} <- JSON.vectors("types.json")["valid"] do
      assert {^text, {:ok, type}} = {text, TypeConverter.from_wire(text)}
      assert {text, TypeConverter.to_wire(type)} == {text, canonical}
      assert {text, TypeConverter.check(type)} == {text, :ok}
      assert TypeConverter.from_wire(canonical) == {:ok, type}
    end
  end

  test "types.json: what is no type is refused where it goes wrong" do
    for %{"text" => text, "position" => position} <- JSON.vectors("types.json")["invalid"] do
      assert {^text, {:error, %Error{code: :signature_error} = error}} =
               {text, TypeConverter.from_wire(text)}

      assert {text, error.message, error.data["position"]} == {text, error.message, position}
    end
  end

  test "signatures.json: strings are read" do
    for %{"text" => text, "map" => map} <- JSON.vectors("signatures.json")["valid_strings"] do
      assert {^text, {:ok, signature}} = {text, Signature.parse(text)}
      assert {text, Signature.to_wire(signature)} == {text, map}
    end
  end

  test "signatures.json: what is no signature is refused where it goes wrong" do
    for %{"text" => text, "position" => position} <-
          JSON.vectors("signatures.json")["invalid_strings"] do
      assert {^text, {:error, %Error{code: :signature_error} = error}} =
               {text, Signature.parse(text)}

      assert {text, error.message, error.data["position"]} == {text, error.message, position}
    end
  end

  test "signatures.json: maps are read and written back" do
    for %{"map" => map} = vector <- JSON.vectors("signatures.json")["valid_maps"] do
      assert {^map, {:ok, signature}} = {map, Signature.fetch(map)}
      assert {map, Signature.to_wire(signature)} == {map, Map.get(vector, "written", map)}
    end
  end
end
