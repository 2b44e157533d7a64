defmodule DSPex do
  alias DSPex.{
    Chunk,
    Command,
    Config,
    Error,
    Instance,
    Options,
    Prediction,
    Program,
    Signature,
    Tool
  }

  # A first call waits for Python and DSPy to start, and an LM may think for long.
  @default_timeout 60_000

  @default_max_frame_bytes 16 * 1024 * 1024

  # What the bridge demands of a client: it could not send an error to one that takes less.
  @min_max_frame_bytes 4096

  # Room for one of the largest requests, and for thousands of usual ones. What was refused may take as
  # much again until the connection's garbage is collected, and all of it is to stay below 64 MiB.
  @default_max_queued_bytes 16 * 1024 * 1024

  # More tools and metrics at one time than an LM's provider answers requests, and a small part of
  # the processes that a node has by default.
  @default_max_callbacks 1000

  @start_schema [
                  name: {:atom, "what the functions of this module call the instance.", DSPex}
                ] ++
                  Config.schema() ++
                  [
                    command:
                      {:command,
                       "how the bridge is started: a list of the executable and its arguments. " <>
                         "Without it the environment variable `DSPEX_BRIDGE` says so (a command " <>
                         "line), and without that it is `dspex bridge`, looked up in `PATH`."},
                    max_frame_bytes:
                      {{:integer, @min_max_frame_bytes, :infinity},
                       "the longest answer that is accepted, in bytes, from " <>
                         "#{@min_max_frame_bytes}.", @default_max_frame_bytes},
                    max_queued_bytes:
                      {{:integer, 1, :infinity},
                       "how many bytes of requests may wait to be written; a call beyond them is " <>
                         "answered with `:overloaded` at once.", @default_max_queued_bytes},
                    max_callbacks:
                      {{:integer, 1, :infinity},
                       "how many tools and metrics of the application may run at one time; one " <>
                         "beyond them fails with `:overloaded`, which its program observes.",
                       @default_max_callbacks},
                    start_timeout:
                      {:timeout, "how long Python may take until it is ready, in milliseconds.",
                       60_000}
                  ]

  @timeout {:timeout, "milliseconds until the work is cancelled, or `:infinity`.",
            @default_timeout}

  @create_schema [
    program: {:name, "the program's id; one is made where there is none."},
    module: {:name, "`:predict` (the default), `:chain_of_thought` or `:react`."},
    options: {:map, "parameters of the module: `max_iters:` of `:react`."},
    lm: {:name, "the name of the LM that it uses, one of `lms:`."},
    adapter: {:name, "`:chat`, `:json` or `:xml`."},
    config: {:map, "parameters of the LM, such as `temperature:`."},
    instructions: {:string, "in place of the signature's own."},
    demos: {:list, "demonstrations: a list of `%{inputs: %{...}, outputs: %{...}}`."},
    tools: {{:is, &Tool.list/1}, "functions that `:react` may call: a list of `DSPex.Tool`s."},
    replace: {:boolean, "whether a program of that id is replaced."},
    timeout: @timeout
  ]

  @execute_schema [
    lm:
      {{:is, &__MODULE__.lm_or_name/1}, "the name of an LM, or the options of one for this call."},
    adapter: {:name, "`:chat`, `:json` or `:xml`."},
    config: {:map, "parameters of the LM, such as `temperature:`."},
    meta:
      {:map, "a map of your own, which its tools find in their context; with string keys there."},
    timeout: @timeout
  ]

  @stream_schema Keyword.delete(@execute_schema, :timeout) ++
                   [
                     fields:
                       {:list,
                        "the outputs whose text is wanted, as names; all where none are given."},
                     window:
                       {{:integer, 1, 1_000_000},
                        "how many chunks may be under way to a consumer that does not take them.",
                        DSPex.Stream.default_window()},
                     timeout: @timeout
                   ]

  @load_schema [
    program: {:name, "the id to have it under; one is made where there is none."},
    tools:
      {{:is, &Tool.list/1},
       "the functions of the state's tools, which it has by name alone: a list of `DSPex.Tool`s."},
    replace: {:boolean, "whether a program of that id is replaced."},
    timeout: @timeout
  ]

  @configure_schema Config.schema() ++ [timeout: @timeout]
  @ping_schema [payload: {:any, "a value that is sent back."}, timeout: @timeout]
  @list_schema [prefix: {:string, "only programs whose id begins with it."}, timeout: @timeout]

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
  `{:error, %DSPex.Error{}}` (`delete/2` a bare `:ok`), exactly once, within its `:timeout` and a
  moment: 60 seconds where none is given or the function takes none. The forms with `!` raise the
  error.

  ## When Python ends

  A Python that crashes or is killed is started again, and told the configuration and every program
  that was made, before any call goes on. A call that had been sent and not answered is answered with
  the error `:connection_lost`; its `retryable` says whether it is safe to call again. Calls that
  come meanwhile wait, within their `:timeout`.

  Where Python cannot be made ready, calls are answered at once with `:start_failed` and the reason,
  while it is tried again, less and less often. Where the bridge refuses the configuration (or this
  client's version of the protocol) it would refuse it again: the error is then not `retryable`, and
  nothing is tried until `configure/2` gives another configuration or the instance is restarted.

  ## Options

  #{Options.docs(@start_schema)}

  ## LMs

  An LM is the name of a model, or a keyword list (or map) of:

  #{Config.lm_docs()}
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
    options = check_start!(options)

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
    options = check_start!(options)
    name = Keyword.fetch!(options, :name)
    configuration = options |> Keyword.take([:lms, :default_lm, :adapter]) |> Map.new()

    with {:ok, command} <- Command.find(options[:command]) do
      limits =
        Keyword.take(options, [
          :max_frame_bytes,
          :max_queued_bytes,
          :max_callbacks,
          :start_timeout
        ])

      Instance.start_link(name, configuration, [command: command] ++ limits)
    end
  end

  defp check_start!(options) do
    with {:ok, options} <- Options.validate(options, @start_schema),
         :ok <- check_default_lm(options[:default_lm], options[:lms]) do
      options
    else
      {:error, message} -> raise ArgumentError, "DSPex: " <> message
    end
  end

  defp check_default_lm(nil, _lms), do: :ok

  defp check_default_lm(default, lms) do
    names = Map.keys(lms || %{})

    if default in names,
      do: :ok,
      else:
        {:error, "option :default_lm: #{inspect(default)} is none of the LMs #{inspect(names)}"}
  end

  @doc """
  Makes a program.

      DSPex.create(MyApp.DSPex, Triage, module: :chain_of_thought, demos: demos)
      DSPex.create(MyApp.DSPex, "question, context: list[str] -> answer", program: "qa")

  Options:

  #{Options.docs(@create_schema)}
  """
  @spec create(server(), signature(), keyword()) :: {:ok, Program.t()} | {:error, Error.t()}
  def create(server, signature, options \\ []) do
    options = with_definition(Program.definition(signature), options)

    with {:ok, options} <- check(options, @create_schema),
         {:ok, signature} <- Signature.fetch(signature),
         {:ok, demos} <- demos(options[:demos], signature) do
      {timeout, options} = Keyword.pop!(options, :timeout)
      {tools, options} = Keyword.pop(options, :tools)
      id = Keyword.get_lazy(options, :program, &make_id/0)

      params =
        options
        |> Map.new()
        |> Map.merge(demos)
        |> Map.merge(if tools, do: %{tools: Enum.map(tools, &Tool.to_wire/1)}, else: %{})
        |> Map.merge(%{program: id, signature: Signature.to_wire(signature)})

      make(server, "create", params, timeout, signature, tools || [])
    end
  end

  # What a module says of its program, which the options of the call go before.
  defp with_definition(nil, options), do: options

  defp with_definition(definition, options) do
    if Keyword.keyword?(options) do
      Keyword.merge([{:program, definition.program} | definition.options], options, fn
        :config, config, over -> Program.merge_config(config, over)
        _name, _value, over -> over
      end)
    else
      options
    end
  end

  @doc false
  def create_options, do: Keyword.keys(@create_schema)

  @doc "As `create/3`, but raises the error."
  @spec create!(server(), signature(), keyword()) :: Program.t()
  def create!(server, signature, options \\ []), do: bang!(create(server, signature, options))

  @doc """
  Runs a program.

      DSPex.execute(MyApp.DSPex, program, %{subject: "Invoice 17", body: body}, timeout: 10_000)

  Inputs have atom or string keys. The outputs are those of the signature and those that the module
  adds: `reasoning` of `:chain_of_thought` and `:react`, and `trajectory` of `:react`, a map. Options:

  #{Options.docs(@execute_schema)}
  """
  @spec execute(server(), program(), map() | keyword(), keyword()) ::
          {:ok, Prediction.t()} | {:error, Error.t()}
  def execute(server, program, inputs, options \\ []) do
    # A module, its inputs and the options stand in the place of an instance, a program and inputs.
    if options == [] and inputs?(program),
      do: execute_module(server, program, inputs),
      else: run(server, program, inputs, options)
  end

  defp inputs?(%Program{}), do: false
  defp inputs?(term), do: is_map(term) or is_list(term)

  @doc """
  Runs a program that is a module (see `DSPex.Program`), in its own instance. With options it is
  `DSPex.execute(QABot, inputs, timeout: 10_000)`.
  """
  @spec execute(module(), map() | keyword()) :: {:ok, Prediction.t()} | {:error, Error.t()}
  def execute(module, inputs), do: execute_module(module, inputs, [])

  defp execute_module(module, inputs, options) do
    case Program.definition(module) do
      nil ->
        invalid("a program is a %DSPex.Program{}, its id, or a module that uses DSPex.Program")

      definition ->
        run(definition.server, module, inputs, options)
    end
  end

  defp run(server, program, inputs, options) do
    with {:ok, options} <- check(options, @execute_schema),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {:ok, params, signature} <- execute_params(server, program, inputs, options),
         {:ok, result} <- Instance.request(server, "execute", params, timeout),
         do: prediction(result, signature)
  end

  defp execute_params(server, program, inputs, options) do
    with {:ok, program} <- made(server, program),
         {:ok, id} <- id(program),
         {:ok, inputs} <- map(inputs, "inputs"),
         signature = known_signature(server, program, id),
         {:ok, inputs, options} <- dump_inputs(signature, inputs, Map.new(options)) do
      {:ok, Config.reveal(Map.merge(options, %{program: id, inputs: inputs})), signature}
    end
  end

  # A program that is a module is made when it is first needed.
  defp made(server, program) do
    case Program.definition(program) do
      nil ->
        {:ok, program}

      %{program: id, signature: signature} ->
        if Instance.signature(server, id) == signature,
          do: {:ok, id},
          else: create(server, program, replace: true)
    end
  end

  # What the bridge would refuse is refused here, by the same rules and without a round trip.
  defp dump_inputs(nil, inputs, options), do: {:ok, inputs, options}

  defp dump_inputs(signature, inputs, options) do
    with {:ok, _converted} <- Signature.validate_inputs(signature, inputs) do
      {inputs, config} = Signature.split_variables(signature, inputs)
      inputs = Signature.dump(signature.inputs, inputs)

      if config == %{},
        do: {:ok, inputs, options},
        else:
          {:ok, inputs, Map.update(options, :config, config, &Program.merge_config(config, &1))}
    end
  end

  defp prediction(result, signature) do
    with %{"outputs" => outputs} when is_map(outputs) and not is_struct(outputs) <- result,
         {:ok, outputs} <- load_outputs(signature, outputs) do
      {:ok, Prediction.new(result, outputs)}
    else
      {:error, error} -> {:error, error}
      other -> unexpected("execute", other)
    end
  end

  @doc "As `execute/4`, but raises the error."
  @spec execute!(server(), program(), map() | keyword(), keyword()) :: Prediction.t()
  def execute!(server, program, inputs, options \\ []),
    do: bang!(execute(server, program, inputs, options))

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
  To stop enumerating, or to die, cancels the execution. Options:

  #{Options.docs(@stream_schema)}
  """
  @spec stream(server(), program(), map() | keyword(), keyword()) ::
          Enumerable.t()
  def stream(server, program, inputs, options \\ []) do
    with {:ok, options} <- check(options, @stream_schema),
         {:ok, fields} <- names(Keyword.get(options, :fields, [])),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {window, options} = Keyword.pop!(options, :window),
         options =
           Keyword.put(Keyword.delete(options, :fields), :stream, %{
             fields: fields,
             window: window
           }),
         {:ok, params, signature} <- execute_params(server, program, inputs, options) do
      # In a function nothing shows it: an LM's key may be in it.
      open = fn -> Instance.open(server, "execute", params, timeout) end
      DSPex.Stream.new(open, window, &prediction(&1, signature), signature)
    else
      {:error, error} -> [{:error, error}]
    end
  end

  @doc "As `stream/4`, but its last element is the prediction, and an error is raised."
  @spec stream!(server(), program(), map() | keyword(), keyword()) :: Enumerable.t()
  def stream!(server, program, inputs, options \\ []) do
    server
    |> stream(program, inputs, options)
    |> Stream.map(fn
      %Chunk{} = chunk -> chunk
      result -> bang!(result)
    end)
  end

  defp names(names) do
    if Enum.all?(names, &((is_atom(&1) and &1 != nil) or is_binary(&1))),
      do: {:ok, Enum.map(names, &to_string/1)},
      else: invalid("option :fields: expected a list of names, atoms or strings")
  end

  @doc "Deletes a program. Work in flight on it finishes, without its tools."
  @spec delete(server(), program()) :: :ok | {:error, Error.t()}
  def delete(server, program) do
    with {:ok, id} <- id(program),
         entry = fn _body -> {:delete, id} end,
         {:ok, _result} <-
           Instance.request(server, "delete", %{program: id}, @default_timeout, entry: entry) do
      :ok
    end
  end

  @doc """
  The programs there are, each a map of `"program"`, `"module"`, `"signature"`, `"revision"` and
  `"executions"`. Options:

  #{Options.docs(@list_schema)}
  """
  @spec list(server(), keyword()) :: {:ok, [map()]} | {:error, Error.t()}
  def list(server, options \\ []) do
    with {:ok, options} <- check(options, @list_schema),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {:ok, result} <- Instance.request(server, "list", Map.new(options), timeout) do
      case result do
        %{"programs" => programs} when is_list(programs) -> {:ok, programs}
        other -> unexpected("list", other)
      end
    end
  end

  @doc "All about a program: what it was made of, its demonstrations, counters and LM."
  @spec describe(server(), program()) :: {:ok, map()} | {:error, Error.t()}
  def describe(server, program) do
    with {:ok, id} <- id(program),
         do: Instance.request(server, "describe", %{program: id}, @default_timeout)
  end

  @doc """
  The state of a program: a map, fit for JSON, of all that `load/3` needs to make it again, here or
  elsewhere. There is no key in it.
  """
  @spec dump(server(), program()) :: {:ok, map()} | {:error, Error.t()}
  def dump(server, program) do
    with {:ok, id} <- id(program),
         {:ok, result} <- Instance.request(server, "dump", %{program: id}, @default_timeout) do
      case result do
        %{"state" => state} when is_map(state) and not is_struct(state) -> {:ok, state}
        other -> unexpected("dump", other)
      end
    end
  end

  @doc """
  Makes a program of a state that `dump/2` gave. Its outputs come under string keys. Options:

  #{Options.docs(@load_schema)}
  """
  @spec load(server(), map(), keyword()) :: {:ok, Program.t()} | {:error, Error.t()}
  def load(server, state, options \\ []) do
    with {:ok, options} <- check(options, @load_schema),
         {:ok, state} <- map(state, "the state"),
         {:ok, signature} <- state_signature(state),
         {tools, options} = Keyword.pop(options, :tools, []),
         :ok <- state_tools(state, tools) do
      {timeout, options} = Keyword.pop!(options, :timeout)
      id = Keyword.get_lazy(options, :program, &make_id/0)
      params = options |> Map.new() |> Map.merge(%{program: id, state: state})
      make(server, "load", params, timeout, signature, tools)
    end
  end

  @doc "As `load/3`, but raises the error."
  @spec load!(server(), map(), keyword()) :: Program.t()
  def load!(server, state, options \\ []), do: bang!(load(server, state, options))

  @doc """
  Changes the configuration: LMs are added or replaced by name. Gives the configuration that is now
  in force, with its keys masked; a Python that is started later gets it too. Where the bridge has
  refused the configuration before, Python is started again with the changed one. Options:

  #{Options.docs(@configure_schema)}
  """
  @spec configure(server(), keyword()) :: {:ok, map()} | {:error, Error.t()}
  def configure(server, options) do
    with {:ok, options} <- check(options, @configure_schema) do
      {timeout, options} = Keyword.pop!(options, :timeout)
      configuration = Map.new(options)
      entry = fn _body -> {:configure, configuration} end
      Instance.request(server, "configure", Config.reveal(configuration), timeout, entry: entry)
    end
  end

  @doc """
  Asks the bridge for a sign of life; gives the payload back. The first one waits for Python.
  Options:

  #{Options.docs(@ping_schema)}
  """
  @spec ping(server(), keyword()) :: {:ok, term()} | {:error, Error.t()}
  def ping(server, options \\ []) do
    with {:ok, options} <- check(options, @ping_schema),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {:ok, result} <- Instance.request(server, "ping", Map.new(options), timeout) do
      case result do
        %{"payload" => payload} -> {:ok, payload}
        other -> unexpected("ping", other)
      end
    end
  end

  @doc "Counters of the bridge: requests, work in flight, LMs with tokens and cost, memory."
  @spec stats(server()) :: {:ok, map()} | {:error, Error.t()}
  def stats(server), do: Instance.request(server, "stats", %{}, @default_timeout)

  # --- together ---

  defp make(server, method, params, timeout, signature, tools) do
    entry = fn body -> {:put, params.program, body, signature, tools} end

    case Instance.request(server, method, params, timeout, entry: entry) do
      {:ok, %{"program" => id, "module" => module, "revision" => revision} = result} ->
        {:ok,
         %Program{
           id: id,
           module: module,
           signature: signature,
           revision: revision,
           input_schema: Map.get(result, "input_schema", %{}),
           output_schema: Map.get(result, "output_schema", %{})
         }}

      {:ok, other} ->
        unexpected(method, other)

      {:error, error} ->
        {:error, error}
    end
  end

  defp state_signature(%{"signature" => signature}), do: Signature.fetch(signature)
  defp state_signature(_other), do: invalid("this is no state that DSPex.dump/2 gave")

  defp state_tools(state, tools) do
    wanted = for %{"name" => name} <- List.wrap(state["tools"]), do: name

    case wanted -- Enum.map(tools, & &1.name) do
      [] ->
        :ok

      missing ->
        invalid("the state has the tools #{Enum.join(missing, ", ")}: give them as tools:")
    end
  end

  # The client chooses ids: what is in the journal has to have the same one in every Python.
  defp make_id, do: "program-" <> Base.encode16(:rand.bytes(8), case: :lower)

  defp check(options, schema) do
    with {:error, message} <- Options.validate(options, schema), do: invalid(message)
  end

  defp id(%Program{id: id}), do: {:ok, id}
  defp id(id) when is_binary(id) and id != "", do: {:ok, id}

  defp id(module) do
    case Program.definition(module) do
      nil ->
        invalid("a program is a %DSPex.Program{}, its id, or a module that uses DSPex.Program")

      definition ->
        {:ok, definition.program}
    end
  end

  defp map(map, _what) when is_map(map) and not is_struct(map), do: {:ok, map}

  # The structs of a signature.
  defp map(%module{} = struct, what) do
    if Signature.Struct.struct?(module),
      do: {:ok, Map.from_struct(struct)},
      else: invalid("#{what}: expected a map")
  end

  defp map(other, what) do
    if Keyword.keyword?(other) and other != [],
      do: {:ok, Map.new(other)},
      else: invalid("#{what}: expected a map")
  end

  # The journal knows best: the program may have been replaced since the handle was made.
  defp known_signature(server, program, id) do
    found = Instance.signature(server, id)

    case {found, program} do
      {nil, %Program{signature: signature}} -> signature
      {found, _program} -> found
    end
  end

  defp load_outputs(nil, outputs), do: {:ok, outputs}
  defp load_outputs(signature, outputs), do: Signature.load_outputs(signature, outputs)

  defp demos(nil, _signature), do: {:ok, %{}}

  defp demos(demos, signature) do
    demos
    |> Enum.with_index()
    |> Enum.reduce_while({:ok, []}, fn {demo, at}, {:ok, done} ->
      case demo(demo, signature) do
        {:ok, demo} -> {:cont, {:ok, [demo | done]}}
        :error -> {:halt, invalid("demos[#{at}]: expected %{inputs: %{...}, outputs: %{...}}")}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, %{demos: Enum.reverse(done)}}
      error -> error
    end
  end

  defp demo(demo, signature) when is_map(demo) and map_size(demo) == 2 do
    with %{inputs: inputs, outputs: outputs} <- named(demo),
         {:ok, inputs} <- map(inputs, "inputs"),
         {:ok, outputs} <- map(outputs, "outputs") do
      {:ok,
       %{
         inputs: Signature.dump(signature.inputs, inputs),
         outputs: Signature.dump(signature.outputs, outputs)
       }}
    else
      _other -> :error
    end
  end

  defp demo(_other, _signature), do: :error

  defp named(%{"inputs" => inputs, "outputs" => outputs}), do: %{inputs: inputs, outputs: outputs}
  defp named(demo), do: demo

  @doc false
  def lm_or_name(name) when is_atom(name) and name not in [nil, true, false],
    do: {:ok, Atom.to_string(name)}

  def lm_or_name(name) when is_binary(name) and name != "", do: {:ok, name}
  def lm_or_name(options), do: Config.lm(options)

  defp invalid(message), do: {:error, Error.new(:invalid_params, message)}

  defp unexpected(method, result) do
    shown = inspect(result, limit: 5, printable_limit: 80)
    {:error, Error.new(:internal_error, "the bridge answered #{method} with #{shown}")}
  end

  defp bang!({:ok, result}), do: result
  defp bang!({:error, error}), do: raise(error)
end
