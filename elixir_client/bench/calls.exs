# What a call from Elixir costs. `scripts/bench` starts this and asks for one round after another; by
# itself it is nothing to look at. Each line of stdin is a round:
#
#     HOW SERVER NUMBER [BYTES]
#
# and its answer on stdout is the microseconds of one call. SERVER is one of the commands in the
# environment: DSPEX_BENCH_FLOOR, _ANSWERER, _BRIDGE and _CONSTANT (a bridge whose LM costs nothing),
# their words separated by newlines; and _ERLPORT and _ERLPORT_LARGE, which have what `erlport.ex`
# starts. The payload is a short text, or a binary of BYTES. HOW is
#
#     raw_one       a port, asked by one process, one at a time (the median of the round)
#     raw_many      the same with 256 pings under way
#     raw_no_op     256 requests under way that are dispatched (`list`, of no program)
#     client_one    `DSPex.ping/2`, one at a time (the median of the round)
#     client_many   `DSPex.ping/2` from 256 processes at once
#     router_many   the same of the plain GenServer of `router.ex`
#     erlport_one   a function that gives back its argument, by erlport, one at a time (the median)
#     erlport_many  the same from 256 processes at once
#     stream        the chunks of one `DSPex.stream!/4`, of which there have to be NUMBER

Code.require_file("erlport.ex", __DIR__)
Code.require_file("peer.ex", __DIR__)
Code.require_file("router.ex", __DIR__)

