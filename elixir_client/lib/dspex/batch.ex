defmodule DSPex.Batch do
  @moduledoc """
  What `DSPex.batch/4` gives.

    * `:results` - `{:ok, prediction}` or `{:error, error}` of each of the inputs, in their order.
    * `:usage`, `:cost_usd` - of all LM calls; the cost is `nil` where a price is not known.
    * `:duration_ms` - how long the bridge took.
  """

  import DSPex.Arguments

  alias DSPex.{Adapter, Arguments, Error, Execution, Options, Prediction, Progress, Usage}

  @type t :: %__MODULE__{
          results: [{:ok, Prediction.t()} | {:error, Error.t()}],
          usage: map(),
          cost_usd: float() | nil,
          duration_ms: number()
        }

  @enforce_keys [:results]
  defstruct [:results, :cost_usd, usage: Usage.none(), duration_ms: 0]

  @schema Execution.lm_schema() ++
            [
              max_concurrency:
                {{:integer, 1, 4096}, "how many run at one time; 16 where it is not given."},
              on_error:
                {:name,
                 "`:collect`: the others go on. `:halt`: after the first error nothing more is begun, " <>
                   "and what is not done is `:cancelled`."},
              on_item:
                {{:is, &__MODULE__.on_item/1},
                 "a function of an index and its result, called in this process as each is done. " <>
                   "Where it answers `:stop`, the rest is cancelled."},
              on_progress:
                {{:is, &Arguments.listener/1},
                 "a function of a `DSPex.Progress`, called in this process; `:stop` cancels."}
            ] ++
            Execution.meta_schema() ++
            [
              timeout:
                {:timeout, "milliseconds until the work is cancelled, or `:infinity`.", :infinity}
            ]

  @doc false
  @spec schema() :: Options.schema()
  def schema, do: @schema

  @doc false
  def on_item(fun) when is_function(fun, 2), do: {:ok, fun}
  def on_item(_other), do: {:error, "expected a function of an index and a result"}

  @doc false
  @spec run(atom(), term(), term(), keyword()) :: {:ok, t()} | {:error, Error.t()}
  def run(server, program, inputs, options) do
    with {:ok, options} <- check(options, @schema),
         {own, options} = Keyword.split(options, [:timeout, :on_item, :on_progress]),
         {:ok, id, signature, timeout} <- Execution.program(server, program, own[:timeout]),
         {:ok, checked} <- inputs(inputs, signature) do
      ready = for {{:ok, inputs}, _at} <- checked, do: inputs
      # By their places among those that are sent.
      places = for({{:ok, _inputs}, at} <- checked, do: at) |> List.to_tuple()
      refused = for {{:error, error}, at} <- checked, into: %{}, do: {at, {:error, error}}

      # Results come as they are done, each in a frame of its own: together they might be too large.
      params = Map.merge(Map.new(options), %{program: id, inputs: ready, results: false})
      own = Keyword.put(own, :timeout, timeout)
      collect(server, DSPex.Config.reveal(params), own, places, refused, signature)
    end
  end

  defp inputs(inputs, signature) when is_list(inputs) do
    inputs
    |> Enum.with_index()
    |> Enum.reduce_while({:ok, []}, fn {values, at}, {:ok, done} ->
      case map(values, "inputs[#{at}]") do
        {:ok, values} -> {:cont, {:ok, [{dump(signature, values), at} | done]}}
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, Enum.reverse(done)}
      error -> error
    end
  end

  defp inputs(_other, _signature), do: invalid("inputs: expected a list of maps")

  # One that does not fit is its own item's error, as in the bridge. Parameters of the LM belong to
  # the whole request there.
  defp dump(signature, values) do
    case Execution.dump_inputs(signature, values, %{}) do
      {:ok, inputs, none} when none == %{} ->
        {:ok, inputs}

      {:ok, _inputs, %{config: config}} ->
        names = config |> Map.keys() |> Enum.join(", ")
        invalid("in a batch the variables #{names} are the same for all: give them as config:")

      {:error, error} ->
        {:error, error}
    end
  end

  defp collect(server, params, own, places, results, signature) do
    # The listener runs in this process, and between two messages only it changes them.
    key = {__MODULE__, make_ref()}
    Process.put(key, results)

    listener = fn
      "item", %{"index" => index} = item when is_integer(index) and index < tuple_size(places) ->
        at = elem(places, index)
        result = result(item, signature)
        Process.put(key, Map.put(Process.get(key), at, result))
        if own[:on_item], do: own[:on_item].(at, result)

      "progress", progress ->
        if own[:on_progress], do: own[:on_progress].(Progress.from_wire(progress))

      _other, _params ->
        :ok
    end

    try do
      with {:ok, answer} <-
             Adapter.request(server, "batch", params, own[:timeout], listener: listener),
           do: batch(answer, Process.get(key), map_size(results) + tuple_size(places))
    after
      Process.delete(key)
    end
  end

  defp result(%{"ok" => answer}, signature), do: Execution.prediction(answer, signature)

  defp result(%{"error" => error} = item, _signature) do
    case Error.from_wire(error) do
      {:ok, error} -> {:error, error}
      :error -> unexpected("batch", item)
    end
  end

  defp result(item, _signature), do: unexpected("batch", item)

  defp batch(%{"duration_ms" => duration_ms} = answer, results, count) do
    # What on_error: :halt did not begin is told by nothing.
    cancelled = {:error, Error.new(:cancelled, "not begun: another input failed")}

    {:ok,
     %__MODULE__{
       results: for(at <- 0..(count - 1)//1, do: Map.get(results, at, cancelled)),
       usage: Usage.from_wire(answer["usage"]),
       cost_usd: answer["cost_usd"],
       duration_ms: duration_ms
     }}
  end

  defp batch(answer, _results, _count), do: unexpected("batch", answer)
end
