defmodule DSPex.Connection do
  @moduledoc false
  # One Python process and the calls on it.
  #
  # The connection owns the port and routes, no more: a caller encodes its request and decodes its
  # response in its own process, and waits on an alias, so that a response that comes too late is
  # dropped by the runtime and never reaches a mailbox.
  #
  # Python comes and goes under it:
  #
  #     starting --(initialize, configure, every program of the journal)--> ready
  #        ^  |                                                              |
  #        |  +-- failed: waits, longer each time ----> down                 |
  #        |  +-- refused: waits for a configure -----> down                 |
  #        +--------------------------------------------- Python ended ------+
  #
  # While starting, requests wait. While down they are refused at once with the reason. A request
  # that was written when Python ended is answered with :connection_lost; one that was not just
  # waits for the next Python.

  use GenServer

  require Logger

  alias DSPex.{Config, Error, Journal}
  alias DSPex.Connection.{Outbox, Writer}
  alias DSPex.Protocol.{Framing, Message}

  @protocol_version 1

  # The protocol's default, which holds until the bridge has told its own.
  @default_max_frame_bytes 16 * 1024 * 1024

  # How much longer than its deadline a caller waits, for the bridge's own answer to it.
  @grace_ms 250

  # After a failed start. The longest is what a person who mends the cause may have to wait.
  @first_backoff_ms 100
  @max_backoff_ms 10_000

  # Programs that are made again at one time: more would be refused by a bridge with a low limit.
  @restore_window 4

  # Around a request's body: an array's head, its kind and the longest id.
  @max_envelope_bytes 11

  # Requests that can be made again whatever became of the first one: they change nothing, or
  # nothing that a new Python would still have. Others may have called an LM.
  @repeatable ~w(ping stats list describe dump create load delete configure)

  # What a bridge will answer to the same handshake again, however often it is started.
  @final_refusals [:invalid_params, :not_found, :unsupported_version]

  @enforce_keys [:name, :command, :journal, :max_frame_bytes, :start_timeout, :outbox]
  defstruct @enforce_keys ++
              [
                phase: :down,
                failures: 0,
                failure: nil,
                port: nil,
                os_pid: nil,
                writer: nil,
                writing?: false,
                decoder: nil,
                peer_max_frame_bytes: @default_max_frame_bytes,
                next_id: 0,
                calls: %{},
                ids: %{},
                restoring: 0,
                to_restore: []
              ]

  defmodule Call do
    @moduledoc false
    # A request of a caller (`reply` is its alias) or of the connection itself (`reply` is a step of
    # the handshake). `entry` is for the journal, once it has succeeded.
    @enforce_keys [:reply, :method]
    defstruct [:reply, :method, :monitor, :entry, written?: false]
  end

  # --- the caller's side ---

  @type option ::
          {:name, atom()}
          | {:command, {String.t(), [String.t()]}}
          | {:journal, atom()}
          | {:max_frame_bytes, pos_integer()}
          | {:start_timeout, timeout()}
          | {:max_queued_bytes, pos_integer()}

  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(options) do
    GenServer.start_link(__MODULE__, options, name: Keyword.fetch!(options, :name))
  end

  @doc """
  Sends a request and waits for its result.

  `entry` makes the journal's entry, which is written once the bridge has confirmed the request, of
  the body that makes the request again: without the deadline, which was this call's alone.
  """
  @spec request(
          GenServer.server(),
          String.t(),
          map(),
          timeout(),
          nil | (Journal.body() -> Journal.entry())
        ) ::
          {:ok, term()} | {:error, Error.t()}
  def request(connection, method, params, timeout, entry \\ nil) do
    with {:ok, pid} <- whereis(connection),
         {:ok, body} <- Message.body(method, with_deadline(params, timeout)),
         {:ok, entry} <- make_entry(entry, method, params),
         {:ok, frame} <- call(pid, method, body, timeout, entry) do
      result(frame)
    end
  end

  defp with_deadline(params, :infinity), do: params
  defp with_deadline(params, timeout), do: Map.put(params, :timeout_ms, timeout)

  defp make_entry(nil, _method, _params), do: {:ok, nil}

  defp make_entry(entry, method, params) do
    # In a function nothing shows it.
    with {:ok, body} <- Message.body(method, params), do: {:ok, entry.(fn -> body end)}
  end

  defp whereis(connection) do
    case GenServer.whereis(connection) do
      nil -> {:error, not_running()}
      pid -> {:ok, pid}
    end
  end

  defp not_running do
    Error.new(:not_started, "the DSPex instance is not running", retryable: true)
  end

  defp call(pid, method, body, timeout, entry) do
    size = byte_size(body) + @max_envelope_bytes
    # In a function nothing shows it.
    body = fn -> body end
    ref = :erlang.monitor(:process, pid, alias: :reply_demonitor)
    GenServer.cast(pid, {:request, ref, self(), method, body, size, entry})

    receive do
      {^ref, answer} -> answer
      {:DOWN, ^ref, :process, _pid, reason} -> {:error, connection_down(reason, method)}
    after
      wait_ms(timeout) -> give_up(pid, ref, timeout)
    end
  end

  defp wait_ms(:infinity), do: :infinity
  defp wait_ms(timeout), do: timeout + @grace_ms

  defp give_up(pid, ref, timeout) do
    # From here on an answer is dropped by the runtime; one that is in the mailbox still counts.
    Process.demonitor(ref, [:flush])

    receive do
      {^ref, answer} -> answer
    after
      0 ->
        GenServer.cast(pid, {:abandon, ref})
        {:error, Error.new(:timeout, "no answer within #{timeout} ms")}
    end
  end

  defp connection_down(reason, _method) when reason in [:noproc, :normal, :shutdown],
    do: not_running()

  defp connection_down({:shutdown, _why}, _method), do: not_running()

  defp connection_down(_reason, method),
    do: lost(method, "the connection to Python failed before it answered")

  defp result(frame) do
    case Message.parse(frame) do
      {:ok, {:response, _id, result}} -> result
      {:ok, _other} -> {:error, Error.new(:internal_error, "the answer is no response")}
      {:error, error, _id} -> {:error, error}
    end
  end

  defp lost(method, why) do
    if method in @repeatable do
      Error.new(:connection_lost, "#{why}; #{method} can safely be called again", retryable: true)
    else
      Error.new(
        :connection_lost,
        "#{why}; #{method} may have been done in part, and paid for, so it is not made again by itself"
      )
    end
  end

  # --- the connection's side ---

  @impl true
  def init(options) do
    # A port that fails must not take the connection with it, and terminate/2 has to run.
    Process.flag(:trap_exit, true)
    {max_queued_bytes, options} = Keyword.pop!(options, :max_queued_bytes)
    state = struct!(__MODULE__, [outbox: Outbox.new(max_queued_bytes)] ++ options)
    {:ok, state, {:continue, :start}}
  end

  @impl true
  def handle_continue(:start, state), do: {:noreply, start(state)}

  @impl true
  def handle_cast({:request, ref, caller, method, body, size, entry}, state) do
    cond do
      # It may mend what was refused.
      state.phase == :down and refused?(state) and method == "configure" ->
        {:noreply, state |> enqueue(ref, caller, method, body, size, entry) |> start()}

      state.phase == :down ->
        answer(ref, {:error, state.failure})
        {:noreply, state}

      state.phase == :ready and size > state.peer_max_frame_bytes ->
        answer(ref, {:error, too_large(size, state.peer_max_frame_bytes)})
        {:noreply, state}

      true ->
        {:noreply, enqueue(state, ref, caller, method, body, size, entry)}
    end
  end

  # The caller no longer waits.
  def handle_cast({:abandon, ref}, state), do: {:noreply, abandon(state, ref)}

  @impl true
  def handle_info({port, {:data, bytes}}, %{port: port} = state) do
    {events, decoder} = Framing.feed(state.decoder, bytes)

    # One event may be the end of this Python; those after it are then nobody's.
    state =
      Enum.reduce(events, %{state | decoder: decoder}, fn
        event, %{port: ^port} = state -> event(event, state)
        _event, state -> state
      end)

    {:noreply, state}
  end

  # The usual end. It is told once the process has ended and its end of the pipe is closed.
  def handle_info({port, {:exit_status, status}}, %{port: port} = state),
    do: {:noreply, python_ended(state, exit_text(status))}

  # The end without a status: writing failed because nobody reads.
  def handle_info({:EXIT, port, reason}, %{port: port} = state),
    do: {:noreply, python_ended(state, "its pipe failed (#{inspect(reason)})")}

  def handle_info({:written, writer}, %{writer: writer} = state),
    do: {:noreply, transmit(%{state | writing?: false})}

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state),
    do: {:noreply, abandon(state, monitor)}

  def handle_info(:start, %{phase: :down} = state), do: {:noreply, start(state)}

  def handle_info({:start_timeout, port}, %{port: port, phase: :starting} = state) do
    text = "Python was not ready within #{state.start_timeout} ms"
    {:noreply, start_failed(kill(state), text)}
  end

  def handle_info({:EXIT, writer, reason}, %{writer: writer} = state),
    do: {:stop, {:writer_failed, reason}, state}

  # News of a port, writer, timer or call that is no more.
  def handle_info(_stale, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    # The end of its stdin tells Python to stop at once.
    close(state)
  end

  # No @impl where the behaviour does not know it yet (it is OTP 25's, Elixir's later).
  if {:format_status, 1} in GenServer.behaviour_info(:callbacks), do: @impl(true)
  @doc false
  def format_status(status) do
    Map.replace_lazy(status, :state, fn state ->
      %{
        state
        | calls: map_size(state.calls),
          ids: map_size(state.ids),
          outbox: state.outbox.bytes
      }
    end)
  end

  # --- starting Python ---

  defp start(state) do
    case open_port(state.command) do
      {:ok, port} -> begin(state, port)
      {:error, reason} -> start_failed(state, reason)
    end
  end

  defp open_port({executable, args}) do
    options = [:binary, :stream, :exit_status, :use_stdio, :hide, args: args]
    {:ok, Port.open({:spawn_executable, executable}, options)}
  rescue
    error in [ErlangError, ArgumentError, SystemLimitError] ->
      {:error, "#{executable} cannot be run: #{Exception.message(error)}"}
  end

  defp begin(state, port) do
    if state.start_timeout != :infinity,
      do: Process.send_after(self(), {:start_timeout, port}, state.start_timeout)

    os_pid =
      case Port.info(port, :os_pid) do
        {:os_pid, os_pid} -> os_pid
        nil -> nil
      end

    %{
      state
      | phase: :starting,
        port: port,
        os_pid: os_pid,
        writer: Writer.start_link(port),
        decoder: Framing.new(state.max_frame_bytes),
        peer_max_frame_bytes: @default_max_frame_bytes
    }
    |> ask(:initialize, "initialize", %{
      protocol_version: @protocol_version,
      client: %{name: "dspex-elixir", version: version()},
      max_frame_bytes: state.max_frame_bytes
    })
  end

  defp version, do: :dspex |> Application.spec(:vsn) |> to_string()

  defp initialized(state, %{"protocol_version" => @protocol_version} = result) do
    max_frame_bytes =
      case result do
        %{"limits" => %{"max_frame_bytes" => max}} when is_integer(max) and max > 0 -> max
        _none -> @default_max_frame_bytes
      end

    state = %{state | peer_max_frame_bytes: max_frame_bytes}

    case configuration(state) do
      none when none == %{} -> configured(state)
      params -> ask(state, {:configure, params}, "configure", Config.reveal(params))
    end
  end

  defp initialized(state, _other),
    do: start_failed(kill(state), "it answered initialize with no protocol version 1")

  # The one that was refused would be refused again, without what callers want to have changed.
  defp configuration(state) do
    wanted =
      for {_id, %Call{entry: {:configure, params}}} <- Enum.sort(state.calls),
          refused?(state),
          do: params

    Enum.reduce(wanted, Journal.configuration(state.journal), &Config.merge(&2, &1))
  end

  defp configured(state) do
    {now, later} = state.journal |> Journal.programs() |> Enum.split(@restore_window)

    now
    |> Enum.reduce(%{state | to_restore: later}, &restore/2)
    |> ready_if_restored()
  end

  defp restore({program, body}, state) do
    %{state | restoring: state.restoring + 1}
    |> ask_body({:restore, program}, "create", body)
  end

  defp restored(state) do
    case %{state | restoring: state.restoring - 1} do
      %{to_restore: [next | later]} = state -> restore(next, %{state | to_restore: later})
      state -> ready_if_restored(state)
    end
  end

  defp ready_if_restored(%{phase: :starting, restoring: 0} = state),
    do: transmit(%{state | phase: :ready, failures: 0, failure: nil})

  defp ready_if_restored(state), do: state

  # A request of the connection's own.
  defp ask(state, step, method, params) do
    case Message.body(method, params) do
      {:ok, body} -> ask_body(state, step, method, fn -> body end)
      {:error, error} -> start_failed(kill(state), error.message)
    end
  end

  # What came before may have ended in a failure.
  defp ask_body(%{port: nil} = state, _step, _method, _body), do: state

  defp ask_body(state, step, method, body) do
    id = state.next_id
    call = %Call{reply: step, method: method, written?: true}

    %{state | next_id: id + 1, calls: Map.put(state.calls, id, call)}
    |> control(fn -> Message.request(id, body.()) end, byte_size(body.()))
  end

  defp handshake(state, :initialize, {:ok, result}), do: initialized(state, result)

  defp handshake(state, {:configure, params}, {:ok, _result}) do
    # News to the journal where callers have changed it.
    Journal.record(state.journal, {:configure, params})
    configured(state)
  end

  defp handshake(state, {:restore, _program}, {:ok, _result}), do: restored(state)

  # The others are still worth having; calls on this one will be told that it is not found.
  defp handshake(state, {:restore, program}, {:error, error}) do
    Logger.error("DSPex could not make the program #{program} again: #{Exception.message(error)}")
    restored(state)
  end

  defp handshake(state, :initialize, {:error, error}), do: refused(state, "initialize", error)

  defp handshake(state, {:configure, _params}, {:error, error}),
    do: refused(state, "configure", error)

  defp refused(state, method, error) do
    why = "#{method} was refused: #{Exception.message(error)}"

    if error.code in @final_refusals,
      do: start_refused(kill(state), why),
      else: start_failed(kill(state), why)
  end

  # --- ends of Python ---

  defp python_ended(%{phase: :starting} = state, how) do
    start_failed(state, "it ended before it was ready: #{how}")
  end

  defp python_ended(%{phase: :ready} = state, how) do
    Logger.warning("DSPex: Python (pid #{state.os_pid}) ended: #{how}; starting another")
    state |> disconnect("Python ended before it answered (#{how})") |> start()
  end

  # The bytes on its stdout are no longer frames, and there is no way back to them.
  defp desynchronised(state, head) do
    shown = inspect(head, printable_limit: 64, limit: 64)

    how =
      "something else than the bridge wrote to its stdout; it went on with #{shown}. " <>
        "Does #{Enum.join([elem(state.command, 0) | elem(state.command, 1)], " ")} print by itself?"

    python_ended(kill(state), how)
  end

  defp start_failed(state, why) do
    delay = backoff_ms(state.failures + 1)
    text = "Python could not be made ready: #{why}"
    Logger.error("DSPex: #{text}; trying again in #{delay} ms")

    Process.send_after(self(), :start, delay)
    go_down(state, Error.new(:start_failed, text, retryable: true))
  end

  # No timer: only another configuration, or another bridge, can make a difference.
  defp start_refused(state, why) do
    text =
      "Python could not be made ready: #{why}; it stays down until DSPex.configure/2 gives " <>
        "another configuration or the instance is restarted"

    Logger.error("DSPex: #{text}")
    go_down(state, Error.new(:start_failed, text, retryable: false))
  end

  defp refused?(state), do: match?(%Error{retryable: false}, state.failure)

  defp go_down(state, failure) do
    state = disconnect(state, "Python ended before it answered")
    refuse_waiting(%{state | phase: :down, failures: state.failures + 1, failure: failure})
  end

  defp backoff_ms(failures) do
    # The exponent is bounded because the failures are not.
    min(@first_backoff_ms * Integer.pow(2, min(failures - 1, 10)), @max_backoff_ms)
  end

  # Answers what was written, and forgets the process that it was written to.
  defp disconnect(state, why) do
    close(state)
    {written, waiting} = Enum.split_with(state.calls, fn {_id, call} -> call.written? end)

    state =
      Enum.reduce(written, state, fn {id, call}, state ->
        finish(state, id, call, {:error, lost(call.method, why)})
      end)

    %{
      state
      | port: nil,
        os_pid: nil,
        writer: nil,
        writing?: false,
        decoder: nil,
        restoring: 0,
        to_restore: [],
        calls: Map.new(waiting),
        outbox: Outbox.clear_control(state.outbox)
    }
  end

  defp refuse_waiting(state) do
    Enum.reduce(state.calls, state, fn {id, call}, state ->
      {:dropped, outbox} = Outbox.drop(state.outbox, id)
      finish(%{state | outbox: outbox}, id, call, {:error, state.failure})
    end)
  end

  defp close(%{port: nil}), do: :ok

  defp close(%{port: port, writer: writer}) do
    Process.unlink(writer)
    Process.exit(writer, :kill)
    Port.close(port)
    :ok
  rescue
    # It has closed itself.
    ArgumentError -> :ok
  end

  # For a Python that cannot be trusted to read the end of its stdin. The bridge's guard ends its
  # children with it. Never its process group from here: `kill -KILL -1234` of procps 4.0.2 (Debian 12)
  # reads -1 and ends every process there is.
  defp kill(%{os_pid: os_pid} = state) when is_integer(os_pid) and os_pid > 1 do
    # A slim image has no file named kill; it is in every shell.
    case System.find_executable("sh") do
      nil ->
        Logger.warning(
          "DSPex: Python (pid #{os_pid}) is left to its guard: there is no sh on PATH to kill it with"
        )

      sh ->
        args = ["-c", ~S(kill -KILL "$1"), "sh", "#{os_pid}"]
        spawn(fn -> System.cmd(sh, args, stderr_to_stdout: true) end)
    end

    state
  end

  defp kill(state), do: state

  defp exit_text(status) when status > 128, do: "killed by signal #{status - 128}"
  defp exit_text(status), do: "exit status #{status}"

  # --- requests ---

  defp enqueue(state, ref, caller, method, body, size, entry) do
    id = state.next_id

    case Outbox.put_request(state.outbox, id, body, size) do
      {:ok, outbox} ->
        monitor = Process.monitor(caller)
        call = %Call{reply: ref, method: method, monitor: monitor, entry: entry}

        transmit(%{
          state
          | outbox: outbox,
            next_id: id + 1,
            calls: Map.put(state.calls, id, call),
            ids: state.ids |> Map.put(ref, id) |> Map.put(monitor, id)
        })

      :full ->
        answer(ref, {:error, overloaded(state)})
        state
    end
  end

  defp overloaded(state) do
    why = if state.phase == :ready, do: "Python reads too slowly", else: "Python is starting"
    text = "#{state.outbox.bytes} bytes of requests are waiting (#{why}); this one was not sent"
    Error.new(:overloaded, text, retryable: true)
  end

  defp too_large(size, limit) do
    text = "the request has #{size} bytes, the bridge takes #{limit}"
    Error.new(:frame_too_large, text, data: %{"size" => size, "limit" => limit})
  end

  # By the alias of a caller that gave up, or the monitor of one that died.
  defp abandon(state, key) do
    case state.ids do
      %{^key => id} ->
        call = Map.fetch!(state.calls, id)
        state = forget(state, id, call)

        case Outbox.drop(state.outbox, id) do
          {:dropped, outbox} -> %{state | outbox: outbox}
          :absent -> cancel(state, id)
        end

      %{} ->
        state
    end
  end

  defp cancel(state, id) do
    {:ok, body} = Message.body("cancel", %{id: id})
    control(state, fn -> Message.notification(body) end, byte_size(body))
  end

  defp finish(state, id, call, answer) do
    if is_reference(call.reply), do: answer(call.reply, answer)
    forget(state, id, call)
  end

  defp forget(state, id, call) do
    if call.monitor, do: Process.demonitor(call.monitor, [:flush])

    %{
      state
      | calls: Map.delete(state.calls, id),
        ids: Map.drop(state.ids, [call.reply, call.monitor])
    }
  end

  defp answer(ref, answer) do
    send(ref, {ref, answer})
    :ok
  end

  # --- writing ---

  defp control(state, message, size) do
    case Outbox.put_control(state.outbox, message, size) do
      {:ok, outbox} -> transmit(%{state | outbox: outbox})
      :full -> python_ended(kill(state), "it asks much and reads nothing")
    end
  end

  # Writes as much as Python takes.
  defp transmit(%{port: nil} = state), do: state
  defp transmit(%{writing?: true} = state), do: state

  defp transmit(state) do
    which = if state.phase == :ready, do: :requests, else: :control

    case Outbox.next(state.outbox, which) do
      {{:control, message}, outbox} ->
        write(state, %{state | outbox: outbox}, message.())

      {{:request, id, _body, size}, outbox} when size > state.peer_max_frame_bytes ->
        error = too_large(size, state.peer_max_frame_bytes)
        call = Map.fetch!(state.calls, id)
        transmit(finish(%{state | outbox: outbox}, id, call, {:error, error}))

      {{:request, id, body, _size}, outbox} ->
        calls = Map.update!(state.calls, id, &%{&1 | written?: true})
        write(state, %{state | outbox: outbox, calls: calls}, Message.request(id, body.()))

      :none ->
        state
    end
  end

  defp write(unwritten, written, message) do
    data = [Framing.prefix(IO.iodata_length(message)) | message]

    case command(written.port, data) do
      :written ->
        transmit(written)

      :full ->
        Writer.write(written.writer, data)
        %{written | writing?: true}

      # The exit status or the exit signal is on its way.
      :closed ->
        unwritten
    end
  end

  defp command(port, data) do
    if Port.command(port, data, [:nosuspend]), do: :written, else: :full
  rescue
    ArgumentError -> :closed
  end

  # --- reading ---

  defp event({:frame, frame}, state) do
    case Message.peek(frame) do
      {:response, nil, _outcome} -> error_to_nobody(state, frame)
      {:response, id, outcome} -> response(state, id, outcome, {:ok, frame})
      {:request, id} -> refuse(state, id, frame)
      :notification -> notification(state, frame)
      :unknown -> refuse(state, nil, frame)
    end
  end

  defp event({:too_large, size, head}, state) do
    error =
      Error.new(
        :frame_too_large,
        "the answer has #{size} bytes, the limit is #{state.max_frame_bytes}",
        data: %{"size" => size, "limit" => state.max_frame_bytes}
      )

    case Message.peek(head) do
      {:response, nil, _outcome} ->
        Logger.warning("DSPex: an answer of #{size} bytes to no request was skipped")
        state

      {:response, id, _outcome} ->
        response(state, id, :error, {:error, error})

      {:request, id} ->
        respond(state, id, error)

      :notification ->
        Logger.warning("DSPex: a notification of #{size} bytes was skipped")
        state

      :unknown ->
        desynchronised(state, head)
    end
  end

  defp response(state, id, outcome, answer) do
    case state.calls do
      %{^id => %Call{reply: ref} = call} when is_reference(ref) ->
        # Before the answer is known it is written down.
        if outcome == :ok and call.entry, do: Journal.record(state.journal, call.entry)
        finish(state, id, call, answer)

      %{^id => %Call{reply: step} = call} ->
        answer = with {:ok, frame} <- answer, do: result(frame)
        state |> forget(id, call) |> handshake(step, answer)

      # It was given up, and crossed its cancel.
      %{} ->
        state
    end
  end

  # Tools and metrics of the client's own are asked for in requests; it has none yet. What cannot
  # even be read is answered too, to nobody.
  defp refuse(state, id, frame) do
    case Message.parse(frame) do
      {:ok, {:request, ^id, method, _params}} ->
        text = "this client has no method #{inspect(method, printable_limit: 80)}"
        respond(state, id, Error.new(:method_not_found, text))

      {:error, error, _id} ->
        Logger.warning("DSPex: a frame could not be read: #{error.message}")
        respond(state, id, error)
    end
  end

  defp respond(state, id, error) do
    {:ok, message} = Message.error_response(id, error)
    control(state, fn -> message end, IO.iodata_length(message))
  end

  defp notification(state, frame) do
    case Message.parse(frame) do
      {:ok, {:notification, method, params}} ->
        notified(method, params, state.os_pid)
        state

      # Not even a value, so nobody knows that it was meant as a notification.
      {:error, %Error{code: :parse_error}, _id} ->
        refuse(state, nil, frame)

      {:error, error, _id} ->
        Logger.warning("DSPex: a notification could not be read: #{error.message}")
        state
    end
  end

  defp notified("unhealthy", params, os_pid),
    do: Logger.warning("DSPex: Python (pid #{os_pid}) is unhealthy: #{text(params["reason"])}")

  defp notified("ready", %{"error" => error}, os_pid),
    do: Logger.error("DSPex: Python (pid #{os_pid}) has no DSPy: #{text(error)}")

  defp notified("ready", _params, _os_pid), do: :ok

  defp notified(method, _params, _os_pid),
    do: Logger.debug("DSPex: notification #{inspect(method, printable_limit: 40)}")

  # No call can be found for it.
  defp error_to_nobody(state, frame) do
    case Message.parse(frame) do
      {:ok, {:response, nil, {:error, error}}} ->
        Logger.warning("DSPex: Python could not read a frame: #{Exception.message(error)}")

      {:error, error, _id} ->
        Logger.warning("DSPex: an answer to no request: #{error.message}")
    end

    state
  end

  defp text(value) when is_binary(value), do: value
  defp text(value), do: inspect(value, limit: 20, printable_limit: 200)
end