defmodule DSPex.Bench.Calls do
  alias DSPex.Bench.{ErlPort, Router}
  alias DSPex.Protocol.Codec

  @window 256
  @payload "hello"
  @bound 60_000

  def serve(opened) do
    case IO.gets("") do
      :eof ->
        :ok

      line ->
        [how, server, number | bytes] = String.split(line)
        kind = how |> String.split("_") |> hd()

        # Kept for the rounds that follow, and made by the first one, which does not count.
        opened =
          opened
          |> Map.put_new_lazy({kind, server}, fn -> open(kind, command(server)) end)
          |> Map.put_new_lazy(bytes, fn -> payload(bytes) end)

        IO.puts(round(how, opened[{kind, server}], String.to_integer(number), opened[bytes]))
        serve(opened)
    end
  end

  defp command(server),
    do: "DSPEX_BENCH_#{String.upcase(server)}" |> System.fetch_env!() |> String.split("\n")

  defp payload([]), do: @payload

  defp payload([bytes]),
    do: bytes |> String.to_integer() |> :rand.bytes() |> DSPex.Binary.new()

  defp open("raw", [executable | args]) do
    options = [:binary, packet: 4, args: args]
    port = Port.open({:spawn_executable, System.find_executable(executable)}, options)
    # Answered when DSPy is there; the floor gives the question back.
    Port.command(port, frame(0xFFFF_FFFF, "list", %{}))
    answer(port)
    port
  end

  defp open("client", command) do
    name = :"bench#{System.unique_integer([:positive])}"
    {:ok, _} = DSPex.start_link(name: name, command: command)

    # As above: a ping is answered before, while the bridge is busy importing. The answerer's answer
    # is none to this, and is not looked at.
    _ = DSPex.list(name)
    {:ok, @payload} = DSPex.ping(name, payload: @payload)
    name
  end

  defp open("stream", command) do
    name = :"bench#{System.unique_integer([:positive])}"
    {:ok, _} = DSPex.start_link(name: name, command: command, lms: [main: [model: "demo/knn"]])
    {:ok, program} = DSPex.create(name, "question -> answer")
    {name, program}
  end

  defp open("router", command) do
    {:ok, router} = Router.start_link(command)
    _ = Router.request(router, "list", %{})
    {:ok, @payload} = Router.ping(router, @payload)
    router
  end

  defp open("erlport", command) do
    {:ok, erlport} = ErlPort.start_link(command)
    @payload = ErlPort.echo(erlport, @payload)
    erlport
  end

  defp frame(id, method, params) do
    {:ok, frame} = Codec.encode([0, id, method, params])
    frame
  end

  # --- one at a time ---

  defp round("raw_one", port, number, payload) do
    frame = frame(0x10000, "ping", %{"payload" => payload})

    median(number, fn ->
      Port.command(port, frame)
      answer(port)
    end)
  end

  defp round("client_one", name, number, payload),
    do: median(number, fn -> {:ok, ^payload} = DSPex.ping(name, payload: payload) end)

  defp round("erlport_one", erlport, number, payload) do
    bytes = bytes(payload)
    median(number, fn -> ^bytes = ErlPort.echo(erlport, bytes) end)
  end

  # --- many at once ---

  defp round("raw_many", port, number, payload),
    do: pipelined(port, number, &frame(&1, "ping", %{"payload" => payload}))

  defp round("raw_no_op", port, number, _payload),
    do: pipelined(port, number, &frame(&1, "list", %{}))

  defp round("client_many", name, number, payload),
    do: from_many(number, fn -> {:ok, ^payload} = DSPex.ping(name, payload: payload) end)

  defp round("router_many", router, number, payload),
    do: from_many(number, fn -> {:ok, ^payload} = Router.ping(router, payload) end)

  defp round("erlport_many", erlport, number, payload) do
    bytes = bytes(payload)
    from_many(number, fn -> ^bytes = ErlPort.echo(erlport, bytes) end)
  end

  # --- a stream ---

  defp round("stream", {name, program}, number, _payload) do
    started = now()
    # Credit for all: without it the bridge gathers what comes into fewer chunks.
    chunks = DSPex.stream!(name, program, %{question: "Where?"}, window: number + 2)
    count = Enum.count(chunks, &is_struct(&1, DSPex.Chunk))
    taken = now() - started
    # One more says that the field is done.
    true = count in number..(number + 2)
    us(taken) / count
  end

  # To erlport bytes are a plain binary, as text is.
  defp bytes(%DSPex.Binary{data: bytes}), do: bytes
  defp bytes(text), do: text

  # Half a window is sent when half a window has been answered, so that neither side ever waits for
  # the other; by then the last frame of the same id has been answered, too.
  defp pipelined(port, number, make) do
    half = div(@window, 2)
    ids = 0x10000..(0x10000 + @window - 1)
    [first, second] = ids |> Enum.map(make) |> Enum.chunk_every(half)
    halves = max(2, div(number, half))
    started = now()
    Enum.each(first ++ second, &Port.command(port, &1))
    size = port |> answer() |> byte_size()
    take(port, half - 1, size)
    go_on(port, first, second, halves - 1, halves - 2, size)
    us(now() - started) / (halves * half)
  end

  defp go_on(_port, _next, _after, 0, _to_send, _size), do: :ok

  defp go_on(port, next, after_next, to_come, to_send, size) do
    if to_send > 0, do: Enum.each(next, &Port.command(port, &1))
    take(port, length(next), size)
    go_on(port, after_next, next, to_come - 1, to_send - 1, size)
  end

  defp take(_port, 0, _size), do: :ok

  defp take(port, number, size) do
    # An error is longer.
    ^size = port |> answer() |> byte_size()
    take(port, number - 1, size)
  end

  # A notification is no answer.
  defp answer(port) do
    receive do
      {^port, {:data, <<0x93, 2, _rest::binary>>}} -> answer(port)
      {^port, {:data, answer}} -> answer
    after
      @bound -> raise "no answer"
    end
  end

  defp from_many(number, call) do
    each = max(1, div(number, @window))
    owner = self()

    callers =
      for _ <- 1..@window do
        spawn_link(fn ->
          receive do: (:go -> repeat(call, each))
          send(owner, :done)
        end)
      end

    started = now()
    Enum.each(callers, &send(&1, :go))
    for _ <- callers, do: receive(do: (:done -> :ok))
    us(now() - started) / (each * @window)
  end

  defp repeat(_call, 0), do: :ok

  defp repeat(call, number) do
    call.()
    repeat(call, number - 1)
  end

  defp median(number, call) do
    times =
      for _ <- 1..number do
        started = now()
        call.()
        now() - started
      end

    us(Enum.at(Enum.sort(times), div(number, 2)))
  end

  defp now, do: System.monotonic_time(:nanosecond)
  defp us(ns), do: ns / 1000
end

DSPex.Bench.Calls.serve(%{})
