defmodule DSPex.PublicVectorsTest do
  # The public MessagePack vectors, `msgpack-test-suite` of the npm registry, kept outside of the
  # repository: `integration/public_vectors.py` has their version and checksum, and fetches them.
  use ExUnit.Case, async: true

  @moduletag :protocol

  alias DSPex.Binary
  alias DSPex.Protocol.Codec
  alias DSPex.Test.{JSON, Peer}

  @root Path.expand("../../..", __DIR__)

  # What the protocol reads otherwise than MessagePack alone would: of the ext types it has 1 to 3
  # for itself (and one vector's bytes happen to be the text of a decimal), and years begin with 1.
  @otherwise %{
    {"ext", [3, "30-31-32-33"]} => {:ok, %DSPex.Decimal{text: "0123"}},
    {"timestamp", [-62_167_219_200, 0]} => :refused
  }

  setup_all do
    {output, status} =
      System.cmd(Peer.python(), ["-m", "integration.public_vectors"],
        cd: @root,
        stderr_to_stdout: true
      )

    assert {status, output} == {0, output}

    vectors =
      for {_group, vectors} <- JSON.read(String.trim(output)), vector <- vectors do
        forms = for form <- vector["msgpack"], do: bytes(form)
        {kind, content} = content(vector)
        {kind, content, forms}
      end

    %{vectors: vectors}
  end

  # A large integer has a `number`, too, which not every JSON reader gets right.
  defp content(%{"bignum" => text}), do: {"bignum", text}

  defp content(vector) do
    [pair] = vector |> Map.delete("msgpack") |> Map.to_list()
    pair
  end

  defp bytes(text), do: text |> String.replace("-", "") |> Base.decode16!(case: :lower)

  defp wanted(kind, content) do
    case @otherwise do
      %{{^kind, ^content} => wanted} -> wanted
      %{} -> value(kind, content)
    end
  end

  defp value("ext", _content), do: :refused
  defp value("binary", text), do: {:ok, Binary.new(bytes(text))}
  defp value("bignum", text), do: {:ok, String.to_integer(text)}

  defp value("timestamp", [second, nanosecond]) do
    {:ok, DateTime.from_unix!(second * 1_000_000 + div(nanosecond, 1000), :microsecond)}
  end

  defp value(_kind, value), do: {:ok, value}

  defp read(form) do
    with {:error, _error} <- Codec.decode(form), do: :refused
  end

  # Some forms of a number are floats.
  defp right?({:ok, float}, {:ok, number}, <<byte, _::binary>>) when byte in [0xCA, 0xCB],
    do: is_float(float) and float == number

  # JSON's own whole floats.
  defp right?({:ok, integer}, {:ok, float}, _form) when is_integer(integer) and is_float(float),
    do: integer == float

  defp right?(read, wanted, _form), do: read === wanted

  test "the suite is whole", %{vectors: vectors} do
    assert length(vectors) == 85
    assert vectors |> Enum.map(fn {_, _, forms} -> length(forms) end) |> Enum.sum() == 233
  end

  test "every form of every value is read as it should be", %{vectors: vectors} do
    wrong =
      for {kind, content, forms} <- vectors,
          form <- forms,
          not right?(read(form), wanted(kind, content), form),
          do: {kind, content, form, read(form)}

    assert wrong == []
  end

  test "every value is written in one of its forms", %{vectors: vectors} do
    wrong =
      for {kind, content, forms} <- vectors,
          {:ok, value} <- [value(kind, content)],
          not cut_or_out_of_range?(kind, content),
          {:ok, written} = Codec.encode(value),
          written not in forms,
          do: {kind, content, written}

    assert wrong == []
  end

  defp cut_or_out_of_range?("timestamp", [second, nanosecond]),
    do: rem(nanosecond, 1000) != 0 or second == -62_167_219_200

  defp cut_or_out_of_range?(_kind, _content), do: false
end
