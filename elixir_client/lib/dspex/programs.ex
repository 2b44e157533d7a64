defmodule DSPex.Programs do
  @moduledoc false
  # The programs of an instance: made, loaded, dumped, described, deleted.

  import DSPex.Arguments

  require Logger

  alias DSPex.{Adapter, Deadline, Error, Limits, Options, Program, Signature, Tool}
  alias DSPex.Program.LostTools

  # A first call waits for Python and DSPy to start.
  @default_timeout 60_000

  @timeout {:timeout, "milliseconds until the work is cancelled, or `:infinity`.",
            @default_timeout}

  # What a program is made of, whether it is registered or not.
  @program_schema [
    module:
      {:name,
       "a DSPy module: `:predict` (the default), `:chain_of_thought`, `:react`, `:refine`, " <>
         "`:best_of_n`, `:multi_chain_comparison`, `:program_of_thought`, `:code_act`…"},
    options: {:map, "parameters of the module: `max_iters:` of `:react`."},
    lm: {:name, "the name of the LM that it uses, one of `lms:`."},
    adapter: {:name, "`:chat`, `:json`, `:xml`, `:baml` or `:two_step`."},
    config: {:map, "parameters of the LM, such as `temperature:`."},
    instructions: {:string, "in place of the signature's own."},
    demos: {:list, "demonstrations: a list of `%{inputs: %{...}, outputs: %{...}}`."},
    tools: {{:is, &Tool.list/1}, "functions that `:react` may call: a list of `DSPex.Tool`s."},
    limits:
      {{:is, &Limits.option/1},
       "ceilings of its LM calls: `max_cost_usd:`, `max_tokens:`, `max_calls:`, " <>
         "`requests_per_minute:`, `max_concurrency:`."}
  ]

  @create_schema [program: {:name, "the program's id; one is made where there is none."}] ++
                   @program_schema ++
                   [
                     variables:
                       {:map,
                        "what the optimizer `:variables` may choose, by name; see the protocol's " <>
                          "specification. Inputs with `variable: true` are among them."},
                     replace: {:boolean, "whether a program of that id is replaced."},
                     timeout: @timeout
                   ]

  @load_schema [
    program:
      {{:is, &__MODULE__.load_as/1},
       "the id to have it under, one is made where there is none; or a module that uses " <>
         "`DSPex.Program`, which it then stands in for: with `replace: true`, if that has run."},
    tools:
      {{:is, &Tool.list/1},
       "the functions of the state's tools, which it has by name alone: a list of `DSPex.Tool`s. " <>
         "Those of the module where `program:` is one that declares tools."},
    replace: {:boolean, "whether a program of that id is replaced."},
    timeout: @timeout
  ]

  @list_schema [prefix: {:string, "only programs whose id begins with it."}, timeout: @timeout]

  @spec create_schema() :: Options.schema()
  def create_schema, do: @create_schema

  @spec program_schema() :: Options.schema()
  def program_schema, do: @program_schema

  @spec load_schema() :: Options.schema()
  def load_schema, do: @load_schema

  @spec list_schema() :: Options.schema()
  def list_schema, do: @list_schema

  @doc false
  # A check of `DSPex.Options`: the id, and the definition where it is a module's.
  def load_as(name) when is_binary(name) and name != "", do: {:ok, {name, nil}}

  def load_as(name) when is_atom(name) and name not in [nil, true, false] do
    case Program.definition(name) do
      nil -> {:ok, {Atom.to_string(name), nil}}
      definition -> {:ok, {definition.program, definition}}
    end
  end

  def load_as(_other), do: {:error, "expected a name, or a module that uses DSPex.Program"}

  @spec create(atom(), term(), keyword(), :put | :add) :: {:ok, Program.t()} | {:error, Error.t()}
  def create(server, signature, options, kind \\ :put) do
    options = with_definition(Program.definition(signature), options)

    with {:ok, options} <- check(options, @create_schema),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {:ok, params, signature, tools} <- create_params(signature, options) do
      params = params |> Map.put_new_lazy(:program, &make_id/0) |> with_variables(signature)
      make(server, {"create", kind}, params, timeout, signature, tools)
    end
  end

  # What a module says of its program, which the options of the call go before.
  defp with_definition(nil, options), do: options

  defp with_definition(definition, options) do
    if Keyword.keyword?(options) do
      own = [program: definition.program] ++ own_tools(definition)

      Keyword.merge(own, options, fn
        :config, config, over -> Program.merge_config(config, over)
        _name, _value, over -> over
      end)
    else
      options
    end
  end

  defp own_tools(%{options: options} = definition) do
    case Program.tools(definition) do
      {:ok, tools} -> Keyword.put(options, :tools, tools)
      # The check of all options says so.
      {:error, _message} -> options
    end
  end

  # Those that are given go before those of the signature.
  defp with_variables(params, signature) do
    case Map.merge(Signature.variables(signature), named(Map.get(params, :variables, %{}))) do
      none when none == %{} -> Map.delete(params, :variables)
      variables -> Map.put(params, :variables, variables)
    end
  end

  defp named(variables), do: Map.new(variables, fn {name, about} -> {to_string(name), about} end)

  @doc "The parameters of a program that is made of a signature and checked options."
  @spec create_params(term(), keyword()) ::
          {:ok, map(), Signature.t(), [Tool.t()]} | {:error, Error.t()}
  def create_params(signature, options) do
    {tools, options} = Keyword.pop(options, :tools)
    {demos, options} = Keyword.pop(options, :demos)

    with {:ok, signature} <- Signature.fetch(signature),
         {:ok, demos} <- examples(demos || [], signature, "demos") do
      params =
        options
        |> Map.new()
        |> Map.put(:signature, Signature.to_wire(signature))
        |> put_some(:demos, demos)
        |> put_some(:tools, Enum.map(tools || [], &Tool.to_wire/1))

      {:ok, params, signature, tools || []}
    end
  end

  defp put_some(params, _name, []), do: params
  defp put_some(params, name, values), do: Map.put(params, name, values)

  @doc """
  A program that is a module is made when it is first needed, and anew where the module says something
  else than before, within the timeout of the call that needs it. Gives what is left of that.
  """
  @spec made(atom(), term(), timeout()) :: {:ok, term(), timeout()} | {:error, Error.t()}
  def made(server, program, timeout) do
    case Program.definition(program) do
      nil ->
        {:ok, program, timeout}

      definition ->
        cond do
          current?(server, definition) ->
            {:ok, definition.program, timeout}

          Adapter.signature(server, definition.program) == nil ->
            Deadline.step(timeout, &made_first(server, program, definition, &1))

          true ->
            Deadline.step(timeout, &made_anew(server, program, definition.program, &1))
        end
    end
  end

  defp current?(server, %{program: id} = definition) do
    Adapter.signature(server, id) == definition.signature and
      LostTools.as_declared?(server, definition)
  end

  defp made_first(server, module, definition, timeout) do
    ends = Deadline.from_now(timeout)

    with {:error, %Error{code: :already_exists}} <-
           create(server, module, [replace: true, timeout: timeout], :add) do
      # Somebody else has made it meanwhile, or loaded a state in its place.
      if current?(server, definition),
        do: {:ok, definition.program},
        else: made_anew(server, module, definition.program, max(1, Deadline.left(ends)))
    end
  end

  defp made_anew(server, module, id, timeout) do
    revision = Adapter.state_revision(server, id)

    with {:ok, program} <- create(server, module, replace: true, timeout: timeout) do
      if revision do
        Logger.warning(
          "DSPex: the definition of #{inspect(module)} has changed: its optimized state of revision " <>
            "#{revision} is no longer used. Optimize it again, or load a state of the new definition " <>
            "with DSPex.load/3"
        )
      end

      {:ok, program}
    end
  end

  @spec put_tools(atom(), term(), term()) :: :ok | {:error, Error.t()}
  def put_tools(server, program, tools) do
    with {:ok, id} <- id(program) do
      case Tool.list(tools) do
        {:ok, tools} -> Adapter.record(server, {:tools, id, tools})
        {:error, message} -> invalid("tools: #{message}")
      end
    end
  end

  # About a program that is there, made where it is a module.
  defp ask(server, method, program, params, timeout) do
    with {:ok, program, timeout} <- made(server, program, timeout),
         {:ok, id} <- id(program),
         do: Adapter.request(server, method, Map.put(params, :program, id), timeout)
  end

  @doc "The signature of a program. The journal knows best: it may have been replaced."
  @spec signature(atom(), term(), String.t()) :: Signature.t() | nil
  def signature(server, program, id) do
    case {Adapter.signature(server, id), program} do
      {nil, %Program{signature: signature}} -> signature
      {found, _program} -> found
    end
  end

  @spec delete(atom(), term()) :: :ok | {:error, Error.t()}
  def delete(server, program) do
    with {:ok, id} <- id(program),
         entry = fn _body -> {:delete, id} end,
         {:ok, _result} <-
           Adapter.request(server, "delete", %{program: id}, @default_timeout, entry: entry) do
      :ok
    end
  end

  @spec list(atom(), keyword()) :: {:ok, [map()]} | {:error, Error.t()}
  def list(server, options) do
    with {:ok, options} <- check(options, @list_schema),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {:ok, result} <- Adapter.request(server, "list", Map.new(options), timeout) do
      case result do
        %{"programs" => programs} when is_list(programs) ->
          {:ok, programs}

        other ->
          unexpected("list", other)
      end
    end
  end

  @spec describe(atom(), term(), timeout()) :: {:ok, map()} | {:error, Error.t()}
  def describe(server, program, timeout \\ @default_timeout),
    do: ask(server, "describe", program, %{}, timeout)

  @spec dump(atom(), term(), timeout()) :: {:ok, map()} | {:error, Error.t()}
  def dump(server, program, timeout \\ @default_timeout) do
    with {:ok, result} <- ask(server, "dump", program, %{}, timeout) do
      case result do
        %{"state" => state} when is_map(state) and not is_struct(state) -> {:ok, state}
        other -> unexpected("dump", other)
      end
    end
  end

  @spec save(atom(), term(), String.t()) :: {:ok, map()} | {:error, Error.t()}
  def save(server, program, path) when is_binary(path) and path != "",
    do: ask(server, "save", program, %{path: path}, @default_timeout)

  def save(_server, _program, _path), do: invalid("a path is a string")

  @spec load(atom(), term(), keyword()) :: {:ok, Program.t()} | {:error, Error.t()}
  def load(_server, "", _options), do: invalid("a path is a string that is not empty")

  def load(server, source, options) do
    with {:ok, options} <- check(options, @load_schema) do
      {timeout, options} = Keyword.pop!(options, :timeout)
      {tools, options} = Keyword.pop(options, :tools)
      {{id, of}, options} = Keyword.pop_lazy(options, :program, fn -> {make_id(), nil} end)
      params = options |> Map.new() |> Map.put(:program, id)
      signature = of && of.signature

      with {:ok, tools} <- tools_or_own(tools, of) do
        if is_binary(source),
          do: load_path(server, params, source, timeout, signature, tools),
          else: load_state(server, params, source, timeout, signature, tools)
      end
    end
  end

  defp tools_or_own(nil, nil), do: {:ok, []}

  defp tools_or_own(nil, definition) do
    with {:error, message} <- Program.tools(definition), do: invalid("option :tools: #{message}")
  end

  defp tools_or_own(tools, _definition), do: {:ok, tools}

  defp load_state(server, params, state, timeout, signature, tools) do
    with {:ok, state} <- map(state, "the state"),
         {:ok, signature} <- state_signature(state, signature),
         :ok <- state_tools(state, tools),
         do:
           make(server, {"load", :put}, Map.put(params, :state, state), timeout, signature, tools)
  end

  # The file may be another one tomorrow: the journal has what was in it, and not its path. Until that has
  # been looked at, it takes no program's place.
  defp load_path(server, params, path, timeout, signature, tools) do
    with {:ok, state, timeout} <- Deadline.step(timeout, &read(server, path, &1)),
         do: load_state(server, params, state, timeout, signature, tools)
  end

  defp read(server, path, timeout) do
    ends = Deadline.from_now(timeout)
    id = make_id()

    with {:ok, _program} <-
           make(server, {"load", :put}, %{path: path, program: id}, timeout, nil, []) do
      state = dump(server, id, max(1, Deadline.left(ends)))
      with :ok <- Adapter.record(server, {:delete, id}), do: state
    end
  end

  # That of a module has the names and types of Elixir, and has to be of the same fields.
  defp state_signature(%{"signature" => of_state}, signature) do
    with {:ok, of_state} <- Signature.fetch(of_state) do
      cond do
        signature == nil ->
          {:ok, of_state}

        names(signature) == names(of_state) ->
          {:ok, signature}

        true ->
          invalid("the state is of #{of_state}, and the module of #{signature}")
      end
    end
  end

  defp state_signature(_other, _signature),
    do: invalid("this is no state that DSPex.dump/2 gave")

  defp names(signature) do
    for fields <- [Signature.prompt_inputs(signature), signature.outputs],
        do: fields |> Enum.map(&to_string(&1.name)) |> Enum.sort()
  end

  defp state_tools(state, tools) do
    wanted = for %{"name" => name} <- List.wrap(state["tools"]), do: name

    case wanted -- Enum.map(tools, & &1.name) do
      [] ->
        :ok

      missing ->
        invalid("the state has the tools #{Enum.join(missing, ", ")}: give them as tools:")
    end
  end

  defp make(server, {method, kind}, params, timeout, signature, tools) do
    entry = fn body -> {kind, params.program, body, signature, tools} end

    case Adapter.request(server, method, params, timeout, entry: entry) do
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
end
