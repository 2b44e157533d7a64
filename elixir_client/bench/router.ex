defmodule DSPex.Bench.Router do
  @moduledoc false
  # A plain client, as anybody would write one: a GenServer that owns the port, gives each call an id
  # and routes its answer; callers encode and decode in their own processes.
  #
  # What it does not do: start Python again, look whether it lives, bound what waits, cancel, deadlines,
  # streams, callbacks, journal, more than one worker, telemetry.

  use GenServer

  alias DSPex.Bench.Peer

  # Ids of five bytes.
  @first_id 0x10000
  @last_id 0xFFFFFFFF

  def start_link([executable | args]),
    do: GenServer.start_link(__MODULE__, {executable, args})

  def ping(router, payload) do
    [1, _id, nil, %{"payload" => payload}] = request(router, "ping", %{"payload" => payload})
    {:ok, payload}
  end

  def request(router, method, params) do
    body = IO.iodata_to_binary([Peer.encode(method) | Peer.encode(params)])
    router |> GenServer.call({:request, body}, 60_000) |> Peer.decode()
  end

  @impl true
  def init({executable, args}) do
    options = [:binary, :exit_status, packet: 4, args: args]
    port = Port.open({:spawn_executable, System.find_executable(executable)}, options)
    {:ok, %{port: port, calls: %{}, next_id: @first_id}}
  end

  @impl true
  def handle_call({:request, body}, from, %{port: port, next_id: id} = state) do
    Port.command(port, [<<0x94, 0, 0xCE, id::32>> | body])
    next_id = if id == @last_id, do: @first_id, else: id + 1
    {:noreply, %{state | calls: Map.put(state.calls, id, from), next_id: next_id}}
  end

  @impl true
  def handle_info({port, {:data, <<0x94, 1, 0xCE, id::32, _rest::binary>> = answer}}, state)
      when port == state.port do
    {from, calls} = Map.pop!(state.calls, id)
    GenServer.reply(from, answer)
    {:noreply, %{state | calls: calls}}
  end

  # A notification: nobody waits for it.
  def handle_info({port, {:data, <<0x93, 2, _rest::binary>>}}, %{port: port} = state),
    do: {:noreply, state}
end
