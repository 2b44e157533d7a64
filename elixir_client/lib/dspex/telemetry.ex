defmodule DSPex.Telemetry do
  @events [
    call_start: %{
      event: [:dspex, :call, :start],
      text: "A call begins.",
      measurements: [system_time: "nanoseconds of the system's clock"],
      metadata: [
        server: "the instance",
        method: "of the protocol: `\"execute\"`, `\"create\"`…",
        program: "the id of the program, `nil` where there is none or it is sent along",
        call: "an integer, the same in all events of this call"
      ]
    },
    call_stop: %{
      event: [:dspex, :call, :stop],
      text:
        "A call is answered, or its caller does not want its answer any more. Who is killed tells " <>
          "no more events.",
      measurements: [duration: "nanoseconds"],
      metadata: [
        server: "the instance",
        method: "of the protocol",
        program: "as at the start",
        call: "as at the start",
        outcome: "`:ok`, the code of the error, or `:closed` of one whose answer is not wanted"
      ]
    },
    tokens: %{
      event: [:dspex, :tokens],
      text: "What the LM calls of a call took, failed ones too; at most once for a call.",
      measurements: [
        prompt_tokens: "a count",
        completion_tokens: "a count",
        total_tokens: "a count",
        cost_usd: "in US dollars, `nil` where a price is not known"
      ],
      metadata: [
        server: "the instance",
        method: "of the protocol",
        program: "as at the start",
        call: "as at the start",
        lm: "the name of the LM, `nil` where several may have answered"
      ]
    },
    python_start: %{
      event: [:dspex, :python, :start],
      text: "A Python process has been started.",
      measurements: [failures: "how many starts before it have failed in a row"],
      metadata: [
        server: "the instance",
        worker: "its number, from 1",
        os_pid: "the process's id, `nil` where it has ended already"
      ]
    },
    python_ready: %{
      event: [:dspex, :python, :ready],
      text: "Python takes calls: it has the configuration and every program.",
      measurements: [duration: "nanoseconds since its start"],
      metadata: [server: "the instance", worker: "its number, from 1", os_pid: "the process's id"]
    },
    python_stop: %{
      event: [:dspex, :python, :stop],
      text: "A Python that was ready has ended, or is replaced; another one is started.",
      measurements: [
        lost: "how many calls were under way, and are answered with `:connection_lost`"
      ],
      metadata: [
        server: "the instance",
        worker: "its number, from 1",
        os_pid: "the process's id",
        reason: "a text"
      ]
    },
    python_failed: %{
      event: [:dspex, :python, :failed],
      text: "Python could not be made ready.",
      measurements: [failures: "how many times in a row"],
      metadata: [
        server: "the instance",
        worker: "its number, from 1",
        reason: "a text",
        retry_in_ms: "until the next attempt; `nil` where there is none without a change"
      ]
    },
    queue_full: %{
      event: [:dspex, :queue, :full],
      text: "A request was refused with `:overloaded`, because too much waits to be written.",
      measurements: [bytes: "that wait", length: "of the requests that are not answered"],
      metadata: [server: "the instance", worker: "its number, from 1", method: "of the protocol"]
    },
    queue_written: %{
      event: [:dspex, :queue, :written],
      text: "A request has been written to Python.",
      measurements: [
        duration: "nanoseconds that it waited",
        bytes: "that wait after it",
        length: "of the requests that are not answered, with this one"
      ],
      metadata: [
        server: "the instance",
        worker: "its number, from 1",
        method: "of the protocol",
        request: "its id on the wire"
      ]
    },
    callback_start: %{
      event: [:dspex, :callback, :start],
      text: "Python calls a tool or a metric of the application's.",
      measurements: [system_time: "nanoseconds of the system's clock"],
      metadata: [
        server: "the instance",
        kind: "`:tool` or `:metric`",
        name: "a text",
        program: "the id of the program, `nil` of a metric",
        request: "the id of the execution on the wire"
      ]
    },
    callback_stop: %{
      event: [:dspex, :callback, :stop],
      text:
        "It has answered. One that is killed, because its answer is not wanted, has no such event.",
      measurements: [duration: "nanoseconds"],
      metadata: [
        server: "the instance",
        kind: "`:tool` or `:metric`",
        name: "a text",
        program: "as at the start",
        request: "as at the start",
        outcome: "`:ok` or the code of the error"
      ]
    }
  ]

  list = fn pairs ->
    Enum.map_join(pairs, "\n", fn {key, text} -> "    * `#{key}` - #{text}" end)
  end

  docs =
    Enum.map_join(@events, "\n", fn {_key, about} ->
      """
      ### `#{inspect(about.event)}`

      #{about.text}

        * measurements:
      #{list.(about.measurements)}
        * metadata:
      #{list.(about.metadata)}
      """
    end)

  @moduledoc """
  What DSPex tells of what it does.

      DSPex.Telemetry.attach("my-costs", [:dspex, :tokens], fn _event, measurements, metadata ->
        MyApp.Costs.add(metadata.program, measurements.cost_usd)
      end)

  Every event goes to the handlers that are attached here, and where the application has the library
  `:telemetry` loaded, to its handlers as well. A handler runs in the process that the event happens
  in, a connection's or a caller's, so it is short. One that raises is detached and logged.

  There is no key and no text of a prompt in any of them.

  ## Events

  #{docs}
  ## Logger

  What DSPex logs about an instance's Python has `dspex_server` in its metadata. What Python logs or
  prints comes to `Logger` with the same and with `dspex_logger` (Python's name of the logger); where it
  is about a request, with `dspex_request`, its id on the wire, and with the metadata that the process
  had that made the call, such as Phoenix's `request_id`. What its tools and metrics log has these, too.
  """

  require Logger

  @type event :: [atom(), ...]
  @type handler :: (event(), measurements :: map(), metadata :: map() -> any())

  @key __MODULE__

  @doc "The events that there are, each with the keys of its measurements and metadata."
  @spec events() :: [%{event: event(), measurements: [atom()], metadata: [atom()]}]
  def events do
    for {_key, about} <- @events do
      %{
        event: about.event,
        measurements: Keyword.keys(about.measurements),
        metadata: Keyword.keys(about.metadata)
      }
    end
  end

  @doc """
  Attaches a handler to an event, or to all that begin so: `[:dspex]` is every one. An id that is in use
  is `{:error, :already_exists}`; a prefix of no event raises `ArgumentError`.
  """
  @spec attach(term(), [atom()], handler()) :: :ok | {:error, :already_exists}
  def attach(id, prefix, handler) when is_list(prefix) and is_function(handler, 3) do
    if not Enum.any?(@events, fn {_key, about} -> List.starts_with?(about.event, prefix) end) do
      known = Enum.map_join(@events, ", ", fn {_key, about} -> inspect(about.event) end)
      raise ArgumentError, "no event of DSPex begins with #{inspect(prefix)}; there are #{known}"
    end

    update(fn handlers ->
      if List.keymember?(handlers, id, 0),
        do: {{:error, :already_exists}, handlers},
        else: {:ok, [{id, prefix, handler} | handlers]}
    end)
  end

  @doc "Detaches a handler."
  @spec detach(term()) :: :ok | {:error, :not_found}
  def detach(id) do
    update(fn handlers ->
      case List.keytake(handlers, id, 0) do
        {_handler, rest} -> {:ok, rest}
        nil -> {{:error, :not_found}, handlers}
      end
    end)
  end

  # Handlers are read with every event and hardly ever change.
  defp update(fun) do
    :global.trans(
      {@key, self()},
      fn ->
        handlers = handlers()
        {answer, changed} = fun.(handlers)
        if changed != handlers, do: :persistent_term.put(@key, changed)
        answer
      end,
      [node()]
    )
  end

  defp handlers, do: :persistent_term.get(@key, [])

  @doc false
  # Whether anybody may listen: what is only for events need not be made otherwise.
  @spec on?() :: boolean()
  def on?, do: handlers() != [] or function_exported?(:telemetry, :execute, 3)

  @doc false
  # One clause for each event that is listed, with the keys that are listed, so that none is emitted
  # that the documentation does not have.
  @spec emit(atom(), map(), map()) :: :ok
  for {key, about} <- @events do
    pattern = fn pairs -> {:%{}, [], for({key, _text} <- pairs, do: {key, {:_, [], nil}})} end

    def emit(
          unquote(key),
          unquote(pattern.(about.measurements)) = measurements,
          unquote(pattern.(about.metadata)) = metadata
        )
        when map_size(measurements) == unquote(length(about.measurements)) and
               map_size(metadata) == unquote(length(about.metadata)),
        do: tell(unquote(about.event), measurements, metadata)
  end

  defp tell(event, measurements, metadata) do
    if function_exported?(:telemetry, :execute, 3),
      do: apply(:telemetry, :execute, [event, measurements, metadata])

    for {id, prefix, handler} <- handlers(), List.starts_with?(event, prefix) do
      try do
        handler.(event, measurements, metadata)
      catch
        kind, reason ->
          detach(id)
          text = Exception.format(kind, reason, __STACKTRACE__)
          Logger.error("DSPex: the telemetry handler #{inspect(id)} is detached: #{text}")
      end
    end

    :ok
  end

  @doc false
  # A tool or a metric, of which `run` says what came.
  @spec callback(map(), (() -> {:ok, term()} | {:error, DSPex.Error.t()})) ::
          {:ok, term()} | {:error, DSPex.Error.t()}
  def callback(about, run) do
    emit(:callback_start, %{system_time: System.system_time(:nanosecond)}, about)
    began = now()
    result = run.()
    outcome = with {:error, error} <- result, do: error.code
    outcome = with {:ok, _value} <- outcome, do: :ok
    emit(:callback_stop, %{duration: since(began)}, Map.put(about, :outcome, outcome))
    result
  end

  @doc false
  # Durations and moments are nanoseconds, whatever the runtime's own unit is.
  @spec since(integer()) :: non_neg_integer()
  def since(began), do: now() - began

  @doc false
  @spec now() :: integer()
  def now, do: System.monotonic_time(:nanosecond)
end
