defmodule DSPex.Journal.ToolsTest do
  # Programs with tools that come back from a journal's file, which holds no functions. Python is the
  # test itself.
  use ExUnit.Case, async: true

  import DSPex.Test.Scripted
  import ExUnit.CaptureLog

  alias DSPex.{Error, Tool}
  alias DSPex.Test.{Folder, Peer}

  @moduletag :protocol
  @moduletag :capture_log

  # Its text and its tools, as somebody edits them between two starts.
  defmodule Edited do
    use Agent

    def start_link(definition),
      do: Agent.start_link(fn -> definition end, name: __MODULE__)

    def change(change), do: Agent.update(__MODULE__, &Map.merge(&1, change))
    def get(what), do: Agent.get(__MODULE__, &Map.fetch!(&1, what))
  end

  defmodule Clock do
    use DSPex.Program,
      module: :react,
      tools: [Tool.new(:hour, "The hour.", [], fn _ -> "noon" end)]

    defschema InputSchema do
      field(:question, :string, required: true)
    end

    defschema OutputSchema do
      field(:answer, :string)
    end
  end

  # The same, whose definition is what `Edited` says: no second compilation is needed for an edit.
  defmodule Desk do
    alias DSPex.Journal.ToolsTest.{Clock, Edited}

    def __signature__,
      do: %{Clock.__signature__() | name: inspect(__MODULE__), instructions: Edited.get(:text)}

    def __program__,
      do: DSPex.Program.define(__MODULE__, module: :react, tools: tools(Edited.get(:tools)))

    defp tools(names),
      do:
        for(name <- names, do: Tool.new(name, "The #{name}.", [], fn _ -> "#{name} of Desk" end))
  end

  @clock inspect(Clock)
  @desk inspect(Desk)

  # The tests of a module run in turn, each with a definition of its own.
  setup do
    start_supervised!({Edited, %{text: "Answer.", tools: [:hour]}})
    start_node(Path.join(Folder.make(), "journal"))
  end

  defp start_node(path) do
    {name, peer, _listener} = ready(journal: {:file, path})
    %{name: name, peer: peer, path: path}
  end

  # The node ends, and starts again with the same file; and what is logged on the way.
  defp restart(%{name: name, path: path}) do
    :ok = stop_supervised(name)
    with_log(fn -> start_node(path) end)
  end

  # Other tests log meanwhile.
  defp silent?(log), do: not (log =~ @clock or log =~ @desk)

  # Runs a program whose one step calls a tool; what the tool is found to say, and all that Python was
  # asked for before.
  defp observe(%{name: name, peer: peer}, program, tool) do
    task = async(fn -> DSPex.execute(name, program, %{question: "?"}) end)
    {asked, id, params, peer} = until_execute(peer, [])
    call = %{program: params["program"], request: id, tool: tool, args: %{}, meta: %{}}
    peer = Peer.message(peer, [0, 900, "call_tool", call])
    {{:response, 900, observed}, peer} = Peer.next(peer)
    Peer.respond(peer, id, outputs(%{answer: "done"}))
    assert {:ok, _prediction} = await(task)
    {observed, asked}
  end

  defp until_execute(peer, asked) do
    case Peer.next(peer) do
      {{:request, id, "execute", params}, peer} ->
        {Enum.reverse(asked), id, params, peer}

      {{:request, id, method, params}, peer} ->
        until_execute(Peer.respond(peer, id, created(params)), [method | asked])
    end
  end

  # What is answered without Python.
  defp refused(context, program) do
    assert {:error, %Error{} = error} = DSPex.execute(context.name, program, %{question: "?"})
    error
  end

  defp state_with(names) do
    %{
      "signature" => DSPex.Signature.to_wire(Clock.__signature__()),
      "module" => "react",
      "tools" => Enum.map(names, &%{"name" => &1})
    }
  end

  defp load(%{name: name, peer: peer}, state, options) do
    task = async(fn -> DSPex.load(name, state, options) end)
    {id, params, peer} = Peer.request(peer, "load")
    Peer.respond(peer, id, created(params))
    await(task)
  end

  defp hour(says), do: Tool.new(:hour, "The hour.", [], fn _args -> says end)

  test "a program that is a module has its tools again, without a word", context do
    assert {{:ok, "noon"}, ["create"]} = observe(context, Clock, "hour")
    {context, log} = restart(context)
    assert silent?(log)
    assert {{:ok, "noon"}, ["create"]} = observe(context, Clock, "hour")
    # And by its id, in the file that the restart has written.
    {context, _log} = restart(context)
    assert {{:ok, "noon"}, ["create"]} = observe(context, @clock, "hour")
  end

  test "a tool is there for a call that came to this Python from another node", context do
    assert {{:ok, "noon"}, ["create"]} = observe(context, Clock, "hour")
    {context, _log} = restart(context)
    task = async(fn -> DSPex.stats(context.name) end)
    {id, _params, peer} = Peer.request(context.peer, "stats")
    call = %{program: @clock, request: id, tool: "hour", args: %{}, meta: %{}}
    peer = Peer.message(peer, [0, 900, "call_tool", call])
    assert {{:response, 900, {:ok, "noon"}}, peer} = Peer.next(peer)
    Peer.respond(peer, id, %{})
    assert {:ok, %{}} = await(task)
  end

  test "so has its optimized state, under the module's name and under its own", context do
    {:ok, _program} = load(context, state_with(["hour"]), program: Clock, replace: true)
    [hour] = DSPex.Instance.tools(context.name, @clock)
    entry = {:derived, "better", Clock.__signature__(), [hour]}
    {:ok, entry} = DSPex.Journal.entry(entry, %{"state" => state_with(["hour"])})
    :ok = DSPex.Instance.record(context.name, entry)

    {context, log} = restart(context)
    assert silent?(log)
    refute log =~ "the program better"
    assert {{:ok, "noon"}, ["load"]} = observe(context, Clock, "hour")
    {context, _log} = restart(context)
    assert {{:ok, "noon"}, ["load"]} = observe(context, "better", "hour")
  end

  test "tools that were given beside the module are not mistaken for its own", context do
    task = async(fn -> DSPex.create(context.name, Clock, tools: [hour("midnight")]) end)
    {id, params, peer} = Peer.request(context.peer, "create")
    Peer.respond(peer, id, created(params))
    assert {:ok, _program} = await(task)

    {context, log} = restart(context)
    assert log =~ "the program #{@clock} of the journal has the tools hour, which no file holds"
    for program <- [Clock, @clock], do: assert(refused(context, program).code == :not_found)
    :ok = DSPex.put_tools(context.name, Clock, [hour("midnight")])
    assert {{:ok, "midnight"}, ["create"]} = observe(context, Clock, "hour")
  end

  test "a program made with functions is not run without them, and keeps its state with new ones",
       context do
    options = [program: "desk", tools: [hour("noon"), Tool.new(:day, "", [], fn _ -> "day" end)]]
    {:ok, _program} = load(context, state_with(["hour", "day"]), options)

    {context, log} = restart(context)
    assert log =~ "has the tools day, hour, which no file holds: give them with DSPex.put_tools/3"
    error = refused(context, "desk")
    assert error.code == :not_found
    assert error.message =~ "without its tools day, hour"
    assert error.message =~ "give them with DSPex.put_tools/3"
    assert {:error, ^error} = DSPex.async(context.name, "desk", %{question: "?"})
    assert [{:error, ^error}] = Enum.to_list(DSPex.stream(context.name, "desk", %{question: "?"}))
    assert {:error, ^error} = DSPex.batch(context.name, "desk", [%{question: "?"}])
    assert {:error, ^error} = DSPex.evaluate(context.name, "desk", [])
    assert {:error, ^error} = DSPex.optimize(context.name, "desk", [])

    :ok = DSPex.put_tools(context.name, "desk", [hour("one")])
    assert refused(context, "desk").message =~ "without its tools day,"
    # A map does as well.
    day = %{name: :day, description: "", run: fn _args -> "today" end}
    :ok = DSPex.put_tools(context.name, "desk", [day])
    revision = DSPex.Journal.program(Module.concat(context.name, "Journal"), "desk").revision
    assert revision == 1
    assert {{:ok, "one"}, ["load"]} = observe(context, "desk", "hour")
  end

  test "tools are given to a program that is there, has them, and by what they are", context do
    {:ok, _program} = load(context, state_with(["hour"]), program: "desk", tools: [hour("noon")])
    put = fn program, tools -> DSPex.put_tools(context.name, program, tools) end

    for {program, tools, code, message} <- [
          {"desk", [Tool.new(:day, "", [], fn _ -> 1 end)], :invalid_params,
           "the program desk has no tool day: its tools are hour"},
          {"gone", [hour("one")], :not_found, "there is no program gone"},
          {"desk", [%{name: :hour}], :invalid_params,
           "tools: the tool hour: its description is a string"},
          {"desk", :hour, :invalid_params, "tools: expected a list of tools"},
          {5, [], :invalid_params, "a program is a %DSPex.Program{}"}
        ] do
      assert {:error, %Error{code: ^code} = error} = put.(program, tools)

      assert {message, String.slice(error.message, 0, String.length(message))} ==
               {message, message}
    end

    assert {:error, %Error{code: :not_started}} = DSPex.put_tools(Nowhere, "desk", [hour("one")])
    :ok = put.("desk", [hour("one")])
    assert {{:ok, "one"}, _asked} = observe(context, "desk", "hour")
  end

  test "a state is loaded for a module with the module's tools, or with those that are given",
       context do
    {:ok, _program} = load(context, state_with(["hour"]), program: Clock, replace: true)
    assert {{:ok, "noon"}, []} = observe(context, Clock, "hour")

    assert {:error, %Error{code: :invalid_params, message: message}} =
             DSPex.load(context.name, state_with(["day"]), program: Clock, replace: true)

    assert message =~ "the state has the tools day: give them as tools:"
    options = [program: Clock, replace: true, tools: [hour("midnight")]]
    {:ok, _program} = load(context, state_with(["hour"]), options)
    assert {{:ok, "midnight"}, []} = observe(context, Clock, "hour")
  end

  describe "a module that is edited" do
    defp edited(context, change) do
      {context, _log} = restart(context)
      Edited.change(change)
      {asked, log} = with_log(fn -> asked(context) end)
      {context, asked, log}
    end

    defp asked(context) do
      [tool | _] = Edited.get(:tools)
      {{:ok, observed}, asked} = observe(context, Desk, "#{tool}")
      assert observed == "#{tool} of Desk"
      asked
    end

    defp load_desk(context), do: load(context, state_with(["hour"]), program: Desk, replace: true)

    test "says that its optimized state is no longer used", context do
      for _revision <- 1..2, do: {:ok, _program} = load_desk(context)
      {context, asked, log} = edited(context, %{text: "Answer!"})
      assert asked == ["create"]

      assert log =~
               "the definition of #{@desk} has changed: its optimized state of revision 2 is no longer used"

      # Once.
      {_context, _asked, log} = edited(context, %{})
      refute log =~ "has changed"
    end

    test "says nothing where no state is lost", context do
      assert asked(context) == ["create"]
      {_context, asked, log} = edited(context, %{text: "Answer!"})
      assert {asked, silent?(log)} == {["create"], true}
    end

    test "keeps the state where nothing in it is another", context do
      {:ok, _program} = load_desk(context)
      {_context, asked, log} = edited(context, %{})
      assert {asked, silent?(log)} == {["load"], true}
    end

    test "is made anew where its tools have other names, and the state is told as lost",
         context do
      Enum.reduce([[:day], [:day, :hour]], context, fn tools, context ->
        Edited.change(%{tools: [:hour]})
        {:ok, _program} = load_desk(context)
        {context, asked, log} = edited(context, %{tools: tools})
        assert {tools, asked} == {tools, ["create"]}
        assert log =~ "the definition of #{@desk} has changed"
        context
      end)
    end

    test "is not made anew where some of its tools have been given by hand", context do
      Edited.change(%{tools: [:hour, :day]})
      {:ok, _program} = load(context, state_with(["hour", "day"]), program: Desk, replace: true)
      {context, _log} = restart(context)
      :ok = DSPex.put_tools(context.name, Desk, [hour("by hand")])
      assert {{:ok, "by hand"}, ["load"]} = observe(context, Desk, "hour")
      assert DSPex.Instance.lost_tools(context.name, @desk) == %{}
    end
  end

  test "a file of an earlier version has its names of tools alone", context do
    assert {{:ok, "noon"}, ["create"]} = observe(context, Clock, "hour")
    {:ok, _program} = load(context, state_with(["hour"]), program: "desk", tools: [hour("one")])
    :ok = stop_supervised(context.name)
    without_modules(context.path)
    {context, log} = with_log(fn -> start_node(context.path) end)
    assert log =~ "the program desk of the journal has the tools hour"
    refute log =~ "the program #{@clock}"
    assert refused(context, "desk").code == :not_found
    assert {{:ok, "noon"}, ["create"]} = observe(context, Clock, "hour")
  end

  # Each record is its length, a checksum of that, one of what follows, and a map.
  defp without_modules(path) do
    "DSPex journal 1\n" <> records = File.read!(path)
    File.write!(path, ["DSPex journal 1\n", rewritten(records)])
  end

  defp rewritten(""), do: []

  defp rewritten(<<size::32, _check::32, _sum::32, payload::binary-size(size), rest::binary>>) do
    {:ok, record} = DSPex.Protocol.Codec.decode(payload)
    {:ok, payload} = DSPex.Protocol.Codec.encode(Map.delete(record, "tools_of"))
    size = byte_size(payload)
    head = <<size::32, :erlang.crc32(<<size::32>>)::32, :erlang.crc32(payload)::32>>
    [head, payload | rewritten(rest)]
  end
end
