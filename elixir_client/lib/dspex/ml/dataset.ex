defmodule DSPex.ML.Dataset do
  @moduledoc """
  One version of a named list of examples at a server. Other rows are a new version, the same ones none:
  `:digest` is the SHA-256 of them, `:size` how many there are.
  """

  import DSPex.Arguments, only: [check: 2]

  alias DSPex.{Arguments, Error, Options, Signature}
  alias DSPex.ML.{GraphQL, Page, Resource}
  alias DSPex.Server.Values

  @fields [
    id: :plain,
    name: :plain,
    version: :plain,
    size: :plain,
    digest: :plain,
    created_at: :time
  ]

  @type t :: %__MODULE__{
          id: String.t(),
          name: String.t(),
          version: pos_integer(),
          size: pos_integer(),
          digest: String.t(),
          created_at: DateTime.t()
        }

  defstruct Keyword.keys(@fields)

  # As many as the server gives at once.
  @max_rows 100

  @create_schema [
                   name: {:name, "what it is called."},
                   rows: {:list, "the examples, `%{inputs: %{...}, outputs: %{...}}` each."},
                   signature:
                     {:any,
                      "of what they are examples, where their values have types of Elixir's own."}
                 ] ++ Resource.timeout_schema()

  @list_schema [name: {:string, "of this name."}] ++ Resource.page_schema()

  @doc """
  The newest version of a name: a new one where the rows are others. It is sent in one request of at most
  16 MiB; a file of examples is imported by the server, see its guide.

  #{Options.docs(@create_schema)}
  """
  @spec create(keyword()) :: {:ok, t()} | {:error, Error.t()}
  def create(options) do
    with {:ok, options} <- check(options, @create_schema),
         {:ok, signature} <- signature(options[:signature]),
         {:ok, rows} <- Arguments.examples(options[:rows], signature, "rows"),
         {:ok, rows} <- Values.to_json(rows) do
      input = %{"name" => options[:name], "rows" => rows}
      arguments = [{"input", "DatasetInput!", input}]
      Resource.change(__MODULE__, @fields, "createDataset", arguments, options[:timeout])
    end
  end

  defp signature(nil), do: {:ok, nil}
  defp signature(signature), do: Signature.fetch(signature)

  @doc "As `create/1`, but raises the error."
  @spec create!(keyword()) :: t()
  def create!(options), do: options |> create() |> Resource.bang!()

  @doc "The version of an id, or the newest of a name."
  @spec get(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def get(dataset, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         do: Resource.get(__MODULE__, @fields, "dataset", dataset, timeout)
  end

  @doc """
  The versions that there are, the newest first.

  #{Options.docs(@list_schema)}
  """
  @spec list(keyword()) :: {:ok, Page.t(t())} | {:error, Error.t()}
  def list(options \\ []) do
    with {:ok, options} <- check(options, @list_schema) do
      name = {"name", "String", options[:name]}
      Resource.list(__MODULE__, @fields, "datasets", [name], options)
    end
  end

  @doc "Its rows from one on, #{@max_rows} at most: `%{inputs: %{...}, outputs: %{...}}`, under strings."
  @spec rows(t() | String.t(), non_neg_integer(), [Resource.option()]) ::
          {:ok, [map()]} | {:error, Error.t()}
  def rows(dataset, from \\ 0, options \\ []) when is_integer(from) and from >= 0 do
    with {:ok, timeout} <- Resource.timeout(options),
         {:ok, id} <- Resource.id(dataset, __MODULE__),
         asked = "rows(first: #{@max_rows}, skip: #{from}) { inputs outputs }",
         {:ok, %{"rows" => rows}} <-
           GraphQL.query("dataset", [{"id", "ID!", id}], asked, timeout),
         {:ok, rows} <- Values.from_json(rows) do
      {:ok,
       for(
         %{"inputs" => inputs, "outputs" => outputs} <- rows,
         do: %{inputs: inputs, outputs: outputs}
       )}
    else
      {:ok, nil} -> {:error, Error.new(:not_found, "there is no such dataset")}
      {:error, error} -> {:error, error}
    end
  end
end
