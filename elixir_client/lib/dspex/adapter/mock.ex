defmodule DSPex.Adapter.Mock do
  @moduledoc """
  An instance without Python and without LMs, for an application's tests: in memory, at once.

      # test_helper.exs, or the application's children in the test environment
      {DSPex, name: MyApp.DSPex, backend: DSPex.Adapter.Mock}

      defmodule MyApp.TriageTest do
        use ExUnit.Case, async: true
        alias DSPex.Adapter.Mock

        setup do: Mock.checkout(MyApp.DSPex)

        test "what is urgent is told at once" do
          Mock.script(MyApp.DSPex, "triage", [%{category: :defect, urgency: 0.9}])
          assert MyApp.handle("It burns!") == :told
          assert [%{method: "execute", program: "triage"}] = Mock.calls(MyApp.DSPex, "execute")
        end
      end

  Everything else is DSPex as it is: signatures, their checks, types, errors, structs, deadlines. What
  goes to the mock and comes from it has been MessagePack in between, as with Python.

  ## Answers

  An execution is answered by the next of the answers that were scripted for its program with
  `script/3`, then by the one that `stub/3` set, else by outputs that are made up of the signature: of
  the types and within the constraints, and the same ones for the same inputs. An answer is

    * outputs, a map or keyword list. Those that it leaves out are made up; one that does not fit the
      signature is `:output_validation`.
    * `{:error, code}` or `{:error, %DSPex.Error{}}`.
    * `:hang`: none, until the deadline or a cancel.
    * a function of the inputs (a map with string keys), which gives one of these; or of the inputs and
      a function that calls a tool of the program: `call.("stock", %{article: "kettle"})`.

  Streams give the words of such an answer. Evaluations execute each example and score by functions,
  `:exact_match` and judges; optimizations take up to 4 examples of the trainset as demonstrations
  and score before and after. Tokens are words, and cost nothing. `limits:` and `fallbacks:` are
  checked, and do nothing: script `{:error, :budget_exceeded}` for what comes of them.

  ## Ownership

  `checkout/1` gives the calling process programs, scripts and calls of its own, until it ends, so that
  tests run side by side on one instance. Its tasks (`Task`, and whatever sets `$callers`) belong to it,
  other processes where `allow/2` says so. Whoever belongs to nobody shares one set, whose programs
  everybody sees: those that the application makes when it starts.
  """

  @behaviour DSPex.Adapter

  alias DSPex.Adapter.Mock.{Answer, Exchange, Server, Store}
  alias DSPex.{Arguments, Error}

  @type answer ::
          map()
          | keyword()
          | {:error, Error.code() | Error.t()}
          | :hang
          | (map() -> answer())
          | (map(), (String.t(), map() -> {:ok, term()} | {:error, Error.t()}) -> answer())

  @type call :: %{method: String.t(), program: String.t() | nil, params: map(), from: pid()}

  @doc "Makes the calling process an owner; an owner begins anew."
  @spec checkout(DSPex.Adapter.instance()) :: :ok
  def checkout(instance), do: Server.call(instance, {:checkout, self()})

  @doc "Has a process belong to the owner that the calling one belongs to."
  @spec allow(DSPex.Adapter.instance(), pid()) :: :ok
  def allow(instance, pid) when is_pid(pid),
    do: Server.call(instance, {:allow, pid, Store.owner(instance)})

  @doc "Adds answers for the next executions of a program, one each; of any program with `:any`."
  @spec script(DSPex.Adapter.instance(), DSPex.program() | :any, [answer()]) :: :ok
  def script(instance, program, answers) when is_list(answers) do
    Enum.each(answers, &answer!/1)
    Server.call(instance, {:script, Store.owner(instance), id!(program), answers})
  end

  @doc "Sets the answer to every execution of a program that no script is left for."
  @spec stub(DSPex.Adapter.instance(), DSPex.program() | :any, answer()) :: :ok
  def stub(instance, program, answer) do
    answer!(answer)
    Server.call(instance, {:stub, Store.owner(instance), id!(program), answer})
  end

  @doc "The requests so far, or those of one method, in their order: params as the wire has them."
  @spec calls(DSPex.Adapter.instance(), String.t() | nil) :: [call()]
  def calls(instance, method \\ nil) do
    for call <- Server.call(instance, {:calls, Store.owner(instance)}),
        method == nil or call.method == method,
        do: call
  end

  # A test says at its own line what is wrong with it.
  defp answer!(answer) do
    with {:error, message} <- Answer.check(answer), do: raise(ArgumentError, message)
  end

  defp id!(:any), do: :any

  defp id!(program) do
    case Arguments.id(program) do
      {:ok, id} -> id
      {:error, error} -> raise error
    end
  end

  @impl true
  def start_link(name, configuration, _options), do: Server.start_link(name, configuration)

  @impl true
  defdelegate request(instance, method, params, timeout, options), to: Exchange

  @impl true
  defdelegate open(instance, method, params, timeout, listens?, options), to: Exchange

  @impl true
  defdelegate next(exchange), to: Exchange

  @impl true
  defdelegate grant(exchange, n), to: Exchange

  @impl true
  defdelegate cancel(exchange), to: Exchange

  @impl true
  defdelegate close(exchange), to: Exchange

  @impl true
  def signature(instance, program) do
    case Store.known(instance, Store.owner(instance), program) do
      {signature, _tools} -> signature
      nil -> nil
    end
  end

  @impl true
  def tools(instance, program) do
    case Store.known(instance, Store.owner(instance), program) do
      {_signature, tools} -> tools
      nil -> []
    end
  end

  @impl true
  def record(instance, entry) do
    with {:ok, _pid} <- Server.whereis(instance),
         do: Store.record(instance, Store.owner(instance), entry)
  end
end
