defmodule DSPex.JournalTest do
  # A journal in a file, without Python.
  use DSPex.Test.JournalCase, async: true

  import ExUnit.CaptureLog

  alias DSPex.{Error, Instance, Journal, Secret, Signature}
  alias DSPex.Protocol.Message

  defmodule Sorted do
    use DSPex.Signature, "subject -> kind: str"
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
