defmodule DSPex.JournalTest do
  # A journal in a file, without Python.
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias DSPex.{Error, Instance, Journal, Secret, Signature}
  alias DSPex.Protocol.Message
  alias DSPex.Test.Folder

  @moduletag :capture_log

  defmodule Sorted do
    use DSPex.Signature, "subject -> kind: str"
  end

  # Every change waits for the disk, and these tests make thousands: in memory where that can be had.
  @root Enum.find(["/dev/shm", System.tmp_dir!()], &File.dir?/1)

  setup do
    # The journal makes its own folder.
    %{path: Path.join([Folder.make(@root), "folder", "journal"])}
  end

  # A node that starts, with what the application says.
  defp start(path, configuration \\ %{}) do
    name = Module.concat(__MODULE__, "J#{System.unique_integer([:positive])}")
    options = [name: name, configuration: configuration, journal: {:file, path}]
    with {:ok, pid} <- start_supervised({Journal, options}, id: name), do: {name, pid}
  end

  defp stop(name), do: :ok = stop_supervised(name)

  defp put(name, id, signature \\ nil, kind \\ :put) do
    {:ok, body} = Message.body("create", %{program: id, replace: true})

    assert {:ok, _before, _version} =
             Journal.record(name, {kind, id, fn -> body end, signature, []})

    body
  end

  test "programs, their signatures and revisions are there after a restart", %{path: path} do
    {name, _pid} = start(path)
    body = put(name, "qa", Sorted.__signature__())
    put(name, "twice")
    put(name, "twice")
    put(name, "gone")
    {:ok, _before, _version} = Journal.record(name, {:delete, "gone"})
    stop(name)

    {name, _pid} = start(path)
    assert Enum.sort(Journal.programs(name)) == ["qa", "twice"]
    program = Journal.program(name, "qa")
    assert program.body.() == body
    assert program.signature == Sorted.__signature__()
    assert Journal.program(name, "twice").revision == 2
    # Once more, of the file that the restart has written.
    stop(name)
    {name, _pid} = start(path)
    assert Enum.sort(Journal.programs(name)) == ["qa", "twice"]
  end

  test "a signature whose module is gone or another has its names as text", %{path: path} do
    {name, _pid} = start(path)
    signature = %{Sorted.__signature__() | name: "No.Such.Module"}
    put(name, "qa", signature)
    stop(name)
    {name, _pid} = start(path)
    restored = Journal.program(name, "qa").signature
    assert Signature.to_wire(restored)["inputs"] == Signature.to_wire(signature)["inputs"]
    assert Enum.map(restored.inputs, & &1.name) == ["subject"]
  end

  test "no key is in the file, and what had one is not restored as something else", %{path: path} do
    {name, _pid} = start(path)
    key = "sk-never-in-a-file"

    lms = %{
      "open" => %{model: "demo/knn", temperature: 0.5},
      "keyed" => %{model: "openai/x", api_key: Secret.new(key)},
      "private" => %{model: "openai/x", api_base: Secret.new("http://#{key}.example")}
    }

    embedders = %{
      "words" => %{model: "demo/tfidf"},
      "team" => %{model: "openai/e", api_key: Secret.new(key)}
    }

    {:ok, _, _} =
      Journal.record(
        name,
        {:configure, %{lms: lms, default_lm: "keyed", adapter: "json", embedders: embedders}}
      )

    # Of those by name, another configuration says nothing.
    {:ok, _, _} = Journal.record(name, {:configure, %{embedders: %{"more" => %{model: "m"}}}})

    stop(name)
    refute File.read!(path) =~ "never-in-a-file"

    log =
      capture_log(fn ->
        {name, _pid} = start(path)
        {configuration, _version} = Journal.configuration(name)

        assert configuration == %{
                 lms: %{"open" => %{model: "demo/knn", temperature: 0.5}},
                 adapter: "json",
                 embedders: %{"words" => %{model: "demo/tfidf"}, "more" => %{model: "m"}}
               }

        stop(name)
      end)

    assert log =~ "the LMs keyed, private were configured with something secret"
    assert log =~ "the embedders team were configured with something secret"
    assert log =~ "give them as embedders:"

    # What the application gives is used, and goes before what was.
    given = %{
      lms: %{"keyed" => %{model: "openai/y", api_key: Secret.new(key)}},
      embedders: %{"team" => %{model: "openai/f", api_key: Secret.new(key)}}
    }

    log =
      capture_log(fn ->
        {name, _pid} = start(path, given)
        send(self(), {:configuration, Journal.configuration(name)})
      end)

    assert log =~ "the LMs private were"
    refute log =~ "embedders"
    assert_received {:configuration, {configuration, _version}}
    assert configuration.embedders["team"].model == "openai/f"
    assert configuration.embedders["words"].model == "demo/tfidf"
    assert configuration.lms["keyed"].model == "openai/y"
    assert configuration.default_lm == "keyed"
  end

  test "fallbacks and limits are there after a restart, but for fallbacks that are lost", %{
    path: path
  } do
    {name, _pid} = start(path)

    # Twice: limits are put in the place of those before.
    for max_calls <- [1, 2] do
      lms = %{
        "main" => %{
          model: "m",
          fallbacks: ["keyed", "open", "elsewhere"],
          limits: %{max_calls: 5}
        },
        "keyed" => %{model: "k", api_key: Secret.new("sk-1"), fallbacks: ["open"]},
        "open" => %{model: "o", fallbacks: [], limits: %{max_cost_usd: 0.5}},
        "given" => %{model: "g", fallbacks: ["keyed"]}
      }

      {:ok, _, _} =
        Journal.record(name, {:configure, %{lms: lms, limits: %{max_calls: max_calls}}})
    end

    stop(name)

    restart = fn given ->
      log =
        capture_log(fn ->
          {name, _pid} = start(path, given)
          {configuration, _version} = Journal.configuration(name)
          send(self(), configuration)
          stop(name)
        end)

      assert_received %{lms: _lms} = configuration
      {configuration, log}
    end

    {configuration, log} = restart.(%{lms: %{"given" => %{model: "h"}}})
    assert configuration.lms["open"] == %{model: "o", fallbacks: [], limits: %{max_cost_usd: 0.5}}

    assert configuration.lms["main"] == %{
             model: "m",
             fallbacks: ["open"],
             limits: %{max_calls: 5}
           }

    # As the application has it, which is not looked at here.
    assert configuration.lms["given"] == %{model: "h"}
    assert DSPex.Config.reveal(configuration)[:limits] == %{"max_calls" => 2}

    assert log =~
             "the LM main of the journal is without its fallbacks keyed, elsewhere, which are no " <>
               "LMs now: give them and it as lms:, or with DSPex.configure/2"

    refute log =~ "the LM given"
    refute log =~ "sk-1"

    # The file has lost nothing: what the application gives is a fallback again.
    keyed = %{model: "k", api_key: Secret.new("sk-1")}

    {configuration, log} =
      restart.(%{lms: %{"keyed" => keyed, "elsewhere" => %{model: "e"}}, limits: %{max_calls: 7}})

    assert configuration.lms["main"].fallbacks == ["keyed", "open", "elsewhere"]
    assert configuration.lms["given"].fallbacks == ["keyed"]
    assert configuration.limits == %{max_calls: 7}
    refute log =~ "without its fallbacks"
  end

  test "a change that was cut off is put beside the file, and what came before is there", %{
    path: path
  } do
    {name, _pid} = start(path)
    put(name, "first")
    before = File.stat!(path).size
    put(name, "second")
    stop(name)
    whole = File.read!(path)

    for size <- before..(byte_size(whole) - 1) do
      File.write!(path, binary_part(whole, 0, size))

      log =
        capture_log(fn ->
          {name, _pid} = start(path)
          assert Journal.programs(name) == ["first"]
          stop(name)
        end)

      if size > before do
        assert log =~ "ends in the middle of a change that was not confirmed"
        assert File.read!("#{path}.torn-#{before}") == binary_part(whole, before, size - before)
      end
    end
  end

  test "damage is told with its place, and the file is left as it is", %{path: path} do
    {name, _pid} = start(path)
    put(name, "first")
    put(name, "second")
    stop(name)
    whole = File.read!(path)

    for at <- 0..(byte_size(whole) - 1) do
      <<head::binary-size(at), byte, rest::binary>> = whole
      damaged = <<head::binary, Bitwise.bxor(byte, 0x40), rest::binary>>
      File.write!(path, damaged)
      assert {:error, {%Error{code: :journal_error} = error, _child}} = start(path)
      assert error.message =~ ~r/the journal .* is damaged at byte \d+: .*backup/
      assert File.read!(path) == damaged
    end
  end

  test "an instance whose journal is damaged does not start, and says why", %{path: path} do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, "something else")
    Process.flag(:trap_exit, true)
    name = Module.concat(__MODULE__, "Damaged")

    assert {:error, %Error{code: :journal_error} = error} =
             DSPex.start_link(name: name, command: ["sh"], journal: {:file, path})

    assert error.message =~ "it does not begin as a journal of this version does"
  end

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

  test "a change that cannot be written is an error of who made it, and spoils nothing that follows",
       %{
         path: path
       } do
    {name, pid} = start(path)
    put(name, "before")
    close = fn {_table, file} = state -> {:file.close(file.io), state} |> elem(1) end
    :sys.replace_state(pid, close)
    {:ok, body} = Message.body("create", %{})

    assert {:error, %Error{code: :journal_error, message: message}} =
             Journal.record(name, {:put, "qa", fn -> body end, nil, []})

    assert message =~ "cannot be written"
    assert Journal.program(name, "qa") == nil
    # As a disk leaves it that became full.
    File.write!(path, <<0, 0, 1>>, [:append])
    put(name, "after")
    stop(name)
    {name, _pid} = start(path)
    assert Enum.sort(Journal.programs(name)) == ["after", "before"]
  end

  test "a configuration whose fallbacks lead back by what was taken meanwhile is refused, and changes nothing" do
    name = Module.concat(__MODULE__, "Circle")
    configuration = %{lms: %{"a" => %{model: "m"}, "b" => %{model: "m"}}}
    start_supervised!({Journal, name: name, configuration: configuration})
    stands_in = fn lm, other -> %{lms: %{lm => %{model: "m", fallbacks: [other]}}} end
    assert {:ok, 1, 2} = Journal.record(name, {:configure, stands_in.("a", "b")})
    before = Journal.configuration(name)
    change = Map.put(stands_in.("b", "a"), :default_lm, "b")

    assert {:error, %Error{code: :invalid_params, message: message}} =
             Journal.record(name, {:configure, change})

    assert message =~ "(b → a → b): an LM cannot stand in for itself"
    assert Journal.configuration(name) == before
    assert Journal.generation(name) == 2
  end

  test "fallbacks of an LM that only this node has, in a circle with a later configuration, are cut" do
    name = Module.concat(__MODULE__, "Nodes")
    configuration = %{lms: %{"b" => %{model: "m"}}}
    start_supervised!({Journal, name: name, configuration: configuration, cluster: name})
    lm = fn fallbacks -> %{model: "m", fallbacks: fallbacks} end
    {:ok, 1, 2} = Journal.record(name, {:configure, %{lms: %{"a" => lm.(["b"])}}})
    # All that the other one has: an `a` it does not know.
    elsewhere = {:configuration, {7, :other@node}, %{lms: %{"b" => lm.(["a"])}}}

    log = capture_log(fn -> Journal.take(name, [elsewhere]) end)
    assert log =~ "the LMs a are without their fallbacks, which would lead back"
    assert {%{lms: %{"a" => %{model: "m"} = a, "b" => b}}, 3} = Journal.configuration(name)
    assert {a, b} == {%{model: "m"}, lm.(["a"])}
  end

  test "fallbacks of the file that lead back by what the application gives are not restored", %{
    path: path
  } do
    {name, _pid} = start(path)
    lms = %{"a" => %{model: "m", fallbacks: ["b"]}, "b" => %{model: "m"}}
    {:ok, _, _} = Journal.record(name, {:configure, %{lms: lms}})
    stop(name)

    log =
      capture_log(fn ->
        {name, _pid} = start(path, %{lms: %{"b" => %{model: "m", fallbacks: ["a"]}}})
        {configuration, _version} = Journal.configuration(name)

        assert configuration.lms == %{
                 "a" => %{model: "m"},
                 "b" => %{model: "m", fallbacks: ["a"]}
               }
      end)

    assert log =~ "the LMs a of the journal are without their fallbacks, which would lead back"
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

  test "who finds the table of a journal that starts again finds all that is in it", %{path: path} do
    {name, _pid} = start(path)
    ids = for number <- 1..10_000, do: "program-#{number}"
    Enum.each(ids, &put(name, &1))
    stop(name)
    reader = Task.async(fn -> read(name) end)
    start_supervised!({Journal, name: name, configuration: %{}, journal: {:file, path}})
    assert Task.await(reader, 30_000) == length(ids)
  end

  test "who asks for a program while the journal starts again waits for it", %{path: path} do
    name = Module.concat(__MODULE__, "Restarted")
    journal = Module.concat(name, "Journal")
    options = [name: journal, configuration: %{}, journal: {:file, path}]
    # An instance of a journal alone.
    start_supervised!(%{
      id: name,
      type: :supervisor,
      start:
        {Supervisor, :start_link, [[{Journal, options}], [strategy: :one_for_one, name: name]]}
    })

    put(journal, "qa")
    owner = :ets.info(journal, :owner)
    ref = Process.monitor(owner)
    :ok = :sys.suspend(name)
    Process.exit(owner, :kill)
    assert_receive {:DOWN, ^ref, :process, ^owner, :killed}
    asked = Task.async(fn -> Instance.program(name, "qa") end)
    assert Task.yield(asked, 50) == nil
    :ok = :sys.resume(name)
    assert %Journal.Program{revision: 1} = Task.await(asked, 30_000)
    # Of an instance that is not there nobody waits for anything.
    stop_supervised!(name)
    assert Instance.program(name, "qa") == nil
  end

  # Again and again, until there is a table: how many programs are in it.
  defp read(name) do
    if :ets.whereis(name) == :undefined, do: read(name), else: length(Journal.programs(name))
  end

  test "the file does not grow with changes that are undone", %{path: path} do
    {name, _pid} = start(path)
    put(name, "kept")
    for _ <- 1..1100, do: put(name, "again")
    assert File.stat!(path).size < 1100 * 50
    stop(name)
    {name, _pid} = start(path)
    assert Journal.program(name, "again").revision == 1100
  end

  test "nobody else can read the file", %{path: path} do
    start(path)
    assert Bitwise.band(File.stat!(path).mode, 0o777) == 0o600
  end
end
