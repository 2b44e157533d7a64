defmodule DSPex.ML.Program do
  @moduledoc """
  A program at a server: its state, and the revisions that it has had.

    * `:state` - `:draft`, `:ready`, `:optimized`, `:deployed`, `:error` (it cannot be made; `:ready`
      again once it runs) or `:archived`.
    * `:revision` - the newest, or the one that was rolled back to; it runs where none is deployed.
    * `:deployed_revision` - the one that runs where there is one.
    * `:executions`, `:failures`, `:total_tokens`, `:cost_usd` - of all that have ended.
    * `:signature` - what it was made of here, with the names and types of Elixir, which the outputs of
      its executions then have; `nil` in one that was read from the server without `signature:`,
      whose outputs have string keys.
  """

  import DSPex.Arguments, only: [check: 2]

  alias DSPex.{Error, Options, Programs, Signature}
  alias DSPex.ML.{Execution, GraphQL, Page, Resource}
  alias DSPex.Server.Values

  @fields [
    id: :plain,
    name: :plain,
    module: :plain,
    lm: :plain,
    adapter: :plain,
    config: :plain,
    state: :state,
    revision: :plain,
    deployed_revision: :plain,
    executions: :plain,
    failures: :plain,
    total_tokens: :plain,
    cost_usd: :plain,
    created_at: :time
  ]

  @type state :: :draft | :ready | :optimized | :deployed | :error | :archived

  @type t :: %__MODULE__{
          id: String.t(),
          name: String.t(),
          module: String.t(),
          lm: String.t() | nil,
          adapter: String.t() | nil,
          config: map(),
          state: state(),
          revision: pos_integer(),
          deployed_revision: pos_integer() | nil,
          executions: non_neg_integer(),
          failures: non_neg_integer(),
          total_tokens: non_neg_integer(),
          cost_usd: float(),
          created_at: DateTime.t(),
          signature: Signature.t() | nil
        }

  defstruct Keyword.keys(@fields) ++ [:signature]

  @create_schema [
                   name: {:name, "what it is called; its id where there is none."},
                   signature:
                     {:any, "a `DSPex.ML.Signature`, or what `DSPex.Signature.fetch/1` takes."},
                   variables: {:map, "what the optimizer `:variables` may choose, by name."},
                   draft: {:boolean, "whether it does not run yet.", false},
                   replace:
                     {:boolean,
                      "whether a program of that name gets another revision, where something is " <>
                        "new; what optimizers made of it stays, and a deployed one goes on as it is.",
                      false}
                 ] ++
                   Keyword.delete(Programs.program_schema(), :tools) ++ Resource.timeout_schema()

  @execute_schema [
    lm: {:name, "the name of an LM of the server."},
    adapter: {:name, "`:chat`, `:json`, `:xml`, `:baml` or `:two_step`."},
    config: {:map, "parameters of the LM, such as `temperature:`."},
    limits: {{:is, &DSPex.Limits.option/1}, "ceilings of its LM calls, as in `create/1`."},
    timeout: {:timeout, "milliseconds until it is cancelled, or `:infinity`.", 60_000}
  ]

  @get_schema [
                signature:
                  {:any,
                   "what it was made of here, as in `create/1`, so that outputs have its names and types."}
              ] ++ Resource.timeout_schema()

  @sorts [:created_at, :name, :executions, :cost_usd]

  @list_schema [
                 name_contains: {:string, "with this in its name."},
                 module: {:name, "of this module, such as `:chain_of_thought`."},
                 state: {{:is, &Resource.states/1}, "in this state, or in one of these."},
                 signature_id: {:string, "of this version of a named signature."},
                 sort:
                   {{:is, &__MODULE__.sort/1},
                    "by `:created_at`, `:name`, `:executions` or `:cost_usd`."},
                 direction: {{:is, &__MODULE__.direction/1}, "`:asc` or `:desc`, the default."}
               ] ++ Resource.page_schema()

  @doc false
  def sort(name) when name in @sorts, do: {:ok, name |> Atom.to_string() |> String.upcase()}
  def sort(_other), do: {:error, "expected one of #{inspect(@sorts)}"}

  @doc false
  def direction(name) when name in [:asc, :desc],
    do: {:ok, name |> Atom.to_string() |> String.upcase()}

  def direction(_other), do: {:error, "expected :asc or :desc"}

  @doc """
  Makes a program. One with tools is not for a server, which does not call functions of Elixir. With
  `replace: true` an application may say at each start what its program is: one that is there already
  and the same stays as it is.

  #{Options.docs(@create_schema)}
  """
  @spec create(keyword()) :: {:ok, t()} | {:error, Error.t()}
  def create(options) do
    with {:ok, options} <- check(options, @create_schema),
         {own, made_of} = Keyword.split(options, [:name, :signature, :draft, :replace, :timeout]),
         {:ok, params, signature, []} <-
           Programs.create_params(definition(own[:signature]), made_of),
         {:ok, input} <- input(params, own),
         arguments = [{"input", "ProgramInput!", input}],
         {:ok, program} <-
           Resource.change(__MODULE__, @fields, "createProgram", arguments, own[:timeout]),
         do: {:ok, %{program | signature: signature}}
  end

  defp definition(%DSPex.ML.Signature{definition: definition}), do: definition
  defp definition(other), do: other

  defp input(params, own) do
    {demos, params} = Map.pop(params, :demos)
    {definition, params} = Map.pop(params, :signature)

    kind =
      case own[:signature] do
        %DSPex.ML.Signature{id: id} -> %{"signatureId" => id}
        _other -> %{"definition" => definition}
      end

    with {:ok, plain} <- Values.to_plain(params),
         {:ok, kind} <- Values.to_plain(kind),
         {:ok, demos} <- Values.to_json(demos) do
      more = if demos == nil, do: %{}, else: %{"demos" => demos}
      named = if own[:name], do: %{"name" => own[:name]}, else: %{}

      {:ok,
       %{"draft" => own[:draft], "replace" => own[:replace]}
       |> Map.merge(plain)
       |> Map.merge(kind)
       |> Map.merge(more)
       |> Map.merge(named)}
    end
  end

  @doc "As `create/1`, but raises the error."
  @spec create!(keyword()) :: t()
  def create!(options), do: options |> create() |> Resource.bang!()

  @doc """
  Runs it: the execution, which has completed. Where it has not, the error is why; its data has the
  `"execution_id"` of the row that says so, but where nothing was begun.

      {:ok, execution} = DSPex.ML.Program.execute(program, %{email: "It leaks."})

  #{Options.docs(@execute_schema)}
  """
  @spec execute(t() | String.t(), map() | keyword(), keyword()) ::
          {:ok, Execution.t()} | {:error, Error.t()}
  def execute(program, inputs, options \\ []) do
    with {:ok, options} <- check(options, @execute_schema),
         {:ok, id} <- Resource.id(program, __MODULE__),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {:ok, inputs} <- DSPex.Arguments.map(inputs, "inputs"),
         signature = if(is_struct(program), do: program.signature),
         {:ok, inputs, options} <-
           DSPex.Execution.dump_inputs(signature, inputs, Map.new(options)),
         {:ok, inputs} <- Values.to_json(inputs),
         {:ok, plain} <- Values.to_plain(options) do
      input = Map.merge(plain, %{"program" => id, "inputs" => inputs})
      input = if timeout == :infinity, do: input, else: Map.put(input, "timeoutMs", timeout)
      run(input, timeout, signature)
    end
  end

  # Of the server's own answer to a deadline, which it counts from when the bridge is asked.
  @grace_ms 5_000

  defp run(input, timeout, signature) do
    with {:ok, made} <-
           GraphQL.mutate(
             "executeProgram",
             [{"input", "ExecuteInput!", input}],
             Execution.member(),
             timeout,
             @grace_ms
           ),
         {:ok, execution} <- Execution.load(made),
         do: Execution.outcome(execution, signature)
  end

  @doc "As `execute/3`, but raises the error."
  @spec execute!(t() | String.t(), map() | keyword(), keyword()) :: Execution.t()
  def execute!(program, inputs, options \\ []),
    do: program |> execute(inputs, options) |> Resource.bang!()

  @doc """
  The program of an id or a name, as it is now.

      {:ok, program} = DSPex.ML.Program.get("tickets", signature: MyApp.Ticket)

  #{Options.docs(@get_schema)}
  """
  @spec get(t() | String.t(), keyword()) :: {:ok, t()} | {:error, Error.t()}
  def get(program, options \\ []) do
    with {:ok, options} <- check(options, @get_schema),
         {:ok, signature} <- signature(definition(options[:signature]), program),
         {:ok, found} <- Resource.get(__MODULE__, @fields, "program", program, options[:timeout]),
         do: {:ok, %{found | signature: signature}}
  end

  defp signature(nil, %__MODULE__{signature: signature}), do: {:ok, signature}
  defp signature(nil, _name), do: {:ok, nil}
  defp signature(definition, _program), do: Signature.fetch(definition)

  @doc """
  The programs that there are, the newest first where nothing else is said.

  #{Options.docs(@list_schema)}
  """
  @spec list(keyword()) :: {:ok, Page.t(t())} | {:error, Error.t()}
  def list(options \\ []) do
    with {:ok, options} <- check(options, @list_schema) do
      filter = Resource.filter(options, [:name_contains, :module, :state, :signature_id])

      arguments = [
        {"filter", "ProgramFilter", filter},
        {"sort", "ProgramSort!", options[:sort]},
        {"direction", "Direction!", options[:direction]}
      ]

      Resource.list(__MODULE__, @fields, "programs", arguments, options)
    end
  end

  @doc "Has a revision, the newest where none is given, run until another is deployed."
  @spec deploy(t() | String.t(), pos_integer() | nil, [Resource.option()]) ::
          {:ok, t()} | {:error, Error.t()}
  def deploy(program, revision \\ nil, options \\ []),
    do: change(program, "deployProgram", [{"revision", "Int", revision}], options)

  @doc "As `deploy/3`, but raises the error."
  @spec deploy!(t() | String.t(), pos_integer() | nil, [Resource.option()]) :: t()
  def deploy!(program, revision \\ nil, options \\ []),
    do: program |> deploy(revision, options) |> Resource.bang!()

  @doc "Has an earlier revision run; later ones stay."
  @spec rollback(t() | String.t(), pos_integer(), [Resource.option()]) ::
          {:ok, t()} | {:error, Error.t()}
  def rollback(program, revision, options \\ []),
    do: change(program, "rollbackProgram", [{"revision", "Int!", revision}], options)

  @doc "As `rollback/3`, but raises the error."
  @spec rollback!(t() | String.t(), pos_integer(), [Resource.option()]) :: t()
  def rollback!(program, revision, options \\ []),
    do: program |> rollback(revision, options) |> Resource.bang!()

  @doc "Has it run no more; all that it did stays."
  @spec archive(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def archive(program, options \\ []), do: change(program, "archiveProgram", [], options)

  @doc "As `archive/2`, but raises the error."
  @spec archive!(t() | String.t(), [Resource.option()]) :: t()
  def archive!(program, options \\ []), do: program |> archive(options) |> Resource.bang!()

  @doc "Deletes it and all that it did. It is refused while it runs."
  @spec delete(t() | String.t(), [Resource.option()]) :: :ok | {:error, Error.t()}
  def delete(program, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         {:ok, id} <- Resource.id(program, __MODULE__),
         member = "... on DeletedProgram { id }",
         {:ok, _id} <- GraphQL.mutate("deleteProgram", [{"id", "ID!", id}], member, timeout),
         do: :ok
  end

  defp change(program, field, arguments, options) do
    with {:ok, timeout} <- Resource.timeout(options),
         {:ok, id} <- Resource.id(program, __MODULE__) do
      arguments = [{"id", "ID!", id} | arguments]
      keep(program, Resource.change(__MODULE__, @fields, field, arguments, timeout))
    end
  end

  # The server does not know the names that Elixir has.
  defp keep(%__MODULE__{signature: signature}, {:ok, program}),
    do: {:ok, %{program | signature: signature}}

  defp keep(_program, answer), do: answer
end
