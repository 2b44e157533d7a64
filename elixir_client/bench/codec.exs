# How fast the codec is beside one that is written the usual way:
#
#     MIX_ENV=prod mix run bench/codec.exs [ROUNDS]
#
# The peer (`bench/peer.ex`) writes through a protocol, so that any struct may bring its own form, and
# reads in tail calls. It does less: it knows no tensor, decimal, timestamp or big integer, has no
# limit of depth and does not ask whether text is UTF-8. It is MessagePack all the same, and both
# write and read the same, which is checked first.
#
# Both take turns in one run, in a new process each time. What counts is the ratio of their medians
# over the rounds, of which each has the best of a few samples: above 1 is faster than the peer. Both
# write one binary, as a frame's length has to be known before it is sent; of the 1 MB binary that
# leaves copying it, on either side. "as an answer" is the same frame by
# `DSPex.Protocol.Message.parse/1`: from 64 KiB on in a process with a heap that fits.

Code.require_file("peer.ex", __DIR__)

defmodule DSPex.Bench.Codec do
  alias DSPex.Bench.Peer
  alias DSPex.Protocol.{Codec, Message}

  # Of one sample: long beside the clock and the start of a process, short beside a scheduler's slice.
  @sample_us 1_000

  # Samples of a round, of which the best counts: what else runs on the machine only ever adds.
  @samples 7

  def run(rounds) do
    IO.puts("median of #{rounds} rounds; the peer's time by ours, so more than 1 is faster")

    IO.puts(
      row(["payload", "bytes", "encode", "decode", "as an answer", "ours: encode", "decode"])
    )

    Enum.each(payloads(), &measure(&1, rounds))
  end

  defp row(cells) do
    [first | rest] = Enum.map(cells, &to_string/1)
    Enum.join([String.pad_trailing(first, 24) | Enum.map(rest, &String.pad_leading(&1, 13))])
  end

  # As they are written (structs included), so for the peer, too.
  defp payloads do
    # Not `:rand`'s own seed: every run has the same payloads.
    :rand.seed(:exsss, {1, 2, 3})

    [
      {"small request",
       [0, 41, "execute", %{"program" => "qa", "inputs" => %{"question" => "Where is Rome?"}}]},
      {"nested map", [1, 7, nil, nested(5)]},
      {"10,000 floats", [1, 7, nil, for(_ <- 1..10_000, do: :rand.normal() * 100)]},
      {"1 MB binary", [1, 7, nil, DSPex.Binary.new(:rand.bytes(1_000_000))]},
      {"2,000 maps", [1, 7, nil, Enum.map(1..2000, &record/1)]}
    ]
  end

  defp nested(0), do: %{"leaf" => true, "score" => 0.5, "tags" => ["a", "b"]}

  defp nested(depth) do
    %{"name" => "node #{depth}", "count" => depth * 1000, "ok" => nil}
    |> Map.merge(Map.new(1..3, &{"child#{&1}", nested(depth - 1)}))
  end

  defp record(i) do
    %{
      "id" => i,
      "text" => "answer number #{i}, of a sentence or so",
      "score" => i / 7,
      "tokens" => i * 37,
      "labels" => ["positive", "checked"],
      "cached" => rem(i, 2) == 0
    }
  end

  defp measure({name, value}, rounds) do
    {:ok, frame} = Codec.encode(value)
    ^frame = Peer.encode(value)
    {:ok, ^value} = Codec.decode(frame)
    ^value = Peer.decode(frame)

    works = [
      peer_encode: fn -> Peer.encode(value) end,
      encode: fn -> Codec.encode(value) end,
      peer_decode: fn -> Peer.decode(frame) end,
      decode: fn -> Codec.decode(frame) end,
      parse: fn -> Message.parse(frame) end
    ]

    counts = Map.new(works, fn {key, work} -> {key, calibrate(work, 1)} end)

    samples =
      for _round <- 1..rounds, {key, work} <- Enum.shuffle(works), reduce: %{} do
        samples ->
          ns = best(work, counts[key])
          Map.update(samples, key, [ns], &[ns | &1])
      end

    median = Map.new(samples, fn {key, all} -> {key, Enum.at(Enum.sort(all), div(rounds, 2))} end)

    [
      name,
      byte_size(frame),
      ratio(median.peer_encode, median.encode),
      ratio(median.peer_decode, median.decode),
      ratio(median.peer_decode, median.parse),
      us(median.encode),
      us(median.decode)
    ]
    |> row()
    |> IO.puts()
  end

  defp best(work, count), do: Enum.min(for _sample <- 1..@samples, do: sample(work, count))

  defp calibrate(work, count) do
    if best(work, count) * count >= @sample_us * 1000,
      do: count,
      else: calibrate(work, count * 2)
  end

  # Nanoseconds a piece, garbage collections included.
  defp sample(work, count) do
    Task.await(
      Task.async(fn ->
        start = System.monotonic_time(:nanosecond)
        repeat(work, count)
        div(System.monotonic_time(:nanosecond) - start, count)
      end),
      :infinity
    )
  end

  defp repeat(_work, 0), do: :ok

  defp repeat(work, count) do
    work.()
    repeat(work, count - 1)
  end

  defp ratio(peer, ours), do: :erlang.float_to_binary(peer / ours, decimals: 2)
  defp us(ns), do: :erlang.float_to_binary(ns / 1000, decimals: 1) <> " µs"
end

rounds = if arg = List.first(System.argv()), do: String.to_integer(arg), else: 21
DSPex.Bench.Codec.run(rounds)
