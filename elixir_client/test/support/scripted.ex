defmodule DSPex.Test.Scripted do
  @moduledoc false
  # An instance whose Python is the test itself (see `DSPex.Test.Peer`), and what tests of it share.

  import ExUnit.Assertions

  alias DSPex.Test.Peer

  @patience_ms 30_000

  def patience_ms, do: @patience_ms

  @doc """
  Starts an instance, whose Python is sent no heartbeats unless the options say so: one that the test
  leaves alone for a while, on a machine that is busy, would be taken for stuck.
  """
  def start(options) do
    options = Keyword.put_new(options, :heartbeat_interval, :infinity)
    ExUnit.Callbacks.start_supervised!({DSPex, options})
  end

  @doc "An instance with a Python that has shaken hands."
  def ready(options \\ [], limits \\ %{}) do
    {listener, command} = Peer.listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    start([name: name, command: command] ++ options)
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake(limits)
    {name, peer, listener}
  end

  @doc "Makes a call in a task, which notes whatever else comes to it."
  def async(fun) do
    Task.async(fn ->
      answer = fun.()
      {answer, Process.info(self(), :messages)}
    end)
  end

  def await(task) do
    assert {answer, {:messages, []}} = Task.await(task, @patience_ms)
    answer
  end

  @doc "Makes a program; gives what was asked of the bridge for it."
  def create(name, peer, signature, options) do
    task = async(fn -> DSPex.create(name, signature, options) end)
    {id, params, peer} = Peer.request(peer, "create")
    Peer.respond(peer, id, created(params))
    assert {:ok, program} = await(task)
    {program, params, peer}
  end

  def created(params) do
    %{
      program: params["program"],
      module: "react",
      revision: 1,
      input_schema: %{},
      output_schema: %{}
    }
  end

  @doc "An answer to an execution."
  def outputs(outputs), do: %{outputs: outputs, program: "p"}

  @doc "Starts an instance that outlives the process that starts it: a call from another node."
  def start_unlinked(options) do
    {:ok, pid} = DSPex.start_link(options)
    Process.unlink(pid)
    :ok
  end

  @doc "The process of the (first) worker."
  def connection(name) do
    {:ok, [%{pid: pid} | _others]} = DSPex.workers(name)
    pid
  end

  def state(name), do: :sys.get_state(connection(name))
end
