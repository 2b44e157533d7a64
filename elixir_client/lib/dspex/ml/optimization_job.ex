defmodule DSPex.ML.OptimizationJob do
  @moduledoc """
  A search for a better revision of a program, which outlives the server: after its end, however it
  came, it goes on where it was.

    * `:state` - `:queued`, `:running`, `:completed`, `:failed` or `:cancelled`.
    * `:revision` - the one that it began with, `:result_revision` the one that it made.
    * `:score`, `:base_score` - of these two.
    * `:progress` - the last that was told while it ran: a `DSPex.Progress`.
  """

  import DSPex.Arguments, only: [check: 2]

  alias DSPex.{Error, Limits, Metric, Optimization, Options, Progress}
  alias DSPex.ML.{Dataset, Job, Page, Program, Resource}
  alias DSPex.Server.Values

  @fields [
    id: :plain,
    program_id: :plain,
    revision: :plain,
    state: :state,
    optimizer: :plain,
    metric: :plain,
    dataset_id: :plain,
    progress: :values,
    score: :plain,
    base_score: :plain,
    result_revision: :plain,
    total_tokens: :plain,
    cost_usd: :plain,
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
          optimizer: map(),
          metric: map() | nil,
          dataset_id: String.t() | nil,
          progress: Progress.t() | nil,
          score: float() | nil,
          base_score: float() | nil,
          result_revision: pos_integer() | nil,
          total_tokens: non_neg_integer(),
          cost_usd: float() | nil,
          attempts: non_neg_integer(),
          error: Error.t() | nil,
          created_at: DateTime.t(),
          started_at: DateTime.t() | nil,
          finished_at: DateTime.t() | nil
        }

  defstruct Keyword.keys(@fields)

  @start_schema [
                  optimizer:
                    {{:is, &Optimization.optimizer/1},
                     "its name, or `{name, parameters}`, as in `DSPex.optimize/4`.",
                     {:bootstrap_few_shot_random_search, %{}}},
                  dataset:
                    {:any,
                     "the examples: a `DSPex.ML.Dataset`, its id, or its name for the newest."},
                  valset: {:any, "those to choose by; the dataset where there are none."},
                  metric:
                    {{:is, &Metric.option/1},
                     "see `DSPex.Metric`; named, or a judge: the server calls no functions of Elixir."},
                  seed:
                    {{:integer, 0, 0x7FFF_FFFF},
                     "the same seed and answers give the same program."},
                  limits: {{:is, &Limits.option/1}, "ceilings of its LM calls."},
                  on_stop:
                    {:name,
                     "`:discard`, or `:best`: one out of budget gives the best program so far."},
                  idempotency_key:
                    {:string, "of two starts with the same key the second is the first."}
                ] ++ Resource.timeout_schema()

  @await_schema [
    timeout: {:timeout, "milliseconds; the job itself goes on after them.", :infinity},
    on_progress:
      {{:is, &DSPex.Arguments.listener/1},
       "a function of a `DSPex.Progress`, called in this process when there is another one."}
  ]

  @list_schema [
                 program_id: {:string, "of this program, by its id."},
                 state: {{:is, &Resource.states/1}, "in this state, or in one of these."}
               ] ++ Resource.page_schema()

  @doc """
  Starts one: it is in the server's queue. What is wrong with it is told now, before anything is paid.

      {:ok, job} =
        DSPex.ML.OptimizationJob.start(program,
          dataset: "mails",
          metric: {:exact_match, :category},
          optimizer: {:labeled_few_shot, k: 4}
        )

  #{Options.docs(@start_schema)}
  """
  @spec start(Program.t() | String.t(), keyword()) :: {:ok, t()} | {:error, Error.t()}
  def start(program, options \\ []) do
    with {:ok, options} <- check(options, @start_schema),
         {:ok, id} <- Resource.id(program, Program),
         {:ok, dataset} <- Resource.optional_id(options[:dataset], Dataset),
         {:ok, valset} <- Resource.optional_id(options[:valset], Dataset),
         {:ok, metric} <- metric(options[:metric]),
         {name, params} = options[:optimizer],
         {:ok, plain} <-
           Values.to_plain(%{
             optimizer: name,
             params: params,
             metric: metric,
             limits: options[:limits]
           }) do
      own = %{
        "program" => id,
        "dataset" => dataset,
        "valset" => valset,
        "seed" => options[:seed],
        "onStop" => options[:on_stop],
        "idempotencyKey" => options[:idempotency_key]
      }

      arguments = [{"input", "OptimizeInput!", Map.merge(plain, own)}]
      timeout = options[:timeout]
      started(Resource.change(__MODULE__, @fields, "optimizeProgram", arguments, timeout))
    end
  end

  defp metric(nil), do: {:ok, nil}

  defp metric(metric) do
    case Metric.to_wire(metric, nil) do
      {:ok, wire, functions} when functions == %{} ->
        {:ok, wire}

      {:ok, _wire, _functions} ->
        text =
          "option :metric: a server calls no functions of Elixir: take a metric by its name, or a judge"

        DSPex.Arguments.invalid(text)

      {:error, error} ->
        {:error, error}
    end
  end

  @doc "As `start/2`, but raises the error."
  @spec start!(Program.t() | String.t(), keyword()) :: t()
  def start!(program, options \\ []), do: program |> start(options) |> Resource.bang!()

  @doc "The job of an id, as it is now: how far it is stands in its `:progress`."
  @spec get(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def get(job, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         do: started(Resource.get(__MODULE__, @fields, "optimizationJob", job, timeout))
  end

  @doc """
  Waits until it has ended: the job where it has completed, the error with which it failed, or
  `:cancelled`. A server that is restarted meanwhile is waited for, as is one that takes the job over.

  #{Options.docs(@await_schema)}
  """
  @spec await(t() | String.t(), keyword()) :: {:ok, t()} | {:error, Error.t()}
  def await(job, options \\ []) do
    with {:ok, options} <- check(options, @await_schema),
         {:ok, id} <- Resource.id(job, __MODULE__) do
      look = &started(Resource.get(__MODULE__, @fields, "optimizationJob", id, &1))
      Job.await(look, options[:timeout], teller(options[:on_progress]))
    end
  end

  # The last one that was told of is kept where it was told: in this process.
  defp teller(nil), do: fn _job -> :ok end

  defp teller(fun) do
    last = :counters.new(1, [])

    fn %{progress: progress} ->
      digest = :erlang.phash2(progress) + 1

      if progress != nil and :counters.get(last, 1) != digest do
        :counters.put(last, 1, digest)
        fun.(progress)
      end
    end
  end

  @doc "As `await/2`, but raises the error."
  @spec await!(t() | String.t(), keyword()) :: t()
  def await!(job, options \\ []), do: job |> await(options) |> Resource.bang!()

  @doc "Ends it now. One that has ended is `:wrong_state`."
  @spec cancel(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def cancel(job, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         {:ok, id} <- Resource.id(job, __MODULE__),
         arguments = [{"id", "ID!", id}],
         do: started(Resource.change(__MODULE__, @fields, "cancelJob", arguments, timeout))
  end

  @doc """
  The jobs that there are, the newest first.

  #{Options.docs(@list_schema)}
  """
  @spec list(keyword()) :: {:ok, Page.t(t())} | {:error, Error.t()}
  def list(options \\ []) do
    with {:ok, options} <- check(options, @list_schema),
         filter = {"filter", "JobFilter", Resource.filter(options, [:program_id, :state])},
         {:ok, page} <- Resource.list(__MODULE__, @fields, "optimizationJobs", [filter], options),
         do: {:ok, %{page | entries: Enum.map(page.entries, &progressed/1)}}
  end

  defp started({:ok, job}), do: {:ok, progressed(job)}
  defp started(error), do: error

  defp progressed(%{progress: %{} = progress} = job),
    do: %{job | progress: Progress.from_wire(progress)}

  defp progressed(job), do: job
end
