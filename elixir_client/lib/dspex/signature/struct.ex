defmodule DSPex.Signature.Struct do
  @moduledoc false
  # The structs of a signature's inputs and outputs: their modules are types too.

  alias DSPex.Signature.{Field, TypeSpec, Types}

  @doc "Whether an atom is the module of such a struct."
  @spec struct?(atom()) :: boolean()
  def struct?(module), do: exports?(module, :__fields__)

  @doc "Whether an atom is the module of a signature."
  @spec signature?(atom()) :: boolean()
  def signature?(module), do: exports?(module, :__signature__)

  @doc "Whether an atom is a module with this function of no parameters."
  @spec exports?(atom(), atom()) :: boolean()
  def exports?(module, function) do
    # Only what is named like a module is looked for: every miss searches the code path. In a
    # compilation a module that is still to be compiled is waited for.
    match?("Elixir." <> _name, Atom.to_string(module)) and
      match?({:module, _}, Code.ensure_compiled(module)) and
      function_exported?(module, function, 0)
  end

  @doc """
  The module of this name, where the application has one with this function of no parameters. The name
  becomes no atom.
  """
  @spec find(String.t(), atom()) :: module() | nil
  def find(name, function) do
    module = String.to_existing_atom("Elixir." <> name)
    if exports?(module, function), do: module
  rescue
    ArgumentError -> nil
  end

  @doc "The fields of a struct's module."
  @spec fields(module()) :: [Field.t()]
  def fields(module), do: module.__fields__()

  @doc "The code of the module of a struct with these fields; `of` is what they are the fields of."
  @spec definition([Field.t()], String.t(), :inputs | :outputs) :: Macro.t()
  def definition(fields, of, side) do
    required = for field <- fields, not Types.may_be_left_out?(field), do: field.name
    defaults = Enum.map(fields, &{&1.name, default(&1)})
    listed = Enum.map_join(fields, "\n", &TypeSpec.line/1)

    quote do
      @moduledoc """
      The #{unquote(side)} of `#{unquote(of)}`.

      #{unquote(listed)}
      """

      @enforce_keys unquote(required)
      defstruct unquote(Macro.escape(defaults))

      @type t :: %__MODULE__{unquote_splicing(Enum.map(fields, &{&1.name, TypeSpec.spec(&1)}))}

      @doc """
      Makes the struct of values under atom or string keys, which are converted where nothing is lost;
      the error has all that is wrong in its `data["errors"]`.
      """
      @spec new(map() | keyword()) :: {:ok, t()} | {:error, DSPex.Error.t()}
      def new(values) do
        with {:ok, values} <-
               DSPex.Signature.Validator.validate(__fields__(), unquote(side), values),
             do: {:ok, struct!(__MODULE__, values)}
      end

      @doc false
      def __fields__, do: unquote(Macro.escape(fields))
    end
  end

  defp default(%Field{default: {:value, value}}), do: value
  defp default(%Field{default: :none}), do: nil
end
