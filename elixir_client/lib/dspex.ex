defmodule DSPex do
  import DSPex.Arguments, only: [no_program: 1]

  alias DSPex.{
    Adapter,
    Async,
    Batch,
    Config,
    Error,
    Evaluation,
    Execution,
    Optimization,
    Options,
    Prediction,
    Program,
    Programs,
    Signature,
    StartOptions,
    Upkeep
  }

  @moduledoc """
  DSPy programs, run by a supervised Python process.

  Add an instance to the application's supervision tree; the library starts nothing by itself:

      children = [
        {DSPex,
         name: MyApp.DSPex,
         lms: [main: [model: "openai/gpt-5-mini", api_key: System.fetch_env!("OPENAI_API_KEY")]]}
      ]

  Then make a program of a signature (see `DSPex.Signature`) and run it:

      {:ok, program} = DSPex.create(MyApp.DSPex, "question -> answer")
      {:ok, prediction} = DSPex.execute(MyApp.DSPex, program, %{question: "Why is the sky blue?"})
      prediction["answer"]

  The name of the instance always comes first. Every function answers `{:ok, result}` or
  `{:error, %DSPex.Error{}}` (`delete/2`, `put_tools/3` and `restart/2` a bare `:ok`), exactly once, within its `:timeout` and a
  moment: 60 seconds where none is given or the function takes none, but for `batch/4`, `evaluate/4`
  and `optimize/4`, which take the time they need. The forms with `!` raise the error.

  ## When Python ends

  A Python that crashes, is killed or is stuck is started again, and told the configuration, and each
  program that was made before the first call for it. A call that had been sent and not answered is
  answered with the error `:connection_lost`; its `retryable` says whether it is safe to call again.
  Calls that come meanwhile wait, within their `:timeout`.

  Where Python cannot be made ready, calls are answered at once with `:start_failed` and the reason,
  while it is tried again, less and less often. The error is `retryable` where the reason may pass; not
  where the environment, a package or the command is missing. Where the bridge refuses the
  configuration (or this client's version of the protocol) it would refuse it again: then nothing is
  tried until `configure/2` gives another configuration or the instance is restarted.

  ## Options

  #{StartOptions.docs()}

  ## The journal

  With `journal: {:file, path}` programs, optimized ones included, and configurations that were made
  are in a file, and there after a restart of the node. No key is in it: an LM or embedder that was
  configured with a key, an address or `extra:` has to be given again. So have tools, which are functions:
  a program that is a module has those that it declares, any other is run once `put_tools/3` has given
  them. A module whose signature, or whose tools' names, are others than before is made anew, with a
  warning where an optimized state of it is no longer used. An LM whose fallbacks are not there is restored without them, with a warning. What the
  application gives at the start goes before what the file has. A file that is damaged is an error at
  the start, which says where; it is left as it is. So is one that another instance has, in this node
  or in another process of the machine.

  ## Forked workers

  With `fork: true` one more Python imports DSPy, and those of the workers are forked from it: one of
  them is ready in milliseconds, and shares most of its memory with the others. Everything else is as
  it is without. What is different: the end of that Python is the end of all workers at one time (they
  are back, with every program, once another has imported DSPy); NumPy has one thread in each; and where
  a package of the environment starts a thread when it is imported, there is no forking, and the error
  of each call says so.

  ## Several nodes

  With `cluster: true` the instances of one name on connected nodes are one pool: a call goes to the
  worker, wherever it is, that has least to do, and a program or configuration that is made on one node
  is known on all before it is confirmed. Nodes that were apart agree on what was changed last. All run
  the same release: functions travel between them, keys in such too, and tools and metrics run on the
  node of the worker.

  ## LMs

  An LM is the name of a model, or a keyword list (or map) of:

  #{Config.lm_docs()}

  Where an LM fails, after its retries, and not for what is wrong with the request itself, its
  `fallbacks:` are asked the same, in their order, each followed by its own; the prediction's `lm` is
  the one that answered. Where all have failed, the error is that of the last, and its `data["tried"]`
  has those before it, with the kind of each failure. A fallback that is no LM, or that leads back to
  where it began, has the bridge refuse the configuration.

      lms: [
        main: [model: "openai/gpt-5", fallbacks: [:local], limits: [max_cost_usd: 20]],
        local: [model: "ollama_chat/llama3.2", api_base: "http://localhost:11434"]
      ],
      limits: [max_tokens: 5_000_000, max_concurrency: 16]

  ## Limits

  Limits are of the same form for all of a Python, an LM, a program (`create/3`) and a call
  (`execute/4`); an LM call is under all that there are:

  #{DSPex.Limits.docs()}

  Where one of the first three is spent, calls are answered with `:budget_exceeded`; over the others
  they wait for their turn. `limits:` that are given later take the place of those before, and what is
  spent stays spent; `limits: []` ends them.

  Each Python keeps accounts of its own, which begin anew when it is started again: with `pool_size: 4`
  up to four times as much may be spent as limits say, and after a restart that much again. So it is
  with the nodes of a cluster. A ceiling that nothing may pass is the provider's to hold.

  ## Embedders

  An embedder makes vectors of texts. It is given as an LM is, with fewer options:

  #{Config.embedder_docs()}
  """

  @typedoc "The name of an instance."
  @type server :: atom()

  @typedoc "A program, its id, or a module that uses `DSPex.Program`."
  @type program :: Program.t() | String.t() | module()

  @typedoc "What `DSPex.Signature.fetch/1` takes."
  @type signature :: module() | String.t() | map() | Signature.t()

  @doc "A child specification for a supervisor. Raises `ArgumentError` for wrong options."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options) do
    # Checked here, so that what a supervisor holds, and tells in its reports, has no key in it.
    options = StartOptions.check!(options)

    %{
      id: Keyword.fetch!(options, :name),
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor
    }
  end

  @doc """
  Starts an instance, linked to the caller. See the module's documentation for the options.

  Returns at once: Python starts meanwhile, and calls wait for it. Where there is no such command
  the error is a `DSPex.Error` that says what to install. Raises `ArgumentError` for wrong options.
  """
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(options) do
    options = StartOptions.check!(options)
    name = Keyword.fetch!(options, :name)
    {configuration, options} = Keyword.split(options, Keyword.keys(Config.schema()))
    {adapter, options} = Keyword.pop!(options, :backend)
    Adapter.start_link(adapter, name, Map.new(configuration), Keyword.delete(options, :name))
  end

  @doc """
  Makes a program.

      DSPex.create(MyApp.DSPex, Triage, module: :chain_of_thought, demos: demos)
      DSPex.create(MyApp.DSPex, "question, context: list[str] -> answer", program: "qa")

  Options:

  #{Options.docs(Programs.create_schema())}
  """
  @spec create(server(), signature(), keyword()) :: {:ok, Program.t()} | {:error, Error.t()}
  def create(server, signature, options \\ []), do: Programs.create(server, signature, options)

  @doc false
  def create_options, do: Keyword.keys(Programs.create_schema())

  @doc "As `create/3`, but raises the error."
  @spec create!(server(), signature(), keyword()) :: Program.t()
  def create!(server, signature, options \\ []), do: bang!(create(server, signature, options))

  @doc """
  Runs a program.

      DSPex.execute(MyApp.DSPex, program, %{subject: "Invoice 17", body: body}, timeout: 10_000)

  Inputs have atom or string keys. The outputs are those of the signature and those that the module
  adds, such as `reasoning` of `:chain_of_thought` (see `DSPex.Prediction`). Options:

  #{Options.docs(Execution.execute_schema())}
  """
  @spec execute(server(), program(), map() | keyword(), keyword()) ::
          {:ok, Prediction.t()} | {:error, Error.t()}
  def execute(server, program, inputs, options \\ []) do
    # A module, its inputs and the options stand in the place of an instance, a program and inputs.
    if options == [] and inputs?(program),
      do: of_module(server, &Execution.execute(&1, server, program, inputs)),
      else: Execution.execute(server, program, inputs, options)
  end

  @doc """
  Runs a program that is a module (see `DSPex.Program`), in its own instance. With options it is
  `DSPex.execute(QABot, inputs, timeout: 10_000)`.
  """
  @spec execute(module(), map() | keyword()) :: {:ok, Prediction.t()} | {:error, Error.t()}
  def execute(module, inputs), do: of_module(module, &Execution.execute(&1, module, inputs, []))

  @doc "As `execute/4`, but raises the error."
  @spec execute!(server(), program(), map() | keyword(), keyword()) :: Prediction.t()
  def execute!(server, program, inputs, options \\ []),
    do: bang!(execute(server, program, inputs, options))

  @doc """
  Runs a program that is made for this one time and registered nowhere:

      DSPex.call(MyApp.DSPex, "question -> answer", question: "Why is the sky blue?")

  Options:

  #{Options.docs(Execution.call_schema())}
  """
  @spec call(server(), signature(), map() | keyword(), keyword()) ::
          {:ok, Prediction.t()} | {:error, Error.t()}
  def call(server, signature, inputs, options \\ []),
    do: Execution.call(server, signature, inputs, options)

  @doc "As `call/4`, but raises the error."
  @spec call!(server(), signature(), map() | keyword(), keyword()) :: Prediction.t()
  def call!(server, signature, inputs, options \\ []),
    do: bang!(call(server, signature, inputs, options))

  @doc """
  Begins to run a program, and goes on; `await/1` then waits for what comes of it. Options are those
  of `execute/4`.

      {:ok, first} = DSPex.async(MyApp.DSPex, program, %{question: "Why?"})
      {:ok, second} = DSPex.async(MyApp.DSPex, program, %{question: "Why not?"})
      Enum.map([first, second], &DSPex.await/1)
  """
  @spec async(server(), program(), map() | keyword(), keyword()) ::
          {:ok, Async.t()} | {:error, Error.t()}
  def async(server, program, inputs, options \\ []),
    do: Execution.async(server, program, inputs, options)

  @doc "Waits for what `async/4` began, in the process that began it, as long as its `:timeout` says."
  @spec await(Async.t()) :: {:ok, Prediction.t()} | {:error, Error.t()}
  def await(%Async{} = async), do: Async.await(async)

  @doc """
  Cancels what `async/4` began, from any process: who awaits it is answered with `:cancelled`, unless
  it had been answered already.
  """
  @spec cancel(Async.t()) :: :ok
  def cancel(%Async{} = async), do: Async.cancel(async)

  @doc """
  Runs a program and gives the text of its outputs while the LM writes it: a lazy enumerable of
  `DSPex.Chunk`s, whose last element is `{:ok, prediction}` or `{:error, error}`, as `execute/4` gives
  it.

      DSPex.stream(MyApp.DSPex, program, %{question: "Why is the sky blue?"}, fields: [:answer])
      |> Enum.each(fn
        %DSPex.Chunk{text: text} -> IO.write(text)
        {:ok, prediction} -> IO.inspect(prediction.usage)
        {:error, error} -> IO.puts(Exception.message(error))
      end)

  Each enumeration is an execution of its own, in the process that enumerates. One that is slow holds
  the bridge back: no more than `:window` chunks are under way, and the text gathers in the bridge.
  To stop enumerating, or to die, cancels the execution. `DSPex.stream(QABot, inputs, options)` is of a
  program that is a module. Options:

  #{Options.docs(Execution.stream_schema())}
  """
  @spec stream(server(), program(), map() | keyword(), keyword()) ::
          Enumerable.t()
  def stream(server, program, inputs, options \\ []) do
    if options == [] and inputs?(program),
      do: stream_of_module(server, program, inputs),
      else: Execution.stream(server, program, inputs, options)
  end

  @doc "As `stream/4`, of a program that is a module, in its own instance."
  @spec stream(module(), map() | keyword()) :: Enumerable.t()
  def stream(module, inputs), do: stream_of_module(module, inputs, [])

  defp stream_of_module(module, inputs, options) do
    with {:error, error} <- of_module(module, &Execution.stream(&1, module, inputs, options)),
         do: [{:error, error}]
  end

  @doc "As `stream/4`, but its last element is the prediction, and an error is raised."
  @spec stream!(server(), program(), map() | keyword(), keyword()) :: Enumerable.t()
  def stream!(server, program, inputs, options \\ []),
    do: server |> stream(program, inputs, options) |> Execution.raising()

  @doc "As `stream!/4`, of a program that is a module, in its own instance."
  @spec stream!(module(), map() | keyword()) :: Enumerable.t()
  def stream!(module, inputs), do: module |> stream(inputs) |> Execution.raising()

  @doc """
  Runs a program on many inputs, some at one time.

      {:ok, batch} = DSPex.batch(MyApp.DSPex, program, [%{question: "Why?"}, %{question: "How?"}])
      for {:ok, prediction} <- batch.results, do: prediction[:answer]

  `DSPex.batch(QABot, inputs, options)` runs a program that is a module. Options:

  #{Options.docs(Batch.schema())}
  """
  @spec batch(server(), program(), [map() | keyword()], keyword()) ::
          {:ok, Batch.t()} | {:error, Error.t()}
  def batch(server, program, inputs, options \\ []) do
    if options == [] and is_list(program),
      do: of_module(server, &Batch.run(&1, server, program, inputs)),
      else: Batch.run(server, program, inputs, options)
  end

  @doc "As `batch/4`, of a program that is a module, in its own instance."
  @spec batch(module(), [map() | keyword()]) :: {:ok, Batch.t()} | {:error, Error.t()}
  def batch(module, inputs), do: of_module(module, &Batch.run(&1, module, inputs, []))

  @doc """
  Scores a program by a metric (see `DSPex.Metric`) on examples `%{inputs: %{...}, outputs: %{...}}`.

      {:ok, evaluation} =
        DSPex.evaluate(MyApp.DSPex, program, devset,
          metric: fn example, prediction -> prediction.category == example.outputs.category end)
      evaluation.score

  `DSPex.evaluate(QABot, devset, options)` scores a program that is a module. Options:

  #{Options.docs(Evaluation.schema())}
  """
  @spec evaluate(server(), program(), [map()], keyword()) ::
          {:ok, Evaluation.t()} | {:error, Error.t()}
  def evaluate(server, program, devset, options \\ []) do
    if options == [] and is_list(program),
      do: of_module(server, &Evaluation.run(&1, server, program, devset)),
      else: Evaluation.run(server, program, devset, options)
  end

  @doc "As `evaluate/4`, of a program that is a module, in its own instance."
  @spec evaluate(module(), [map()]) :: {:ok, Evaluation.t()} | {:error, Error.t()}
  def evaluate(module, devset), do: of_module(module, &Evaluation.run(&1, module, devset, []))

  @doc """
  Makes a better program of one, by examples `%{inputs: %{...}, outputs: %{...}}` and a metric. The
  result's `program` is a new one, which a Python that is started later has too; the old one stays as
  it is.

      {:ok, optimization} = DSPex.optimize(QABot, trainset)

  does it with choices that suit most: the program's variables are searched where it has any, else
  demonstrations are found by `:bootstrap_few_shot_random_search`; the metric is that the outputs are
  those of the example. Or choose yourself:

      {:ok, optimization} =
        DSPex.optimize(MyApp.DSPex, program, trainset,
          optimizer: {:bootstrap_few_shot, max_bootstrapped_demos: 4},
          metric: {:exact_match, :category},
          on_progress: &IO.inspect(&1.message))

  `DSPex.optimize(QABot, trainset, options)` takes a program that is a module. Options:

  #{Options.docs(Optimization.schema())}
  """
  @spec optimize(server(), program(), [map()], keyword()) ::
          {:ok, Optimization.t()} | {:error, Error.t()}
  def optimize(server, program, trainset, options \\ []) do
    if options == [] and is_list(program),
      do: of_module(server, &Optimization.run(&1, server, program, trainset)),
      else: Optimization.run(server, program, trainset, options)
  end

  @doc "As `optimize/4`, of a program that is a module, in its own instance."
  @spec optimize(module(), [map()]) :: {:ok, Optimization.t()} | {:error, Error.t()}
  def optimize(module, trainset),
    do: of_module(module, &Optimization.run(&1, module, trainset, []))

  # A program that is a module says itself which instance runs it.
  defp of_module(module, run) do
    case Program.definition(module) do
      nil -> no_program(module)
      definition -> run.(definition.server)
    end
  end

  defp inputs?(%Program{}), do: false
  defp inputs?(term), do: is_map(term) or is_list(term)

  @doc """
  Gives a program functions for its tools, by their names: one that has come back from the file of a
  journal without them, which is not run before. All else of it stays as it is: its state, if it was
  optimized, and what the LM is told of each tool. It answers a bare `:ok`.

      DSPex.put_tools(MyApp.DSPex, "desk", [DSPex.Tool.new(:hour, "What time it is.", [], &MyApp.hour/1)])

  A program that is a module and declares its tools has them again by itself. A tool that the program
  has already is replaced; one that it does not know is an error.
  """
  @spec put_tools(server(), program(), [DSPex.Tool.t() | map()]) :: :ok | {:error, Error.t()}
  def put_tools(server, program, tools), do: Programs.put_tools(server, program, tools)

  @doc "Deletes a program. Work in flight on it finishes, without its tools."
  @spec delete(server(), program()) :: :ok | {:error, Error.t()}
  def delete(server, program), do: Programs.delete(server, program)

  @doc """
  The programs there are, each a map of `"program"`, `"module"`, `"signature"`, `"revision"` and
  `"executions"`. Options:

  #{Options.docs(Programs.list_schema())}
  """
  @spec list(server(), keyword()) :: {:ok, [map()]} | {:error, Error.t()}
  def list(server, options \\ []), do: Programs.list(server, options)

  @doc "All about a program: what it was made of, its demonstrations, counters and LM."
  @spec describe(server(), program()) :: {:ok, map()} | {:error, Error.t()}
  def describe(server, program), do: Programs.describe(server, program)

  @doc """
  The state of a program: a map, fit for JSON, of all that `load/3` needs to make it again, here or
  elsewhere. There is no key in it.
  """
  @spec dump(server(), program()) :: {:ok, map()} | {:error, Error.t()}
  def dump(server, program), do: Programs.dump(server, program)

  @doc """
  Writes the state of a program to a file of JSON in the folder that the bridge was given as
  `--state-dir`. Gives a map of `"path"` and `"bytes"`.
  """
  @spec save(server(), program(), String.t()) :: {:ok, map()} | {:error, Error.t()}
  def save(server, program, path), do: Programs.save(server, program, path)

  @doc """
  Makes a program of a state that `dump/2` gave, or of the file that `save/3` wrote, named by its
  path. Options:

  #{Options.docs(Programs.load_schema())}
  """
  @spec load(server(), map() | String.t(), keyword()) :: {:ok, Program.t()} | {:error, Error.t()}
  def load(server, state, options \\ []), do: Programs.load(server, state, options)

  @doc "As `load/3`, but raises the error."
  @spec load!(server(), map() | String.t(), keyword()) :: Program.t()
  def load!(server, state, options \\ []), do: bang!(load(server, state, options))

  @doc """
  Changes the configuration: LMs and embedders are added or replaced by name. Gives the configuration
  that is now in force, with its keys masked; a Python that is started later gets it too. Where the
  bridge has refused the configuration before, Python is started again with the changed one. Options:

  #{Options.docs(Upkeep.configure_schema())}
  """
  @spec configure(server(), keyword()) :: {:ok, map()} | {:error, Error.t()}
  def configure(server, options), do: Upkeep.configure(server, options)

  @doc """
  Asks the bridge for a sign of life; gives the payload back. The first one waits for Python.
  Options:

  #{Options.docs(Upkeep.ping_schema())}
  """
  @spec ping(server(), keyword()) :: {:ok, term()} | {:error, Error.t()}
  def ping(server, options \\ []), do: Upkeep.ping(server, options)

  @doc """
  The workers of an instance, a list of maps:

    * `:worker` - its number, from 1.
    * `:pid` - the process that owns its Python; to monitor or, in a test, to end.
    * `:os_pid` - its Python's, `nil` where there is none now.
    * `:node` - where it is.
    * `:status` - `:ready`; `:suspect` while a sign of life is overdue; `:starting`; `:draining` while
      it is to be replaced; `:down` where Python cannot be made ready.
    * `:in_flight` - the calls that it has.
  """
  @spec workers(server()) :: {:ok, [map()]} | {:error, Error.t()}
  def workers(server), do: Adapter.workers(server)

  @doc """
  Replaces the Python of every worker, one after the other, without losing a call: each is replaced
  once what it works on is answered, while the others take its calls (those of a single worker wait).
  Programs and configuration stay. Answers when the last one is ready; where one cannot be made ready
  it answers the reason, and those after it go on as they are.

  With `:drain_timeout`, in milliseconds, calls that take longer end as `:connection_lost`; without
  it they are waited for however long they take.
  """
  @spec restart(server(), keyword()) :: :ok | {:error, Error.t()}
  def restart(server, options \\ []), do: Upkeep.restart(server, options)

  @doc "Counters of the bridge: requests, work in flight, LMs with tokens and cost, memory."
  @spec stats(server()) :: {:ok, map()} | {:error, Error.t()}
  def stats(server), do: Upkeep.stats(server)

  defp bang!({:ok, result}), do: result
  defp bang!({:error, error}), do: raise(error)
end
