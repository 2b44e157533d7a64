defmodule DSPex.ML.Signature do
  @moduledoc """
  One version of a named signature at a server. A changed definition is a new version, the same one is
  none; programs are made of `:active` ones, and go on where theirs becomes `:deprecated`.

  `:text` is the signature in one line, `:definition` all of it, as a map that `DSPex.Signature.fetch/1`
  takes.
  """

  import DSPex.Arguments, only: [check: 2]

  alias DSPex.{Error, Options, Signature}
  alias DSPex.ML.{Page, Resource}
  alias DSPex.Server.Values

  @fields [
    id: :plain,
    name: :plain,
    version: :plain,
    text: :plain,
    definition: :plain,
    state: :state,
    created_at: :time
  ]

  @type t :: %__MODULE__{
          id: String.t(),
          name: String.t(),
          version: pos_integer(),
          text: String.t(),
          definition: map(),
          state: :draft | :active | :deprecated,
          created_at: DateTime.t()
        }

  defstruct Keyword.keys(@fields)

  @create_schema [
                   name: {:name, "what it is called; without it the name of the module."},
                   signature:
                     {:any, "what `DSPex.Signature.fetch/1` takes: a module, a text, a map."},
                   draft: {:boolean, "whether no program is made of it yet.", false}
                 ] ++ Resource.timeout_schema()

  @list_schema [
                 name: {:string, "of this name."},
                 state: {{:is, &Resource.states/1}, "in this state, or in one of these."}
               ] ++ Resource.page_schema()

  @doc """
  The newest version of a name: a new one where the definition is another.

  #{Options.docs(@create_schema)}
  """
  @spec create(keyword()) :: {:ok, t()} | {:error, Error.t()}
  def create(options) do
    with {:ok, options} <- check(options, @create_schema),
         {:ok, signature} <- Signature.fetch(options[:signature]),
         {:ok, definition} <- Values.to_plain(Signature.to_wire(signature)),
         {:ok, name} <- name(options[:name], options[:signature]) do
      input = %{"name" => name, "definition" => definition, "draft" => options[:draft]}

      arguments = [{"input", "SignatureInput!", input}]
      Resource.change(__MODULE__, @fields, "createSignature", arguments, options[:timeout])
    end
  end

  defp name(nil, module) when is_atom(module) and module != nil, do: {:ok, inspect(module)}
  defp name(nil, _other), do: DSPex.Arguments.invalid("option :name: a signature needs one")
  defp name(name, _signature), do: {:ok, name}

  @doc "As `create/1`, but raises the error."
  @spec create!(keyword()) :: t()
  def create!(options), do: options |> create() |> Resource.bang!()

  @doc "The version of an id."
  @spec get(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def get(signature, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         do: Resource.get(__MODULE__, @fields, "signature", signature, timeout)
  end

  @doc """
  The versions that there are, the newest first.

  #{Options.docs(@list_schema)}
  """
  @spec list(keyword()) :: {:ok, Page.t(t())} | {:error, Error.t()}
  def list(options \\ []) do
    with {:ok, options} <- check(options, @list_schema) do
      filter = {"filter", "SignatureFilter", Resource.filter(options, [:name, :state])}
      Resource.list(__MODULE__, @fields, "signatures", [filter], options)
    end
  end

  @doc "Has no more programs made of it."
  @spec deprecate(t() | String.t(), [Resource.option()]) :: {:ok, t()} | {:error, Error.t()}
  def deprecate(signature, options \\ []) do
    with {:ok, timeout} <- Resource.timeout(options),
         {:ok, id} <- Resource.id(signature, __MODULE__),
         arguments = [{"id", "ID!", id}],
         do: Resource.change(__MODULE__, @fields, "deprecateSignature", arguments, timeout)
  end
end
