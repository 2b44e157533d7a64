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

  @spec start(term(), String.t(), map()) :: t()
  def start(server, method, params) do
    call = %__MODULE__{
      server: server,
      method: method,
      program: if(is_binary(params[:program]), do: params[:program]),
      number: System.unique_integer([:positive, :monotonic]),
      began: Telemetry.now()
    }

    if Telemetry.on?(),
      do:
        Telemetry.emit(:call_start, %{system_time: System.system_time(:nanosecond)}, about(call))

    call
  end

  @doc "It has been answered, or (`:closed`) nobody waits for that."
  @spec stop(t(), DSPex.Adapter.result() | :closed) :: :ok
  def stop(call, result), do: if(Telemetry.on?(), do: stopped(call, result), else: :ok)

  defp stopped(call, result) do
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
