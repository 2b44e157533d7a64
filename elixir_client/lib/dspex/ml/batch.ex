defmodule DSPex.ML.Batch do
  @moduledoc """
  Many inputs of one program, as a job that outlives the server; each is an execution, which
  `DSPex.ML.Execution.list/1` gives by `batch_id:`.

    * `:state` - `:queued`, `:running`, `:completed`, `:failed` or `:cancelled`. A batch is completed
      where all of its executions have ended, however they did.
    * `:total`, `:completed`, `:failed` - how many there are, and what came of those that have ended.
  """

  import DSPex.Arguments, only: [check: 2]

  alias DSPex.{Arguments, Error, Execution, Options, Progress}
  alias DSPex.ML.{Job, Program, Resource}
  alias DSPex.Server.Values

  @fields [
    id: :plain,
    program_id: :plain,
    revision: :plain,
    state: :state,
    total: :plain,
    completed: :plain,
    failed: :plain,
    attempts: :plain,
    error: :error,
    created_at: :time,
    started_at: :time,
    finished_at: :time
  ]

  @type t :: %__MODULE__{
          id: String.t(),
          program_id: String.t(),
          revision: pos_integer(),
          state: :queued | :running | :completed | :failed | :cancelled,
          total: pos_integer(),
          completed: non_neg_integer(),
          failed: non_neg_integer(),
          attempts: non_neg_integer(),
          error: Error.t() | nil,
          created_at: DateTime.t(),
          started_at: DateTime.t() | nil,
          finished_at: DateTime.t() | nil
        }

  defstruct Keyword.keys(@fields)

  @start_schema [
                  idempotency_key:
                    {:string, "of two starts with the same key the second is the first."}
                ] ++ Resource.timeout_schema()

  @await_schema [
    timeout: {:timeout, "milliseconds; the batch itself goes on after them.", :infinity},
    on_progress:
      {{:is, &Arguments.listener/1},
       "a function of a `DSPex.Progress`, called in this process each time it is asked for."}
  ]

  @doc """
  Starts one, of at most 10,000 inputs. Where the program's signature is known, one that does not fit it
  is an error here, and nothing is begun.

  #{Options.docs(@start_schema)}
  """
  @spec start(Program.t() | String.t(), [map()], keyword()) :: {:ok, t()} | {:error, Error.t()}
  def start(program, inputs, options \\ []) do
    with {:ok, options} <- check(options, @start_schema),
         {:ok, id} <- Resource.id(program, Program),
         signature = if(is_struct(program), do: program.signature),
         {:ok, inputs} <- dump(inputs, signature),
         {:ok, inputs} <- Values.to_json(inputs) do
      input = %{
        "program" => id,
        "inputs" => inputs,
        "idempotencyKey" => options[:idempotency_key]
      }

      arguments = [{"input", "BatchInput!", input}]
      Resource.change(__MODULE__, @fields, "executeBatch", arguments, options[:timeout])
    end
  end

  defp dump(inputs, signature) when is_list(inputs) do
    inputs
    |> Enum.with_index()
    |> Enum.reduce_while({:ok, []}, fn {values, at}, {:ok, done} ->
      with {:ok, values} <- Arguments.map(values, "inputs[#{at}]"),
           {:ok, values, none} when none == %{} <- Execution.dump_inputs(signature, values, %{}) do
        {:cont, {:ok, [values | done]}}
      else
        {:ok, _values, _config} ->
          {:halt,
           Arguments.invalid("inputs[#{at}]: a batch at a server has no parameters of LMs")}

        {:error, error} ->
          {:halt, {:error, %{error | message: "inputs[#{at}]: " <> error.message}}}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, Enum.reverse(done)}
      error -> error
    end
  end

  defp dump(_other, _signature), do: Arguments.invalid("inputs: expected a list of maps")

  @doc "The batch of an id, as it is now."
  @spec get(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def get(batch, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         do: Resource.get(__MODULE__, @fields, "batch", batch, timeout)
  end

  @doc """
  Waits until it has ended; see `DSPex.ML.OptimizationJob.await/2`.

  #{Options.docs(@await_schema)}
  """
  @spec await(t() | String.t(), keyword()) :: {:ok, t()} | {:error, Error.t()}
  def await(batch, options \\ []) do
    with {:ok, options} <- check(options, @await_schema),
         {:ok, id} <- Resource.id(batch, __MODULE__) do
      tell = options[:on_progress] || fn _progress -> :ok end

      look = &Resource.get(__MODULE__, @fields, "batch", id, &1)

      Job.await(look, options[:timeout], fn batch ->
        tell.(%Progress{step: batch.completed + batch.failed, total: batch.total})
      end)
    end
  end

  @doc "Ends it now; what has run stays."
  @spec cancel(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def cancel(batch, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         {:ok, id} <- Resource.id(batch, __MODULE__),
         arguments = [{"id", "ID!", id}],
         do: Resource.change(__MODULE__, @fields, "cancelJob", arguments, timeout)
  end
end
