defmodule DSPex.ClusterTest do
  # Workers of several nodes as one pool, with real nodes. Not async: this one gets a name.
  use ExUnit.Case, async: false

  import DSPex.Test.Scripted, only: [async: 1, await: 1, created: 1, outputs: 1]

  alias DSPex.Error
  alias DSPex.Test.Peer

  @moduletag :protocol
  @moduletag :capture_log

  setup_all do
    {_output, 0} = System.cmd("epmd", ["-daemon"])
    name = :"dspex-#{System.pid()}@127.0.0.1"
    {:ok, _pid} = :net_kernel.start([name, :longnames])
    on_exit(fn -> :net_kernel.stop() end)
  end

  defp instance(command) do
    [name: DSPex.ClusterTest.Instance, command: command, cluster: true] ++
      [heartbeat_interval: :infinity]
  end

  # A node that has the instance; its Python is the test's, too.
  defp other_node(command) do
    name = :"dspex-other-#{System.pid()}-#{System.unique_integer([:positive])}"

    {:ok, peer, node} =
      :peer.start_link(%{
        name: name,
        host: to_charlist("127.0.0.1"),
        longnames: true,
        connection: :standard_io
      })

    :ok = :erpc.call(node, :code, :add_paths, [:code.get_path()])
    {:ok, _apps} = :erpc.call(node, Application, :ensure_all_started, [:logger])
    # Whoever starts it is gone at once, and would take it along.
    :ok = :erpc.call(node, DSPex.Test.Scripted, :start_unlinked, [instance(command)])
    true = Node.connect(node)
    {peer, node}
  end

  test "programs and calls of two nodes are one pool's, and one of them may go" do
    name = DSPex.ClusterTest.Instance
    {here, here_command} = Peer.listen()
    {there, there_command} = Peer.listen()
    start_supervised!({DSPex, instance(here_command)})
    {_hello, one} = here |> Peer.accept() |> Peer.handshake()
    {other, node} = other_node(there_command)
    {_hello, two} = there |> Peer.accept() |> Peer.handshake()

    Peer.eventually(fn -> match?({:ok, [%{status: :ready}]}, DSPex.workers(name)) end)
    pool = DSPex.Pool.fetch(Module.concat(name, "Pool"))
    remote = fn -> :ets.match_object(pool.table, {{:remote, :_}, node, 4, :_}) end
    Peer.eventually(fn -> match?([_row], remote.()) end)

    task = async(fn -> DSPex.create(name, "q -> a", program: "qa") end)
    {id, params, one} = Peer.request(one, "create")
    Peer.respond(one, id, created(params))
    assert {:ok, _program} = await(task)
    # Confirmed, it is known on the other node.
    assert %{revision: 1} = :erpc.call(node, DSPex.Instance, :program, [name, "qa"])

    first = async(fn -> DSPex.execute(name, "qa", %{q: "1"}) end)
    {first_id, _params, one} = Peer.request(one, "execute")
    second = async(fn -> DSPex.execute(name, "qa", %{q: "2"}) end)
    {load, params, two} = Peer.request(two, "create")
    Peer.respond(two, load, created(params))
    {second_id, %{"inputs" => %{"q" => "2"}}, two} = Peer.request(two, "execute")
    Peer.respond(two, second_id, outputs(%{a: "there"}))
    assert {:ok, prediction} = await(second)
    assert prediction["a"] == "there"

    # The node goes while it works for this one.
    Peer.eventually(fn -> match?([{_key, _node, 4, 0}], remote.()) end)
    lost = async(fn -> DSPex.execute(name, "qa", %{q: "3"}) end)
    {_id, _params, _two} = Peer.request(two, "execute")
    :peer.stop(other)
    assert {:error, %Error{code: :connection_lost, retryable: false}} = await(lost)
    Peer.eventually(fn -> remote.() == [] end)

    Peer.respond(one, first_id, outputs(%{a: "here"}))
    assert {:ok, _prediction} = await(first)
  end
end
