defmodule DSPex.Journal.LockTest do
  # Who may have the file of a journal, by whatever name it is called.
  use DSPex.Test.JournalCase, async: true

  alias DSPex.{Error, Journal}

  describe "a journal that another one has" do
    test "is an error that says who has it, until that one has ended, however it ends", %{
      path: path
    } do
      {name, pid} = start(path)
      put(name, "first")
      assert {:error, {%Error{code: :journal_error} = error, _child}} = start(path)
      assert error.message =~ "the journal #{path} is in use by another instance of this node"
      assert error.message =~ "Give each instance a file of its own"
      body = put(name, "second")

      ref = Process.monitor(pid)
      # Its supervisor starts it again, at once: it is not held up by itself.
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^ref, :process, ^pid, :killed}
      DSPex.Test.Peer.eventually(fn -> Journal.version(name, "second") != nil end)
      assert Journal.program(name, "second").body.() == body
      assert {:error, {%Error{code: :journal_error}, _child}} = start(path)
      stop(name)
      {name, _pid} = start(path)
      assert Enum.sort(Journal.programs(name)) == ["first", "second"]
    end

    test "of another process of the system is named with its pid, and is free with its end", %{
      path: path
    } do
      port = other_node(path)
      {:os_pid, os_pid} = Port.info(port, :os_pid)
      assert_receive {^port, {:data, {:eol, "taken"}}}, 60_000
      assert {:error, {%Error{code: :journal_error} = error, _child}} = start(path)
      assert error.message =~ "in use by another process (pid #{os_pid})"

      DSPex.Test.Peer.kill(%{os_pid: os_pid})
      assert_receive {^port, {:exit_status, _killed}}
      {name, _pid} = start(path)
      assert Journal.programs(name) == []
    end

    test "is had by one of many that come at one time, after one that was killed", %{path: path} do
      for _round <- 1..4 do
        {name, _pid} = start(path)
        stop(name)
        test = self()

        takers =
          for _taker <- 1..8 do
            spawn_link(fn ->
              send(test, {:taken, self(), match?({:ok, _lock}, Journal.Lock.take(path))})
              receive do: (:end -> :ok)
            end)
          end

        taken =
          for taker <- takers do
            assert_receive {:taken, ^taker, taken?}
            taken?
          end

        assert Enum.count(taken, & &1) == 1

        for taker <- takers do
          ref = Process.monitor(taker)
          send(taker, :end)
          assert_receive {:DOWN, ^ref, :process, ^taker, _reason}
        end
      end
    end

    test "is that one by whatever link it is reached, and the link stays", %{path: path} do
      {name, _pid} = start(path)
      put(name, "first")
      folder = Path.join(Path.dirname(path), "elsewhere")
      File.mkdir_p!(folder)
      link = Path.join(folder, "link")
      File.ln_s!("../journal", link)
      chain = Path.join(folder, "chain")
      File.ln_s!(link, chain)

      for by <- [link, chain] do
        assert {:error, {%Error{code: :journal_error} = error, _child}} = start(by)
        assert error.message =~ "in use by another instance of this node"
      end

      stop(name)

      for {by, id} <- [{link, "by a link"}, {chain, "by a chain"}] do
        {name, _pid} = start(by)
        put(name, id)
        assert {:error, {%Error{code: :journal_error}, _child}} = start(path)
        stop(name)
        assert {:ok, %{type: :symlink}} = File.lstat(by)
      end

      assert File.ls!(folder) |> Enum.sort() == ["chain", "link"]
      {name, _pid} = start(path)
      assert Enum.sort(Journal.programs(name)) == ["by a chain", "by a link", "first"]
    end

    test "is told however many have called before", %{path: path} do
      {name, _pid} = start(path)
      put(name, "first")
      address = {:local, path <> ".lock"}

      call = fn ->
        assert {:ok, call} = :gen_tcp.connect(address, 0, [:local, active: false], 10_000)
        call
      end

      # More than the system keeps for a process that takes no calls.
      for _ <- 1..1100, do: call.()

      # For one that comes meanwhile there is no room: that it was not kept (:einval) it hears when it reads.
      DSPex.Test.Peer.eventually(fn -> :gen_tcp.recv(call.(), 0, 30_000) == {:error, :closed} end)
      assert {:error, {%Error{code: :journal_error} = error, _child}} = start(path)
      assert error.message =~ "in use by another instance of this node"
    end

    test "has no process left once it has ended", %{path: path} do
      {:links, before} = Process.info(self(), :links)
      File.mkdir_p!(Path.dirname(path))
      {:ok, lock} = Journal.Lock.take(path)
      {:links, links} = Process.info(self(), :links)
      assert [second] = Enum.filter(links -- before, &is_pid/1)
      ref = Process.monitor(second)
      :gen_tcp.close(lock)
      assert_receive {:DOWN, ^ref, :process, ^second, :normal}
    end

    # As another node does, of this very code.
    defp other_node(path) do
      File.mkdir_p!(Path.dirname(path))

      code = """
      {:ok, _lock} = DSPex.Journal.Lock.take(#{inspect(path)})
      IO.puts("taken")
      IO.read(:eof)
      """

      ebin = DSPex.Journal.Lock |> :code.which() |> Path.dirname()

      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        :exit_status,
        {:line, 1000},
        args: ["-pa", ebin, "-e", code]
      ])
    end
  end

  test "a journal may have a path that is longer than the name of a socket", %{path: path} do
    path = Path.join([Path.dirname(path), String.duplicate("long", 40), "journal"])
    {name, _pid} = start(path)
    put(name, "first")
    assert {:error, {%Error{code: :journal_error} = error, _child}} = start(path)
    assert error.message =~ "in use by another instance"
    stop(name)
    {name, _pid} = start(path)
    assert Journal.programs(name) == ["first"]
    pattern = Path.join(System.tmp_dir!(), "dspex-#{System.pid()}-*")
    assert Path.wildcard(pattern) == []
  end

  test "links that lead to each other are no journal", %{path: path} do
    File.mkdir_p!(Path.dirname(path))
    File.ln_s!("journal", path)
    assert {:error, {%Error{code: :journal_error} = error, _child}} = start(path)
    assert error.message =~ "cannot be found: too many levels of symbolic links"
  end

  test "a file that stands where the lock would be is told, and left alone", %{path: path} do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path <> ".lock", "mine")
    assert {:error, {%Error{code: :journal_error} = error, _child}} = start(path)
    assert error.message =~ "#{path}.lock, and there is another file of that name"
    assert File.read!(path <> ".lock") == "mine"
  end

  test "a file with another name is refused, as it would become two", %{path: path} do
    {name, _pid} = start(path)
    put(name, "qa")
    stop(name)
    other = path <> ".other"
    File.ln!(path, other)
    before = File.read!(path)

    for name <- [path, other] do
      assert {:error, {%Error{code: :journal_error, message: message}, _child}} = start(name)

      assert message =~ "the journal #{name} has 2 names (hard links)"
    end

    assert {File.read!(path), File.stat!(path).links} == {before, 2}
    File.rm!(other)
    {name, _pid} = start(path)
    assert Journal.programs(name) == ["qa"]
  end
end
