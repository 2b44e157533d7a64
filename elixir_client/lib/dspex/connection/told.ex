defmodule DSPex.Connection.Told do
  @moduledoc false
  # What a Python has been told of the journal, and what it has to be told next: a change of the
  # configuration and a deletion before anything else, a program before the first call that needs it.
  # Requests take effect in the order in which they are written, so nothing waits for the answers.

  alias DSPex.{Config, Journal}
  alias DSPex.Protocol.Message

  @enforce_keys [:generation, :configuration]
  defstruct @enforce_keys ++ [programs: %{}]

  @type t :: %__MODULE__{
          generation: non_neg_integer(),
          configuration: Journal.version(),
          programs: %{optional(String.t()) => Journal.version()}
        }

  @type step ::
          {:reconfigure, Journal.version()} | {:load, String.t()} | {:forget, String.t()}
  @type needs :: [String.t()] | :all

  @doc "Whether the journal has changed since."
  @spec behind?(t(), atom()) :: boolean()
  def behind?(told, journal), do: Journal.generation(journal) != told.generation

  @doc "What there is to be told that no request has asked for, before anything else."
  @spec change(t(), atom()) :: {step(), body :: binary(), t()} | {:unchanged, t()}
  def change(told, journal) do
    generation = Journal.generation(journal)

    if generation == told.generation,
      do: {:unchanged, told},
      # The number goes up with the last change.
      else:
        configuration(told, journal) || deletion(told, journal) ||
          {:unchanged, %{told | generation: generation}}
  end

  defp configuration(told, journal) do
    case Journal.configuration(journal) do
      {_configuration, version} when version == told.configuration ->
        nil

      {configuration, version} ->
        # What was encoded once can be again.
        {:ok, body} = Message.body("configure", Config.reveal(configuration))
        {{:reconfigure, version}, body, %{told | configuration: version}}
    end
  end

  defp deletion(told, journal) do
    gone = Enum.find(Map.keys(told.programs), &(Journal.version(journal, &1) == nil))

    if gone do
      {:ok, body} = Message.body("delete", %{program: gone})
      {{:forget, gone}, body, %{told | programs: Map.delete(told.programs, gone)}}
    end
  end

  @doc "What comes before a request that needs these programs; `nil` for nothing."
  @spec load(t(), atom(), needs()) :: {step(), body :: binary(), t()} | nil
  def load(_told, _journal, []), do: nil
  def load(told, journal, :all), do: load(told, journal, Journal.programs(journal))

  def load(told, journal, needs) do
    Enum.find_value(needs, fn id ->
      with version when version != nil <- Journal.version(journal, id),
           true <- told.programs[id] != version,
           %Journal.Program{body: body} <- Journal.program(journal, id) do
        {{:load, id}, body.(), %{told | programs: Map.put(told.programs, id, version)}}
      else
        _none_or_told -> nil
      end
    end)
  end

  @doc "This Python has itself confirmed what the journal has now."
  @spec confirmed(t(), Journal.entry(), Journal.version() | nil, Journal.version()) :: t()
  def confirmed(told, {kind, id, _body, _signature, _tools}, _before, version)
      when kind in [:put, :add],
      do: %{told | programs: Map.put(told.programs, id, version)}

  def confirmed(told, {:delete, id}, _before, _version),
    do: %{told | programs: Map.delete(told.programs, id)}

  # Where it had not been told all before, it does not have it all now.
  def confirmed(%{configuration: before} = told, {:configure, _params}, before, version),
    do: %{told | configuration: version}

  def confirmed(told, {:configure, _params}, _before, _version), do: told

  @doc "It did not take what it was told, or has something else: it will be told again."
  @spec refused(t(), step()) :: t()
  def refused(told, {:load, id}), do: %{told | programs: Map.delete(told.programs, id)}
  def refused(told, _other), do: told
end
