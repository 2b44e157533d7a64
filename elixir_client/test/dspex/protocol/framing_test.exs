defmodule DSPex.Protocol.FramingTest do
  use ExUnit.Case, async: true

  @moduletag :protocol

  alias DSPex.Protocol.Framing
  alias DSPex.Test.Terms

  doctest DSPex.Protocol.Framing

  @limit 1000

  # Sizes from nothing to the limit and beyond it; each frame over the limit looks like a message.
  defp frames do
    for size <- [0, 1, 3, 4, 63, 64, 65, 999, 1000, 1001, 5000, 2, 100_000, 7],
        do: <<0x94, :binary.copy(<<size::8>>, size)::binary>> |> binary_part(0, size)
  end

  defp stream(frames), do: for(frame <- frames, into: "", do: <<byte_size(frame)::32>> <> frame)

  defp expected(frames) do
    for frame <- frames do
      if byte_size(frame) <= @limit,
        do: {:frame, frame},
        else: {:too_large, byte_size(frame), binary_part(frame, 0, 64)}
    end
  end

  defp feed_all(chunks, limit \\ @limit) do
    {events, decoder} = Enum.flat_map_reduce(chunks, Framing.new(limit), &Framing.feed(&2, &1))

    {events, decoder.state}
  end

  defp cut(<<>>, _sizes), do: []

  defp cut(bytes, size) do
    size = min(size.(), byte_size(bytes))
    <<chunk::binary-size(size), rest::binary>> = bytes
    [chunk | cut(rest, fn -> size(size) end)]
  end

  defp size(_previous), do: :rand.uniform(Enum.random([1, 5, 70, 3000]))

  test "frames come out the same whole, byte by byte and in random pieces" do
    Terms.seed()
    bytes = stream(frames())
    expected = expected(frames())

    assert feed_all([bytes]) == {expected, {:length, <<>>}}
    assert feed_all(for <<byte <- bytes>>, do: <<byte>>) == {expected, {:length, <<>>}}

    for _ <- 1..200 do
      assert feed_all(cut(bytes, fn -> size(0) end)) == {expected, {:length, <<>>}}
    end
  end

  test "empty chunks change nothing" do
    assert feed_all(["", <<0, 0>>, "", <<0, 1>>, "", "a", ""]) ==
             {[frame: "a"], {:length, <<>>}}
  end

  test "a long frame in more pieces than are kept apart is joined in order" do
    frame = for n <- 1..10_000, into: "", do: <<n::32>>
    bytes = for <<byte <- stream([frame, "next"])>>, do: <<byte>>
    assert feed_all(bytes, 40_000) == {[frame: frame, frame: "next"], {:length, <<>>}}
  end

  test "a frame over the limit that cannot be a message is told at its first byte" do
    # Four stray bytes, then what a healthy peer writes: a length that begins with zeros.
    assert {[{:too_large, 0x6F6F7073, <<0>>}], _state} = feed_all(["oops", <<0>>])
    assert {[{:too_large, 0x54726163, "e"}], _state} = feed_all(["Trac", "eback"]) |> first_byte()
  end

  # A whole chunk is taken for the head where it is there.
  defp first_byte({[{:too_large, size, head}], state}),
    do: {[{:too_large, size, binary_part(head, 0, 1)}], state}

  test "a frame over the limit that may be a message is told when 64 bytes of it are there" do
    {[], decoder} = Framing.feed(Framing.new(10), <<2_000_000_000::32, 0x94, 1>>)
    {[], decoder} = Framing.feed(decoder, :binary.copy(<<0>>, 61))
    {[{:too_large, 2_000_000_000, head}], decoder} = Framing.feed(decoder, <<7, 8, 9>>)
    assert head == <<0x94, 1, 0::61*8, 7>>
    assert {[], _decoder} = Framing.feed(decoder, :binary.copy(<<0>>, 1_000_000))
  end

  test "a frame over a limit below 64 bytes has a head of its whole length" do
    assert feed_all([stream([<<0x93, 0::10*8>>, "ok"])], 10) ==
             {[{:too_large, 11, <<0x93, 0::10*8>>}, {:frame, "ok"}], {:length, <<>>}}
  end

  test "nothing is kept of a frame that is skipped" do
    {events, decoder} = Framing.feed(Framing.new(100), <<4_000_000_000::32, 0x94, 0::100*8>>)
    assert [{:too_large, 4_000_000_000, _head}] = events

    chunk = :binary.copy(<<0x94>>, 1_000_000)

    decoder =
      Enum.reduce(1..50, decoder, fn _, decoder ->
        {[], decoder} = Framing.feed(decoder, chunk)
        decoder
      end)

    assert :erlang.external_size(decoder) < 500
    assert decoder.state == {:skip, 4_000_000_000 - 101 - 50_000_000}
  end

  test "a frame that comes byte by byte costs little more memory than its own bytes" do
    {[], decoder} = Framing.feed(Framing.new(1_000_000), <<1_000_000::32>>)

    decoder =
      Enum.reduce(1..999_999, decoder, fn _, decoder ->
        {[], decoder} = Framing.feed(decoder, "x")
        decoder
      end)

    words = :erts_debug.flat_size(decoder)
    assert words * :erlang.system_info(:wordsize) < 500_000
    assert {[frame: frame], _decoder} = Framing.feed(decoder, "y")
    assert byte_size(frame) == 1_000_000
  end
end
