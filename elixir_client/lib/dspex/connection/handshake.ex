defmodule DSPex.Connection.Handshake do
  @moduledoc false
  # What a new Python is told before any call: hello and the configuration. Without input or output:
  # it says what to ask, and is told the answers.

  alias DSPex.Connection.{Caller, Failure}
  alias DSPex.{Config, Error, Journal}
  alias DSPex.Protocol.{Apart, Message}

  @protocol_version 1

  # The protocol's default, which holds until the bridge has told its own.
  @default_max_frame_bytes 16 * 1024 * 1024

  # What a bridge will answer to the same handshake again, however often it is started.
  @final_refusals [:invalid_params, :not_found, :unsupported_version]

  # `generation` and `configuration` say how much of the journal Python was told.
  @enforce_keys [:journal]
  defstruct [
    :journal,
    :generation,
    :configuration,
    peer_max_frame_bytes: @default_max_frame_bytes,
    peer_max_in_flight: :infinity
  ]

  @type t :: %__MODULE__{}
  @type step :: :initialize | {:configure, Config.t(), changed? :: boolean()}
  @type question :: {step(), method :: String.t(), Journal.body()}

  @typedoc """
  What is next: a question to ask, nothing more (`:ready`), or the reason why there is no next,
  which for `:refused` will be the same however often it is tried. For `{:failed, :lasting}` it will be
  so until a person mends it where Python is.
  """
  @type outcome ::
          {:ask, question(), t()}
          | {:ready, t()}
          | {{:failed, Failure.cause()} | :refused, String.t()}

  @spec start(atom(), pos_integer(), String.t() | nil) :: outcome()
  def start(journal, max_frame_bytes, log_level) do
    hello = %{
      protocol_version: @protocol_version,
      client: %{name: "dspex-elixir", version: version()},
      max_frame_bytes: max_frame_bytes
    }

    hello = if log_level, do: Map.put(hello, :log_level, log_level), else: hello
    ask(%__MODULE__{journal: journal}, :initialize, "initialize", hello)
  end

  defp version, do: :dspex |> Application.spec(:vsn) |> to_string()

  @doc """
  Reads the answer to a question of the connection's own, of which no more is kept than is asked for:
  the connection lives long, and what is long is not to come into its heap.
  """
  @spec read(term(), binary()) :: {:ok, term()} | {:error, Error.t()}
  def read(step, frame) do
    work = &(&1 |> Message.parse_here() |> Caller.result() |> needed(step))
    with {:ok, answer} <- Apart.read(frame, work), do: answer
  end

  defp needed({:ok, %{"protocol_version" => version} = result}, :initialize)
       when is_integer(version) do
    limits = %{
      max_frame_bytes: limit(result, "max_frame_bytes", @default_max_frame_bytes),
      max_in_flight: limit(result, "max_in_flight", :infinity)
    }

    {:ok, {version, limits}}
  end

  defp needed({:ok, _result}, _step), do: {:ok, nil}
  defp needed({:error, error}, _step), do: {:error, %{error | data: %{}}}

  defp limit(%{"limits" => %{} = limits}, name, default) do
    case limits do
      %{^name => limit} when is_integer(limit) and limit > 0 -> limit
      _none -> default
    end
  end

  defp limit(_result, _name, default), do: default

  @doc """
  Goes on with what was read of the answer to a question. `wanted` gives what callers want to have
  changed in a configuration that was refused.
  """
  @spec answer(t(), step(), {:ok, term()} | {:error, Error.t()}, (() -> [Config.t()])) ::
          outcome()
  def answer(handshake, :initialize, {:ok, result}, wanted),
    do: initialized(handshake, result, wanted)

  def answer(handshake, {:configure, params, changed?}, {:ok, _result}, _wanted) do
    if changed?, do: changed(handshake, params), else: {:ready, handshake}
  end

  def answer(_handshake, :initialize, {:error, error}, _wanted), do: refused("initialize", error)

  def answer(_handshake, {:configure, _params, _changed?}, {:error, error}, _wanted),
    do: refused("configure", error)

  # News to the journal: callers have changed what it had.
  defp changed(handshake, params) do
    case Journal.record(handshake.journal, {:configure, params}) do
      {:ok, _before, version} -> {:ready, %{handshake | configuration: version}}
      # The next one is told the journal's.
      {:error, error} -> {{:failed, :passing}, refusal_text("configure", error)}
    end
  end

  defp refused(method, error), do: {refusal(error), refusal_text(method, error)}

  defp refusal_text(method, error), do: "#{method} was refused: #{Exception.message(error)}"

  defp refusal(%Error{code: code}) when code in @final_refusals, do: :refused
  # A package that is missing.
  defp refusal(%Error{code: :unavailable}), do: {:failed, :lasting}
  defp refusal(_error), do: {:failed, :passing}

  defp initialized(handshake, {@protocol_version, limits}, wanted) do
    # Read before the configuration is: whatever changes meanwhile is told again.
    generation = Journal.generation(handshake.journal)
    {known, version} = Journal.configuration(handshake.journal)

    handshake = %{
      handshake
      | peer_max_frame_bytes: limits.max_frame_bytes,
        peer_max_in_flight: limits.max_in_flight,
        generation: generation,
        configuration: version
    }

    params = Enum.reduce(wanted.(), known, &Config.merge(&2, &1))

    if params == %{},
      do: {:ready, handshake},
      else:
        ask(handshake, {:configure, params, params != known}, "configure", Config.reveal(params))
  end

  # Another version will be another version tomorrow.
  defp initialized(_handshake, {other, _limits}, _wanted) do
    {:refused,
     "it speaks version #{other} of the protocol, this client version #{@protocol_version}: " <>
       "install the bridge of the same release"}
  end

  defp initialized(_handshake, _other, _wanted),
    do:
      {{:failed, :lasting},
       "it answered initialize with no protocol version #{@protocol_version}"}

  defp ask(handshake, step, method, params) do
    case Message.body(method, params) do
      # In a function nothing shows it.
      {:ok, body} -> {:ask, {step, method, fn -> body end}, handshake}
      {:error, error} -> {{:failed, :lasting}, error.message}
    end
  end
end
