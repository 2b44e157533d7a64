defmodule DSPex.Connection.News do
  @moduledoc false
  # What a connection tells to telemetry and to the log of its Python and its calls.

  require Logger

  alias DSPex.Connection.{Calls, Python, State}
  alias DSPex.Telemetry

  # Levels as the wire has them. Nothing else becomes one.
  @levels %{"debug" => :debug, "info" => :info, "warning" => :warning, "error" => :error}

  @spec started(map()) :: :ok
  def started(state) do
    Telemetry.emit(:python_start, %{failures: state.failures}, python(state))
  end

  @spec ready(map()) :: :ok
  def ready(state) do
    duration = Telemetry.since(state.python.began)
    Telemetry.emit(:python_ready, %{duration: duration}, python(state))
  end

  @doc "A Python that was ready has ended; the state is that before its end."
  @spec ended(map(), String.t()) :: :ok
  def ended(state, reason) do
    lost = State.written(state)
    Telemetry.emit(:python_stop, %{lost: lost}, Map.put(python(state), :reason, reason))
  end

  @spec failed(map(), String.t(), pos_integer() | nil) :: :ok
  def failed(state, reason, retry_in_ms) do
    about = %{
      server: server(state),
      worker: state.worker,
      reason: reason,
      retry_in_ms: retry_in_ms
    }

    Telemetry.emit(:python_failed, %{failures: state.failures + 1}, about)
  end

  @spec full(map(), String.t()) :: :ok
  def full(state, method) do
    measurements = %{bytes: state.outbox.bytes, length: Calls.count(state.calls)}

    Telemetry.emit(:queue_full, measurements, %{
      server: server(state),
      worker: state.worker,
      method: method
    })
  end

  @doc "These have been written; the state is that in which they have."
  @spec written(map(), [Calls.id()]) :: :ok
  def written(state, ids) do
    if Telemetry.on?(), do: Enum.each(ids, &one_written(state, &1)), else: :ok
  end

  defp one_written(state, id) do
    {:ok, call} = Calls.fetch(state.calls, id)

    Telemetry.emit(
      :queue_written,
      %{
        duration: Telemetry.since(call.since),
        bytes: state.outbox.bytes,
        length: Calls.count(state.calls)
      },
      %{server: server(state), worker: state.worker, method: call.method, request: id}
    )
  end

  @doc "What Python logs or prints, with the metadata of the call that it belongs to."
  @spec log(map(), map()) :: :ok
  def log(state, params) do
    level = Map.get(@levels, params["level"], :info)

    Logger.log(level, fn ->
      {"Python (pid #{state.python.os_pid}): #{text(params["message"])}",
       of_call(state, params["request"]) ++
         [dspex_server: server(state), dspex_logger: text(params["logger"])]}
    end)
  end

  defp of_call(state, id) when is_integer(id) do
    case Calls.fetch(state.calls, id) do
      {:ok, call} -> Keyword.put(call.logger, :dspex_request, id)
      # It has been answered.
      :error -> [dspex_request: id]
    end
  end

  defp of_call(_state, _no_request), do: []

  defp python(state),
    do: %{server: server(state), worker: state.worker, os_pid: os_pid(state.python)}

  defp os_pid(%Python{os_pid: os_pid}), do: os_pid

  defp server(state), do: state.callbacks.context.server

  defp text(value) when is_binary(value), do: value
  defp text(value), do: inspect(value, limit: 20, printable_limit: 200)
end
