defmodule DSPex.Adapter.Call do
  @moduledoc false
  # One call over any adapter, as telemetry tells of it.

  alias DSPex.{Error, Telemetry}

  @enforce_keys [:server, :method, :program, :number, :began]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          server: term(),
          method: String.t(),
          program: String.t() | nil,
          number: pos_integer(),
          began: integer()
        }

  @doc "A call from its start to its answer, which `request` waits for."
  @spec run(term(), String.t(), map(), (() -> DSPex.Adapter.result())) :: DSPex.Adapter.result()
  def run(server, method, params, request) do
    case start(server, method, params) do
      nil -> request.()
      call -> told(call, request)
    end
  end

  defp told(call, request) do
    result = request.()
    stop(call, result)
    result
  catch
    # A listener of the application's, which runs in this process.
    kind, reason ->
      stop(call, :closed)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  @doc "It begins. Where nobody listens it is `nil`, and its end is not told either."
  @spec start(term(), String.t(), map()) :: t() | nil
  def start(server, method, params) do
    if Telemetry.on?() do
      call = %__MODULE__{
        server: server,
        method: method,
        program: if(is_binary(params[:program]), do: params[:program]),
        number: System.unique_integer([:positive, :monotonic]),
        began: Telemetry.now()
      }

      Telemetry.emit(:call_start, %{system_time: System.system_time(:nanosecond)}, about(call))
      call
    end
  end

  @doc "It has been answered, or (`:closed`) nobody waits for that."
  @spec stop(t() | nil, DSPex.Adapter.result() | :closed) :: :ok
  def stop(nil, _result), do: :ok

  def stop(call, result) do
    about = about(call)
    with %{} = spent <- spent(result), do: tokens(spent, about)

    Telemetry.emit(
      :call_stop,
      %{duration: Telemetry.since(call.began)},
      Map.put(about, :outcome, outcome(result))
    )
  end

  defp about(call),
    do: %{server: call.server, method: call.method, program: call.program, call: call.number}

  defp outcome({:ok, _result}), do: :ok
  defp outcome({:error, %Error{code: code}}), do: code
  defp outcome(:closed), do: :closed

  # What was spent on a failure stands in its data.
  defp spent({:ok, %{"usage" => %{}} = result}), do: result
  defp spent({:error, %Error{data: %{"usage" => %{}} = data}}), do: data
  defp spent(_nothing), do: nil

  defp tokens(spent, about) do
    measurements =
      spent["usage"] |> DSPex.Usage.from_wire() |> Map.put(:cost_usd, spent["cost_usd"])

    Telemetry.emit(:tokens, measurements, Map.put(about, :lm, spent["lm"]))
  end
end
