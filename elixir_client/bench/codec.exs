# How fast the codec is beside one that is written the usual way. `scripts/bench codec` starts this and
# asks for one round after another. Each line of stdin is a round:
#
#     WORK PAYLOAD NUMBER
#
# which is done so often in a new process, and answered with `done` on stdout; the processor time that
# it took is looked at from outside. PAYLOAD is `request`, `nested`, `floats`,
# `binary` or `maps`; WORK is `encode` or `decode`, the same of the peer with `peer_` before it, or
# `parse`: the same frame as an answer, by `DSPex.Protocol.Message.parse/1`, which from 64 KiB on is
# read in a process with a heap that fits.
#
# The peer (`peer.ex`) writes through a protocol, so that any struct may bring its own form, and reads
# in tail calls. It does less: it knows no tensor, decimal, timestamp or big integer, has no limit of
# depth and does not ask whether text is UTF-8. It is MessagePack all the same, and both write and
# read the same, which is checked first.
#
# Both write one binary, as a frame's length has to be known before it is sent; of the 1 MB binary that
# leaves copying it, on either side.

Code.require_file("peer.ex", __DIR__)

defmodule DSPex.Bench.Codec do
  alias DSPex.Bench.Peer
  alias DSPex.Protocol.{Codec, Message}

  def serve, do: payloads() |> Map.new(fn {name, value} -> {name, works(value)} end) |> serve()

  defp serve(payloads) do
    case IO.gets("") do
      :eof ->
        :ok

      line ->
        [work, payload, number] = String.split(line)
        run = payloads |> Map.fetch!(payload) |> Map.fetch!(work)
        Task.await(Task.async(fn -> repeat(run, String.to_integer(number)) end), :infinity)
        IO.puts("done")
        serve(payloads)
    end
  end

  # As they are written (structs included), so for the peer, too.
  defp payloads do
    # Not `:rand`'s own seed: every run has the same payloads.
    :rand.seed(:exsss, {1, 2, 3})

    [
      {"request",
       [0, 41, "execute", %{"program" => "qa", "inputs" => %{"question" => "Where is Rome?"}}]},
      {"nested", [1, 7, nil, nested(5)]},
      {"floats", [1, 7, nil, for(_ <- 1..10_000, do: :rand.normal() * 100)]},
      {"binary", [1, 7, nil, DSPex.Binary.new(:rand.bytes(1_000_000))]},
      {"maps", [1, 7, nil, Enum.map(1..2000, &record/1)]}
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

  defp works(value) do
    {:ok, frame} = Codec.encode(value)
    ^frame = Peer.encode(value)
    {:ok, ^value} = Codec.decode(frame)
    ^value = Peer.decode(frame)

    %{
      "peer_encode" => fn -> Peer.encode(value) end,
      "encode" => fn -> Codec.encode(value) end,
      "peer_decode" => fn -> Peer.decode(frame) end,
      "decode" => fn -> Codec.decode(frame) end,
      "parse" => fn -> Message.parse(frame) end
    }
  end

  defp repeat(_work, 0), do: :ok

  defp repeat(work, count) do
    work.()
    repeat(work, count - 1)
  end
end

DSPex.Bench.Codec.serve()
