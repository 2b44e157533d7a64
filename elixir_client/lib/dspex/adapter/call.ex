defmodule DSPex.Adapter.Call do
  @moduledoc false
  # One call over any adapter, as telemetry tells of it.

  alias DSPex.{Error, Telemetry}

  @enforce_keys [:about, :began]
  defstruct @enforce_keys

  @type t :: %__MODULE__{about: map(), began: integer()}

  @spec start(term(), String.t(), map()) :: t()
  def start(server, method, params) do
    about = %{
      server: server,
      method: method,
      program: if(is_binary(params[:program]), do: params[:program]),
      call: System.unique_integer([:positive, :monotonic])
    }

    Telemetry.emit(:call_start, %{system_time: System.system_time(:nanosecond)}, about)
    %__MODULE__{about: about, began: Telemetry.now()}
  end

  @doc "It has been answered, or (`:closed`) nobody waits for that."
  @spec stop(t(), DSPex.Adapter.result() | :closed) :: :ok
  def stop(%__MODULE__{about: about, began: began}, result) do
    with %{} = spent <- spent(result), do: tokens(spent, about)

    Telemetry.emit(
      :call_stop,
      %{duration: Telemetry.since(began)},
      Map.put(about, :outcome, outcome(result))
    )
  end

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
