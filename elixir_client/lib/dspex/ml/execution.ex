defmodule DSPex.ML.Execution do
  @moduledoc """
  One run of a program at a server: its row, which is there before anything runs.

    * `:state` - `:pending`, `:running`, `:completed`, `:failed` or `:cancelled`.
    * `:inputs`, `:outputs` - by name, under strings; the outputs of `DSPex.ML.Program.execute/3` as its
      program's signature has them.
    * `:error` - why it failed.
    * `:batch_id`, `:batch_index` - of which `DSPex.ML.Batch` it is, and the place of its inputs there.
  """

  import DSPex.Arguments, only: [check: 2]

  alias DSPex.{Error, Options, Signature}
  alias DSPex.ML.{Page, Resource}

  @fields [
    id: :plain,
    program_id: :plain,
    revision: :plain,
    state: :state,
    inputs: :values,
    outputs: :values,
    error: :error,
    lm: :plain,
    prompt_tokens: :plain,
    completion_tokens: :plain,
    total_tokens: :plain,
    cost_usd: :plain,
    duration_ms: :plain,
    cached: :plain,
    trace_id: :plain,
    batch_id: :plain,
    batch_index: :plain,
    created_at: :time,
    started_at: :time,
    finished_at: :time
  ]

  @type t :: %__MODULE__{
          id: String.t(),
          program_id: String.t(),
          revision: pos_integer(),
          state: :pending | :running | :completed | :failed | :cancelled,
          inputs: map(),
          outputs: map() | nil,
          error: Error.t() | nil,
          lm: String.t() | nil,
          prompt_tokens: non_neg_integer(),
          completion_tokens: non_neg_integer(),
          total_tokens: non_neg_integer(),
          cost_usd: float() | nil,
          duration_ms: number() | nil,
          cached: boolean() | nil,
          trace_id: String.t() | nil,
          batch_id: String.t() | nil,
          batch_index: non_neg_integer() | nil,
          created_at: DateTime.t(),
          started_at: DateTime.t() | nil,
          finished_at: DateTime.t() | nil
        }

  defstruct Keyword.keys(@fields)

  @list_schema [
                 program_id: {:string, "of this program, by its id."},
                 revision: {{:integer, 1, :infinity}, "of this revision."},
                 state: {{:is, &Resource.states/1}, "in this state, or in one of these."},
                 batch_id: {:string, "of this batch."},
                 trace_id: {:string, "of this trace."},
                 created_after: {{:is, &__MODULE__.time/1}, "made later than this `DateTime`."},
                 created_before: {{:is, &__MODULE__.time/1}, "made earlier than this `DateTime`."}
               ] ++ Resource.page_schema()

  @doc false
  def time(%DateTime{} = time), do: {:ok, time}
  def time(_other), do: {:error, "expected a DateTime"}

  @doc "The execution of an id, as it is now."
  @spec get(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def get(execution, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         do: Resource.get(__MODULE__, @fields, "execution", execution, timeout)
  end

  @doc """
  The executions that there are, the newest first.

  #{Options.docs(@list_schema)}
  """
  @spec list(keyword()) :: {:ok, Page.t(t())} | {:error, Error.t()}
  def list(options \\ []) do
    with {:ok, options} <- check(options, @list_schema) do
      filter =
        Resource.filter(
          options,
          Keyword.keys(@list_schema) -- Keyword.keys(Resource.page_schema())
        )

      Resource.list(
        __MODULE__,
        @fields,
        "executions",
        [{"filter", "ExecutionFilter", filter}],
        options
      )
    end
  end

  @doc "Ends it now. One that has ended is `:wrong_state`."
  @spec cancel(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def cancel(execution, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         {:ok, id} <- Resource.id(execution, __MODULE__),
         arguments = [{"id", "ID!", id}],
         do: Resource.change(__MODULE__, @fields, "cancelExecution", arguments, timeout)
  end

  @doc false
  @spec member() :: String.t()
  def member, do: "... on Execution { #{Resource.selection(@fields)} }"

  @doc false
  @spec load(map()) :: {:ok, t()} | {:error, Error.t()}
  def load(map), do: Resource.load(__MODULE__, @fields, map)

  @doc false
  # What came of it: itself with its outputs as the signature has them, or why it has none.
  @spec outcome(t(), Signature.t() | nil) :: {:ok, t()} | {:error, Error.t()}
  def outcome(%__MODULE__{state: :completed} = execution, signature) do
    with {:ok, outputs} <- DSPex.Execution.load_outputs(signature, execution.outputs),
         do: {:ok, %{execution | outputs: outputs}}
  end

  def outcome(%__MODULE__{error: nil} = execution, _signature),
    do: {:error, of_row(Error.new(:cancelled, "the execution was cancelled"), execution)}

  def outcome(%__MODULE__{error: error} = execution, _signature),
    do: {:error, of_row(error, execution)}

  defp of_row(error, execution),
    do: %{error | data: Map.put(error.data, "execution_id", execution.id)}
end
