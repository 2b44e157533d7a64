defmodule DSPex.Connection.Request do
  @moduledoc false
  # What a caller hands to a connection.

  alias DSPex.Connection.{Callback, Told}

  @enforce_keys [:ref, :caller, :method, :body, :size, :entry, :needs, :listens?, :functions]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          ref: reference(),
          caller: pid(),
          method: String.t(),
          # In a function nothing shows it.
          body: (... -> binary()),
          size: pos_integer(),
          entry: DSPex.Journal.entry() | nil,
          needs: Told.needs(),
          listens?: boolean(),
          functions: Callback.functions()
        }

  # Replaced or not, what has this id is there before.
  @makers ~w(create load)

  @doc "The programs that a request is about, which its worker has to have."
  @spec needs(String.t(), map()) :: Told.needs()
  def needs("list", _params), do: :all
  def needs(method, %{replace: true}) when method in @makers, do: []

  def needs(_method, params) do
    program(params, :program) ++ program(params, :save_as) ++ programs(params)
  end

  defp program(params, key) do
    case params do
      %{^key => program} when is_binary(program) -> [program]
      _none -> []
    end
  end

  # An optimizer that takes programs has them by id.
  defp programs(%{optimizer: %{params: %{programs: programs}}}) when is_list(programs),
    do: Enum.filter(programs, &is_binary/1)

  defp programs(_params), do: []
end
