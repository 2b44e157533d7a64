defmodule DSPex.Config do
  @moduledoc false
  # The configuration of LMs and embedders: checked where the application writes it, its keys hidden
  # from then on.

  alias DSPex.{Limits, Options, Secret}

  @typedoc "Parameters of `configure`, what is secret in them in `DSPex.Secret`s."
  @type t :: %{
          optional(:lms | :embedders) => %{optional(String.t()) => %{atom() => term()}},
          optional(:default_lm | :adapter) => String.t(),
          optional(:limits) => map()
        }

  # What is given by name, and added to what there is rather than put in its place.
  @by_name [:lms, :embedders]

  # The bridge's own limit.
  @max_retries 20

  @connection [
    api_key:
      {{:is, &__MODULE__.secret/1}, "the provider's key. It is held in memory and never shown."},
    api_key_env:
      {:string, "the environment variable of the Python process that holds the key instead."},
    api_base:
      {{:is, &__MODULE__.secret/1},
       "the address of an OpenAI-compatible server. It is never shown: a password may be in it."},
    num_retries:
      {{:integer, 0, @max_retries},
       "how often a failed call is made again, at most #{@max_retries} times."},
    timeout_ms: {{:integer, 1, :infinity}, "the longest that the provider may take."},
    extra:
      {{:is, &__MODULE__.extra/1},
       "more parameters of the provider, a map; headers, keys and addresses are refused in it."}
  ]

  @lm_schema [
               model:
                 {:string, "a LiteLLM name such as `\"openai/gpt-5-mini\"`, or `\"demo/knn\"`."}
             ] ++
               @connection ++
               [
                 temperature: {{:is, &__MODULE__.number/1}, "from 0."},
                 max_tokens: {{:integer, 1, :infinity}, "the most tokens of one answer."},
                 cache: {:boolean, "whether equal calls are answered from DSPy's cache."},
                 fallbacks:
                   {{:is, &__MODULE__.fallbacks/1},
                    "a list of names of other LMs, which are asked in its place, one after the " <>
                      "other, where it has failed after its retries."},
                 limits: {{:is, &Limits.option/1}, "ceilings of all its calls (see \"Limits\")."}
               ]

  @embedder_schema [
                     model:
                       {:string,
                        "a LiteLLM name such as `\"openai/text-embedding-3-small\"`, or " <>
                          "`\"demo/tfidf\"`."}
                   ] ++ @connection

  @lm %{
    one: "an LM",
    many: "LMs",
    model: "openai/gpt-5-mini",
    schema: @lm_schema
  }
  @embedder %{
    one: "an embedder",
    many: "embedders",
    model: "openai/text-embedding-3-small",
    schema: @embedder_schema
  }

  @schema [
    lms:
      {{:is, &__MODULE__.lms/1},
       "LMs by name: a map or keyword list whose values are a model's name or a keyword list of " <>
         "`model:` with options (see \"LMs\")."},
    default_lm: {:name, "the name of the LM that is used where a program or call names none."},
    adapter:
      {:name,
       "`:chat`, `:json`, `:xml`, `:baml` or `:two_step`: how prompts are written and answers read."},
    embedders:
      {{:is, &__MODULE__.embedders/1},
       "embedders by name, as LMs are given (see \"Embedders\"): what the module `:knn` and the " <>
         "optimizer `:knn_few_shot` compare texts with."},
    limits:
      {{:is, &Limits.option/1},
       "ceilings of all LM calls of a Python, in place of those before (see \"Limits\")."}
  ]

  @doc "The options that the configuration has."
  @spec schema() :: Options.schema()
  def schema, do: @schema

  @spec lm_docs() :: String.t()
  def lm_docs, do: Options.docs(@lm_schema)

  @spec embedder_docs() :: String.t()
  def embedder_docs, do: Options.docs(@embedder_schema)

  @doc """
  Checks an LM: a model's name, or a keyword list or map of options. What may be secret in the
  result is a `DSPex.Secret`.
  """
  @spec lm(term()) :: {:ok, %{atom() => term()}} | {:error, String.t()}
  def lm(value), do: model(value, @lm)

  @doc "Checks an embedder, as `lm/1` does an LM."
  @spec embedder(term()) :: {:ok, %{atom() => term()}} | {:error, String.t()}
  def embedder(value), do: model(value, @embedder)

  defp model(name, _kind) when is_binary(name), do: {:ok, %{model: name}}

  defp model(options, kind)
       when (is_map(options) and not is_struct(options)) or is_list(options) do
    with {:ok, options} <- atom_keys(options, kind),
         {:ok, options} <- Options.validate(options, kind.schema) do
      if Keyword.has_key?(options, :model),
        do: {:ok, Map.new(options)},
        else: {:error, "#{kind.one} needs a :model, such as #{inspect(kind.model)}"}
    end
  end

  # The value itself is not shown: it may be a key.
  defp model(_other, kind), do: no_model(kind)

  defp no_model(kind),
    do: {:error, "#{kind.one} is a model's name or a keyword list with :model"}

  @doc "Parameters with what is secret in the open: made last, and only to be encoded."
  @spec reveal(term()) :: term()
  def reveal(%Secret{} = secret), do: Secret.reveal(secret)
  def reveal(map) when is_map(map) and not is_struct(map), do: Map.new(map, &reveal_pair/1)
  def reveal(other), do: other

  defp reveal_pair({key, value}), do: {key, reveal(value)}

  @doc "One configuration after another: what is given by name is added or replaced, the rest replaced."
  @spec merge(map(), map()) :: map()
  def merge(earlier, later) do
    Map.merge(earlier, later, fn
      key, earlier, later when key in @by_name -> Map.merge(earlier, later)
      _key, _earlier, later -> later
    end)
  end

  # Checks of the schemas.

  @doc false
  def lms(value), do: by_name(value, @lm)

  @doc false
  def embedders(value), do: by_name(value, @embedder)

  defp by_name(value, kind) do
    if (is_map(value) and not is_struct(value)) or Keyword.keyword?(value) do
      Enum.reduce_while(value, {:ok, %{}}, fn {name, options}, {:ok, models} ->
        with {:ok, name} <- name(name, kind),
             {:ok, model} <- model(options, kind) do
          {:cont, {:ok, Map.put(models, name, model)}}
        else
          {:error, message} -> {:halt, {:error, "#{printable(name)}: #{message}"}}
        end
      end)
    else
      {:error, "expected a map or keyword list of #{kind.many} by name"}
    end
  end

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
  def fallbacks(names) when is_list(names) do
    if List.improper?(names), do: no_names(), else: fallbacks(names, [])
  end

  def fallbacks(_other), do: no_names()

  defp fallbacks([], checked), do: {:ok, Enum.reverse(checked)}

  defp fallbacks([name | names], checked) do
    with {:ok, name} <- name(name, @lm), do: fallbacks(names, [name | checked])
  end

  defp no_names, do: {:error, "expected a list of LMs' names"}

  @doc false
  def number(value) when is_number(value) and value >= 0, do: {:ok, value}
  def number(_other), do: {:error, "expected a number from 0"}

  defp name(name, _kind) when is_atom(name) and name not in [nil, true, false],
    do: {:ok, Atom.to_string(name)}

  defp name(name, _kind) when is_binary(name) and name != "", do: {:ok, name}
  defp name(_other, kind), do: {:error, "#{kind.one}'s name is an atom or a string"}

  defp printable(name) when is_atom(name) or is_binary(name), do: to_string(name)
  defp printable(_name), do: "?"

  # A configuration that was read from a file has string keys.
  defp atom_keys(options, kind) do
    if is_map(options) or Keyword.keyword?(options),
      do: Options.atom_keys(options, kind.schema),
      else: no_model(kind)
  end
end
