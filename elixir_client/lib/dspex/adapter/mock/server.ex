defmodule DSPex.Adapter.Mock.Server do
  @moduledoc false
  # The process of a mock: who owns what, the answers that are left, the calls so far, and the requests
  # under way, each in a task of its own.

  use GenServer

  require Logger

  alias DSPex.Adapter.Mock.{Bridge, Exchange, Store}
  alias DSPex.{Config, Error}

  defstruct [:instance, :tasks, owners: %{}, scripts: %{}, stubs: %{}, calls: %{}, by_ref: %{}]

  @spec start_link(atom(), map()) :: Supervisor.on_start()
  def start_link(instance, configuration) do
    {:ok, configuration} = Exchange.through_wire(Config.reveal(configuration))
    # A supervisor's reports show what it starts a child with.
    configuration = Store.without_keys(configuration)

    children = [
      {Task.Supervisor, name: tasks(instance)},
      %{id: __MODULE__, start: {__MODULE__, :start_server, [instance, configuration]}}
    ]

    Supervisor.start_link(children, strategy: :one_for_all, name: instance)
  end

  @doc false
  def start_server(instance, configuration),
    do: GenServer.start_link(__MODULE__, {instance, configuration}, name: name(instance))

  @spec whereis(term()) :: {:ok, pid()} | {:error, Error.t()}
  def whereis(instance) do
    case is_atom(instance) and Process.whereis(name(instance)) do
      pid when is_pid(pid) ->
        {:ok, pid}

      _nobody ->
        text =
          "no DSPex instance named #{inspect(instance)} is running; add {DSPex, name: " <>
            "#{inspect(instance)}, backend: DSPex.Adapter.Mock} to the children of a supervisor"

        {:error, Error.new(:not_started, text)}
    end
  end

  @spec call(atom(), tuple()) :: term()
  def call(instance, message) do
    case whereis(instance) do
      {:ok, pid} -> GenServer.call(pid, message)
      {:error, error} -> raise error
    end
  end

  defp name(instance), do: Module.concat(instance, "MockServer")
  defp tasks(instance), do: Module.concat(instance, "MockTasks")

  @impl true
  def init({instance, configuration}) do
    Store.new(instance)
    Store.put_configuration(instance, :shared, configuration)
    {:ok, %__MODULE__{instance: instance, tasks: tasks(instance)}}
  end

  @impl true
  def handle_call({:checkout, pid}, _from, state) do
    state = forget_owner(state, pid)
    Store.put_owner(state.instance, pid, pid)
    {:reply, :ok, %{state | owners: Map.put(state.owners, pid, Process.monitor(pid))}}
  end

  def handle_call({:allow, pid, owner}, _from, state),
    do: {:reply, Store.put_owner(state.instance, pid, owner), state}

  def handle_call({:script, owner, program, answers}, _from, state) do
    scripts = Map.update(state.scripts, {owner, program}, answers, &(&1 ++ answers))
    {:reply, :ok, %{state | scripts: scripts}}
  end

  def handle_call({:stub, owner, program, answer}, _from, state),
    do: {:reply, :ok, %{state | stubs: Map.put(state.stubs, {owner, program}, answer)}}

  def handle_call({:calls, owner}, _from, state),
    do: {:reply, state.calls |> Map.get(owner, []) |> Enum.reverse(), state}

  # The answer to an execution: of a script it is taken. What an owner has goes before what all share,
  # and what is for a program before what is for any.
  def handle_call({:take, owner, program}, _from, state) do
    keys = for who <- Enum.uniq([owner, :shared]), what <- [program, :any], do: {who, what}

    case Enum.find(keys, &(Map.get(state.scripts, &1, []) != [])) do
      nil ->
        stub = Enum.find(keys, &is_map_key(state.stubs, &1))
        {:reply, if(stub, do: {:ok, state.stubs[stub]}, else: :none), state}

      key ->
        {answer, scripts} =
          Map.get_and_update!(state.scripts, key, fn [one | rest] -> {one, rest} end)

        {:reply, {:ok, answer}, %{state | scripts: scripts}}
    end
  end

  @impl true
  def handle_cast({:request, request}, state) do
    call = %{
      method: request.method,
      program: program_id(request.params),
      params: without_keys(request.params),
      from: request.caller
    }

    state = %{state | calls: Map.update(state.calls, request.owner, [call], &[call | &1])}
    instance = state.instance

    task =
      Task.Supervisor.async_nolink(state.tasks, fn ->
        # What a scripted function calls belongs to the same owner.
        Process.put(:"$callers", List.delete([request.owner], :shared))
        Logger.metadata(request.logger ++ [dspex_server: instance])
        Bridge.answer(instance, request)
      end)

    work = %{request: request, task: task, monitor: Process.monitor(request.caller)}

    by_ref =
      Map.merge(state.by_ref, %{
        request.ref => work,
        task.ref => request.ref,
        work.monitor => request.ref
      })

    {:noreply, %{state | by_ref: by_ref}}
  end

  def handle_cast({:grant, ref, n}, state) do
    with %{^ref => %{task: task}} <- state.by_ref, do: send(task.pid, {:grant, n})
    {:noreply, state}
  end

  def handle_cast({:cancel, ref}, state),
    do: {:noreply, stop(state, ref, Error.new(:cancelled, "the request was cancelled"))}

  def handle_cast({:abandon, ref}, state), do: {:noreply, stop(state, ref, nil)}

  @impl true
  def handle_info({task_ref, result}, state) when is_map_key(state.by_ref, task_ref) do
    ref = state.by_ref[task_ref]
    %{request: request} = state.by_ref[ref]

    with {:ok, _value} <- result, %{entry: entry} when entry != nil <- request do
      # Before the answer is known it is written down.
      Store.record(state.instance, request.owner, entry)
    end

    send(ref, {ref, {:answer, result}})
    {:noreply, forget(state, ref)}
  end

  def handle_info({:DOWN, ref, :process, pid, reason}, state) do
    case state.by_ref do
      %{^ref => request} when is_map_key(state.by_ref, request) ->
        {:noreply, ended(state, ref, request, reason)}

      %{} ->
        if state.owners[pid] == ref,
          do: {:noreply, forget_owner(state, pid)},
          else: {:noreply, state}
    end
  end

  def handle_info(_stale, state), do: {:noreply, state}

  # The end of a task that had no answer, or of the caller.
  defp ended(state, monitor, ref, reason) do
    case state.by_ref[ref] do
      %{monitor: ^monitor} ->
        stop(state, ref, nil)

      _work ->
        text = "the answer ended early: #{inspect(reason, limit: 20, printable_limit: 200)}"
        stop(state, ref, Error.new(:internal_error, text))
    end
  end

  defp stop(state, ref, error) do
    case state.by_ref do
      %{^ref => %{task: task}} ->
        Process.exit(task.pid, :kill)
        if error, do: send(ref, {ref, {:answer, {:error, error}}})
        forget(state, ref)

      %{} ->
        state
    end
  end

  defp forget(state, ref) do
    %{task: task, monitor: monitor} = state.by_ref[ref]
    Process.demonitor(task.ref, [:flush])
    Process.demonitor(monitor, [:flush])
    %{state | by_ref: Map.drop(state.by_ref, [ref, task.ref, monitor])}
  end

  defp forget_owner(state, owner) do
    if monitor = state.owners[owner], do: Process.demonitor(monitor, [:flush])
    Store.drop(state.instance, owner)
    others = fn map -> Map.reject(map, fn {{who, _program}, _value} -> who == owner end) end

    %{
      state
      | owners: Map.delete(state.owners, owner),
        scripts: others.(state.scripts),
        stubs: others.(state.stubs),
        calls: Map.delete(state.calls, owner)
    }
  end

  # What a test prints is read by many.
  defp without_keys(params) do
    Map.new(params, fn
      {key, models} when key in ["lms", "embedders"] and is_map(models) ->
        {key, Map.new(models, fn {name, model} -> {name, without_key(model)} end)}

      {"lm", lm} ->
        {"lm", without_key(lm)}

      other ->
        other
    end)
  end

  defp without_key(%{} = model), do: Map.drop(model, ["api_key", "api_base", "extra"])
  defp without_key(name), do: name

  defp program_id(%{"program" => id}) when is_binary(id), do: id
  defp program_id(_params), do: nil
end
