defmodule DSPex.Connection.Handshake do
  @moduledoc false
  # What a new Python is told before any call: hello, the configuration, every program. Without input
  # or output: it says what to ask, and is told the answers.

  require Logger

  alias DSPex.Connection.Caller
  alias DSPex.{Config, Error, Journal}
  alias DSPex.Protocol.{Apart, Message}

  @protocol_version 1

  # The protocol's default, which holds until the bridge has told its own.
  @default_max_frame_bytes 16 * 1024 * 1024

  # Programs that are made again at one time: more would be refused by a bridge with a low limit.
  @restore_window 4

  # What a bridge will answer to the same handshake again, however often it is started.
  @final_refusals [:invalid_params, :not_found, :unsupported_version]

  @enforce_keys [:journal]
  defstruct [
    :journal,
    peer_max_frame_bytes: @default_max_frame_bytes,
    restoring: 0,
    to_restore: []
  ]

  @type t :: %__MODULE__{}
  @type step :: :initialize | {:configure, Config.t()} | {:restore, String.t()}
  @type question :: {step(), method :: String.t(), Journal.body()}

  @typedoc """
  What is next: questions to ask, nothing more (`:ready`), or the reason why there is no next,
  which for `:refused` will be the same however often it is tried.
  """
  @type outcome :: {:ask, [question()], t()} | {:ready, t()} | {:failed | :refused, String.t()}

  @spec start(atom(), pos_integer()) :: outcome()
  def start(journal, max_frame_bytes) do
    ask(%__MODULE__{journal: journal}, :initialize, "initialize", %{
      protocol_version: @protocol_version,
      client: %{name: "dspex-elixir", version: version()},
      max_frame_bytes: max_frame_bytes
    })
  end

  defp version, do: :dspex |> Application.spec(:vsn) |> to_string()

  @doc """
  Reads the answer to a question, of which no more is kept than the handshake asks for: the
  connection lives long, and what is long is not to come into its heap.
  """
  @spec read(step(), binary()) :: {:ok, term()} | {:error, Error.t()}
  def read(step, frame) do
    work = &(&1 |> Message.parse_here() |> Caller.result() |> needed(step))
    with {:ok, answer} <- Apart.read(frame, work), do: answer
  end

  defp needed({:ok, %{"protocol_version" => @protocol_version} = result}, :initialize) do
    case result do
      %{"limits" => %{"max_frame_bytes" => max}} when is_integer(max) and max > 0 ->
        {:ok, {@protocol_version, max}}

      _none ->
        {:ok, {@protocol_version, @default_max_frame_bytes}}
    end
  end

  defp needed({:ok, _result}, _step), do: {:ok, nil}
  defp needed({:error, error}, _step), do: {:error, %{error | data: %{}}}

  @doc """
  Goes on with what was read of the answer to a question. `wanted` gives what callers want to have changed in a
  configuration that was refused.
  """
  @spec answer(t(), step(), {:ok, term()} | {:error, Error.t()}, (() -> [Config.t()])) ::
          outcome()
  def answer(handshake, :initialize, {:ok, result}, wanted),
    do: initialized(handshake, result, wanted)

  def answer(handshake, {:configure, params}, {:ok, _result}, _wanted) do
    # News to the journal where callers have changed it.
    Journal.record(handshake.journal, {:configure, params})
    configured(handshake)
  end

  def answer(handshake, {:restore, _program}, {:ok, _result}, _wanted), do: restored(handshake)

  # The others are still worth having; calls on this one will be told that it is not found.
  def answer(handshake, {:restore, program}, {:error, error}, _wanted) do
    Logger.error("DSPex could not make the program #{program} again: #{Exception.message(error)}")
    restored(handshake)
  end

  def answer(_handshake, :initialize, {:error, error}, _wanted), do: refused("initialize", error)

  def answer(_handshake, {:configure, _params}, {:error, error}, _wanted),
    do: refused("configure", error)

  defp refused(method, error) do
    kind = if error.code in @final_refusals, do: :refused, else: :failed
    {kind, "#{method} was refused: #{Exception.message(error)}"}
  end

  defp initialized(handshake, {@protocol_version, max_frame_bytes}, wanted) do
    handshake = %{handshake | peer_max_frame_bytes: max_frame_bytes}
    known = Journal.configuration(handshake.journal)

    case Enum.reduce(wanted.(), known, &Config.merge(&2, &1)) do
      none when none == %{} -> configured(handshake)
      params -> ask(handshake, {:configure, params}, "configure", Config.reveal(params))
    end
  end

  defp initialized(_handshake, _other, _wanted),
    do: {:failed, "it answered initialize with no protocol version 1"}

  defp configured(handshake) do
    case handshake.journal |> Journal.programs() |> Enum.split(@restore_window) do
      {[], []} ->
        {:ready, handshake}

      {now, later} ->
        {:ask, Enum.map(now, &restore/1),
         %{handshake | restoring: length(now), to_restore: later}}
    end
  end

  defp restore({program, body}), do: {{:restore, program}, "create", body}

  defp restored(%{to_restore: [next | later]} = handshake),
    do: {:ask, [restore(next)], %{handshake | to_restore: later}}

  defp restored(%{restoring: 1} = handshake), do: {:ready, %{handshake | restoring: 0}}
  defp restored(handshake), do: {:ask, [], %{handshake | restoring: handshake.restoring - 1}}

  defp ask(handshake, step, method, params) do
    case Message.body(method, params) do
      # In a function nothing shows it.
      {:ok, body} -> {:ask, [{step, method, fn -> body end}], handshake}
      {:error, error} -> {:failed, error.message}
    end
  end
end
