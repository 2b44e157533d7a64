defmodule DSPex.Config do
  @moduledoc false
  # The configuration of LMs: checked where the application writes it, its keys hidden from then on.

  alias DSPex.{Options, Secret}

  @typedoc "Parameters of `configure`, what is secret in them in `DSPex.Secret`s."
  @type t :: %{optional(:lms) => map(), optional(:default_lm | :adapter) => String.t()}

  # The bridge's own limit.
  @max_retries 20

  @lm_schema [
    model: {:string, "a LiteLLM name such as `\"openai/gpt-5-mini\"`, or `\"demo/knn\"`."},
    api_key:
      {{:is, &__MODULE__.secret/1}, "the provider's key. It is held in memory and never shown."},
    api_key_env:
      {:string, "the environment variable of the Python process that holds the key instead."},
    api_base:
      {{:is, &__MODULE__.secret/1},
       "the address of an OpenAI-compatible server. It is never shown: a password may be in it."},
    temperature: {{:is, &__MODULE__.number/1}, "from 0."},
    max_tokens: {{:integer, 1, :infinity}, "the most tokens of one answer."},
    cache: {:boolean, "whether equal calls are answered from DSPy's cache."},
    num_retries:
      {{:integer, 0, @max_retries},
       "how often a failed call is made again, at most #{@max_retries} times."},
    timeout_ms: {{:integer, 1, :infinity}, "the longest that the provider may take."},
    extra:
      {{:is, &__MODULE__.extra/1},
       "more parameters of the provider, a map; headers, keys and addresses are refused in it."}
  ]

  @schema [
    lms:
      {{:is, &__MODULE__.lms/1},
       "LMs by name: a map or keyword list whose values are a model's name or a keyword list of " <>
         "`model:` with options (see \"LMs\")."},
    default_lm: {:name, "the name of the LM that is used where a program or call names none."},
    adapter: {:name, "`:chat`, `:json` or `:xml`: how prompts are written and answers read."}
  ]

  @doc "The options that the configuration has."
  @spec schema() :: Options.schema()
  def schema, do: @schema

  @spec lm_docs() :: String.t()
  def lm_docs, do: Options.docs(@lm_schema)

  @doc """
  Checks an LM: a model's name, or a keyword list or map of options. What may be secret in the
  result is a `DSPex.Secret`.
  """
  @spec lm(term()) :: {:ok, %{atom() => term()}} | {:error, String.t()}
  def lm(model) when is_binary(model), do: {:ok, %{model: model}}

  def lm(options) when (is_map(options) and not is_struct(options)) or is_list(options) do
    with {:ok, options} <- atom_keys(options),
         {:ok, options} <- Options.validate(options, @lm_schema) do
      if Keyword.has_key?(options, :model),
        do: {:ok, Map.new(options)},
        else: {:error, "an LM needs a :model, such as \"openai/gpt-5-mini\""}
    end
  end

  # The value itself is not shown: it may be a key.
  def lm(_other), do: {:error, "an LM is a model's name or a keyword list with :model"}

  @doc "Parameters with what is secret in the open: made last, and only to be encoded."
  @spec reveal(term()) :: term()
  def reveal(%Secret{} = secret), do: Secret.reveal(secret)
  def reveal(map) when is_map(map) and not is_struct(map), do: Map.new(map, &reveal_pair/1)
  def reveal(other), do: other

  defp reveal_pair({key, value}), do: {key, reveal(value)}

  @doc "One configuration after another: LMs are added or replaced by name, the rest replaced."
  @spec merge(map(), map()) :: map()
  def merge(earlier, later) do
    Map.merge(earlier, later, fn
      :lms, earlier, later -> Map.merge(earlier, later)
      _key, _earlier, later -> later
    end)
  end

  # Checks of the schemas.

  @doc false
  def lms(value) when (is_map(value) and not is_struct(value)) or is_list(value) do
    if is_map(value) or Keyword.keyword?(value) do
      Enum.reduce_while(value, {:ok, %{}}, fn {name, lm}, {:ok, lms} ->
        with {:ok, name} <- lm_name(name),
             {:ok, lm} <- lm(lm) do
          {:cont, {:ok, Map.put(lms, name, lm)}}
        else
          {:error, message} -> {:halt, {:error, "#{printable(name)}: #{message}"}}
        end
      end)
    else
      lms(nil)
    end
  end

  def lms(_other), do: {:error, "expected a map or keyword list of LMs by name"}

  @doc false
  def secret(value) when is_binary(value) and value != "", do: {:ok, Secret.new(value)}
  def secret(%Secret{} = secret), do: {:ok, secret}
  def secret(_other), do: {:error, "expected a string that is not empty (is the variable set?)"}

  @doc false
  def extra(%Secret{} = secret), do: {:ok, secret}
  # What a provider takes, and what of that is secret, nobody knows here.
  def extra(value) when is_map(value) and not is_struct(value), do: {:ok, Secret.new(value)}

  def extra(value) do
    if Keyword.keyword?(value),
      do: {:ok, Secret.new(Map.new(value))},
      else: {:error, "expected a map"}
  end

  @doc false
  def number(value) when is_number(value) and value >= 0, do: {:ok, value}
  def number(_other), do: {:error, "expected a number from 0"}

  defp lm_name(name) when is_atom(name) and name not in [nil, true, false],
    do: {:ok, Atom.to_string(name)}

  defp lm_name(name) when is_binary(name) and name != "", do: {:ok, name}
  defp lm_name(_other), do: {:error, "an LM's name is an atom or a string"}

  defp printable(name) when is_atom(name) or is_binary(name), do: to_string(name)
  defp printable(_name), do: "?"

  # A configuration that was read from a file has string keys.
  defp atom_keys(options) do
    valid = Map.new(@lm_schema, fn {name, _spec} -> {Atom.to_string(name), name} end)

    if is_map(options) or Keyword.keyword?(options) do
      Enum.reduce_while(options, {:ok, []}, fn
        {key, value}, {:ok, done} when is_atom(key) ->
          {:cont, {:ok, [{key, value} | done]}}

        {key, value}, {:ok, done} when is_map_key(valid, key) ->
          {:cont, {:ok, [{valid[key], value} | done]}}

        {key, _value}, _done ->
          names = Map.values(valid)
          shown = inspect(key, limit: 5, printable_limit: 60)
          hint = Options.did_you_mean(key, names)
          {:halt, {:error, "unknown option #{shown}#{hint}; the options are " <> list(names)}}
      end)
    else
      {:error, "an LM is a model's name or a keyword list with :model"}
    end
  end

  defp list(names), do: Enum.map_join(names, ", ", &inspect/1)
end
