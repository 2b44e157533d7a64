defmodule DSPex.Execution do
  @moduledoc false
  # One run of a program: awaited, streamed, or of a program that is registered nowhere.

  import DSPex.Arguments

  alias DSPex.{Adapter, Async, Chunk, Config, Error, Limits, Options, Prediction, Program}
  alias DSPex.{Programs, Signature}
  alias DSPex.Program.LostTools

  # An LM may think for long.
  @default_timeout 60_000

  @timeout {:timeout, "milliseconds until the work is cancelled, or `:infinity`.",
            @default_timeout}

  @lm_schema [
    lm:
      {{:is, &DSPex.Arguments.lm_or_name/1},
       "the name of an LM, or the options of one for this call."},
    config: {:map, "parameters of the LM, such as `temperature:`."},
    limits: {{:is, &Limits.option/1}, "ceilings of its LM calls, as in `create/3`."}
  ]

  @meta_schema [
    meta:
      {:map, "a map of your own, which its tools find in their context; with string keys there."}
  ]

  @retry [
    retry:
      {{:integer, 0, 100},
       "how often it is made again where Python ends before it has answered, or answers with an " <>
         "error that is `retryable`. It may then have been done, and paid for, more than once.",
       0}
  ]

  @execute_schema @lm_schema ++
                    [adapter: {:name, "`:chat`, `:json`, `:xml`, `:baml` or `:two_step`."}] ++
                    @meta_schema ++ @retry ++ [timeout: @timeout]

  @async_schema Keyword.delete(@execute_schema, :retry)

  @stream_schema Keyword.delete(@async_schema, :timeout) ++
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

  @call_schema Programs.program_schema() ++ @meta_schema ++ @retry ++ [timeout: @timeout]

  @doc "What calls that run a program say of the LM."
  @spec lm_schema() :: Options.schema()
  def lm_schema, do: @lm_schema

  @spec meta_schema() :: Options.schema()
  def meta_schema, do: @meta_schema

  @spec execute_schema() :: Options.schema()
  def execute_schema, do: @execute_schema

  @spec stream_schema() :: Options.schema()
  def stream_schema, do: @stream_schema

  @spec call_schema() :: Options.schema()
  def call_schema, do: @call_schema

  @type result :: {:ok, Prediction.t()} | {:error, Error.t()}

  @spec execute(atom(), term(), term(), keyword()) :: result()
  def execute(server, program, inputs, options) do
    with {:ok, options} <- check(options, @execute_schema),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {retry, options} = Keyword.split(options, [:retry]),
         {:ok, params, signature, timeout} <- params(server, program, inputs, options, timeout),
         {:ok, result} <- Adapter.request(server, "execute", params, timeout, retry),
         do: prediction(result, signature)
  end

  @spec async(atom(), term(), term(), keyword()) :: {:ok, Async.t()} | {:error, Error.t()}
  def async(server, program, inputs, options) do
    with {:ok, options} <- check(options, @async_schema),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {:ok, params, signature, timeout} <- params(server, program, inputs, options, timeout),
         {:ok, exchange} <- Adapter.open(server, "execute", params, timeout, false) do
      {:ok, %Async{exchange: exchange, load: &prediction(&1, signature), owner: self()}}
    end
  end

  @spec stream(atom(), term(), term(), keyword()) :: Enumerable.t()
  def stream(server, program, inputs, options) do
    with {:ok, options} <- check(options, @stream_schema),
         {:ok, fields} <- names(Keyword.get(options, :fields, []), "option :fields"),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {window, options} = Keyword.pop!(options, :window),
         options =
           Keyword.put(Keyword.delete(options, :fields), :stream, %{
             fields: fields,
             window: window
           }),
         {:ok, params, signature, timeout} <- params(server, program, inputs, options, timeout) do
      # In a function nothing shows it: an LM's key may be in it.
      open = fn -> Adapter.open(server, "execute", params, timeout, true) end
      DSPex.Stream.new(open, window, &prediction(&1, signature), signature)
    else
      {:error, error} -> [{:error, error}]
    end
  end

  @doc "A stream whose last element is the prediction itself."
  @spec raising(Enumerable.t()) :: Enumerable.t()
  def raising(stream) do
    Stream.map(stream, fn
      %Chunk{} = chunk -> chunk
      {:ok, prediction} -> prediction
      {:error, error} -> raise error
    end)
  end

  @spec call(atom(), term(), term(), keyword()) :: result()
  def call(server, signature, inputs, options) do
    with {:ok, options} <- check(options, @call_schema),
         {timeout, options} = Keyword.pop!(options, :timeout),
         {meta, options} = Keyword.split(options, [:meta]),
         {retry, options} = Keyword.split(options, [:retry]),
         {:ok, program, signature, tools} <- Programs.create_params(signature, options),
         {:ok, inputs} <- map(inputs, "inputs"),
         {:ok, inputs, params} <- dump_inputs(signature, inputs, Map.new(meta)),
         params = Map.merge(params, %{program: program, inputs: inputs}),
         {:ok, result} <-
           Adapter.request(server, "execute", params, timeout, [tools: tools] ++ retry),
         do: prediction(result, signature)
  end

  defp params(server, program, inputs, options, timeout) do
    with {:ok, id, signature, timeout} <- program(server, program, timeout),
         {:ok, inputs} <- map(inputs, "inputs"),
         {:ok, inputs, options} <- dump_inputs(signature, inputs, Map.new(options)) do
      {:ok, Config.reveal(Map.merge(options, %{program: id, inputs: inputs})), signature, timeout}
    end
  end

  @doc """
  A program that is there, made where it is a module: its id and its signature, and what is left of
  the call's timeout.
  """
  @spec program(atom(), term(), timeout()) ::
          {:ok, String.t(), Signature.t() | nil, timeout()} | {:error, Error.t()}
  def program(server, program, timeout) do
    with {:ok, program, timeout} <- Programs.made(server, program, timeout),
         {:ok, id} <- id(program),
         :ok <- LostTools.restore(server, id),
         do: {:ok, id, Programs.signature(server, program, id), timeout}
  end

  # What the bridge would refuse is refused here, by the same rules and without a round trip.
  @doc "Inputs as the codec writes them; those that are parameters of the LM go to `:config`."
  @spec dump_inputs(Signature.t() | nil, map(), map()) ::
          {:ok, map(), map()} | {:error, Error.t()}
  def dump_inputs(nil, inputs, options), do: {:ok, inputs, options}

  def dump_inputs(signature, inputs, options) do
    with {:ok, _converted} <- Signature.validate_inputs(signature, inputs) do
      {inputs, config} = Signature.split_variables(signature, inputs)
      inputs = Signature.dump(signature.inputs, inputs)

      if config == %{},
        do: {:ok, inputs, options},
        else:
          {:ok, inputs, Map.update(options, :config, config, &Program.merge_config(config, &1))}
    end
  end

  @doc "What `execute` answered."
  @spec prediction(term(), Signature.t() | nil) :: result()
  def prediction(result, signature) do
    with %{"outputs" => outputs} when is_map(outputs) and not is_struct(outputs) <- result,
         {:ok, outputs} <- load_outputs(signature, outputs) do
      {:ok, Prediction.new(result, outputs)}
    else
      {:error, error} -> {:error, error}
      other -> unexpected("execute", other)
    end
  end

  @doc "Outputs under the names and of the types that the signature has."
  @spec load_outputs(Signature.t() | nil, map()) :: {:ok, map()} | {:error, Error.t()}
  def load_outputs(nil, outputs), do: {:ok, outputs}
  def load_outputs(signature, outputs), do: Signature.load_outputs(signature, outputs)
end
