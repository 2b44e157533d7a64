defmodule DSPex.Connection.Health do
  @moduledoc false
  # Whether Python is alive, busy or stuck. Without input or output but for a look at /proc: it is
  # told what is heard and when to look, and says what to do.
  #
  # The bridge answers a ping within milliseconds, whatever its programs do; only what keeps all of
  # Python from running holds it up. So silence alone proves nothing: a Python that computes is busy,
  # and given long; one that is stopped, or that sleeps and answers nothing, is stuck.

  alias DSPex.Connection.Proc

  # A process can be stopped, or seem idle, for a moment.
  @looks 2

  @enforce_keys [:options, :os_pid, :heard_at]
  defstruct @enforce_keys ++ [asked_at: nil, cpu: nil, stopped: 0, idle: 0]

  @typedoc """
  In milliseconds: how long after the last sign of life a ping is sent, how long it may go unanswered
  by a process that does nothing, and by one that computes.
  """
  @type options :: %{interval: timeout(), timeout: timeout(), busy_timeout: timeout()}

  @type t :: %__MODULE__{
          options: options(),
          os_pid: pos_integer() | nil,
          heard_at: integer(),
          asked_at: integer() | nil,
          cpu: non_neg_integer() | nil,
          stopped: non_neg_integer(),
          idle: non_neg_integer()
        }

  @doc "Those of an instance."
  @spec options(keyword()) :: options()
  def options(options) do
    %{
      interval: Keyword.fetch!(options, :heartbeat_interval),
      timeout: Keyword.fetch!(options, :heartbeat_timeout),
      busy_timeout: Keyword.fetch!(options, :busy_timeout)
    }
  end

  @spec new(options(), pos_integer() | nil, integer()) :: t()
  def new(options, os_pid, now),
    do: %__MODULE__{options: options, os_pid: os_pid, heard_at: now}

  @doc "Python has written something."
  @spec heard(t(), integer()) :: t()
  def heard(health, now),
    do: %{health | heard_at: now, asked_at: nil, cpu: nil, stopped: 0, idle: 0}

  @doc "To be called once an interval. `:ask` is for a ping; one that is `:suspect` may be busy."
  @spec look(t(), integer()) :: {:ok | :ask | :suspect, t()} | {:stuck, String.t()}
  def look(%{asked_at: nil} = health, now) do
    if now - health.heard_at < health.options.interval do
      {:ok, health}
    else
      {state, cpu} = sample(health)
      {:ask, %{health | asked_at: now, cpu: cpu, stopped: if(state == :stopped, do: 1, else: 0)}}
    end
  end

  def look(health, now) do
    waited = now - health.asked_at
    {state, cpu} = sample(health)

    case judge(health, waited, state, cpu) do
      {:stuck, why} -> {:stuck, "it has not answered a ping for #{waited} ms and #{why}"}
      health -> {:suspect, %{health | cpu: cpu}}
    end
  end

  defp judge(%{stopped: stopped}, _waited, :stopped, _cpu) when stopped + 1 >= @looks,
    do: {:stuck, "its process is stopped"}

  defp judge(health, _waited, :stopped, _cpu), do: %{health | stopped: health.stopped + 1}

  # Every number is less than :infinity, as than any atom.
  defp judge(%{options: %{busy_timeout: limit}}, waited, _state, _cpu) when waited >= limit,
    do: {:stuck, "no process is to be busy for so long"}

  defp judge(%{options: %{timeout: limit}} = health, waited, _state, _cpu) when waited < limit,
    do: health

  # Where nothing tells, it is taken for busy.
  defp judge(health, _waited, :unknown, _cpu), do: health

  defp judge(health, _waited, state, cpu) when state == :runs or cpu != health.cpu,
    do: %{health | idle: 0}

  defp judge(%{idle: idle}, _waited, :sleeps, _cpu) when idle + 1 >= @looks,
    do: {:stuck, "does nothing"}

  defp judge(health, _waited, :sleeps, _cpu), do: %{health | idle: health.idle + 1}

  defp sample(%{os_pid: nil}), do: {:unknown, nil}
  defp sample(%{os_pid: os_pid}), do: Proc.sample(os_pid)
end
