defmodule DSPex.Connection.Inbox do
  @moduledoc false
  # What a frame from Python means to the connection. Of most frames only the first bytes are looked
  # at: whoever they are for reads the rest, in a process of its own. One that is for nobody is read
  # here, if it is long in a process that ends with it: what it holds never comes into the
  # connection's heap. What is wrong with a frame is logged or answered, once, and is a matter of that
  # frame alone.

  require Logger

  alias DSPex.Connection.Caller
  alias DSPex.Error
  alias DSPex.Protocol.{Apart, Framing, Message}

  # Requests that the client's functions answer.
  @callbacks ~w(call_tool call_metric)

  # Notifications about a request, which are for whoever made it.
  @about_requests ~w(chunk item progress)

  @typedoc """
    * `:answer` - to a request of ours: its frame, or the error where that was skipped. The outcome is
      what the first bytes say.
    * `:asked` - a request for a function of the client's.
    * `:cancel` - Python no longer waits for that function.
    * `:about` - a notification about a request of ours.
    * `:log` - what Python logs or prints.
    * `:unhealthy` - Python wants to be replaced.
    * `:respond` - what the frame is to be answered with.
    * `:no_frames` - what is there is no frame, but text.
  """
  @type meaning ::
          {:answer, Message.id(), :ok | :error, {:ok, binary()} | {:error, Error.t()}}
          | {:asked, Message.id(), binary()}
          | {:cancel, integer()}
          | {:about, Message.id(), binary()}
          | {:log, map()}
          | {:unhealthy, String.t()}
          | {:respond, binary()}
          | {:no_frames, binary()}
          | :nothing

  @spec read(Framing.event(), pos_integer(), pos_integer() | nil) :: meaning()
  def read({:frame, frame}, _limit, os_pid) do
    case Message.peek(frame) do
      {:response, nil, _outcome} ->
        apart(frame, &to_nobody/1)

      {:response, id, outcome} ->
        {:answer, id, outcome, {:ok, frame}}

      {:request, id, method} when method in @callbacks ->
        {:asked, id, frame}

      {:request, _id, _method} ->
        apart(frame, &refuse/1)

      {:notification, method, about} when method in @about_requests and is_integer(about) ->
        {:about, about, frame}

      {:notification, _method, _about} ->
        apart(frame, &notification(&1, os_pid))

      :unknown ->
        apart(frame, &refuse/1)
    end
  end

  def read({:too_large, size, head}, limit, _os_pid) do
    text = "the answer has #{size} bytes, the limit is #{limit}"
    error = Error.new(:frame_too_large, text, data: %{"size" => size, "limit" => limit})

    case Message.peek(head) do
      {:response, nil, _outcome} ->
        Logger.warning("DSPex: an answer of #{size} bytes to no request was skipped")
        :nothing

      {:response, id, _outcome} ->
        {:answer, id, :error, {:error, error}}

      {:request, id, _method} ->
        {:respond, Message.error_response(id, error)}

      {:notification, _method, _about} ->
        Logger.warning("DSPex: a notification of #{size} bytes was skipped")
        :nothing

      :unknown ->
        {:no_frames, head}
    end
  end

  @doc "What `fun` makes of the result that a response brings, where it brings one."
  @spec result(binary(), (term() -> {:ok, kept} | {:error, Error.t()})) ::
          {:ok, kept} | {:error, Error.t()}
        when kept: term()
  def result(frame, fun) do
    work = fn frame ->
      with {:ok, result} <- frame |> Message.parse_here() |> Caller.result(), do: fun.(result)
    end

    with {:ok, made} <- Apart.read(frame, work), do: made
  end

  defp apart(frame, meaning) do
    case Apart.read(frame, meaning) do
      {:ok, meaning} ->
        meaning

      {:error, error} ->
        Logger.warning("DSPex: a frame was dropped: #{error.message}")
        :nothing
    end
  end

  # The client has no such method. What cannot even be read is answered too, to nobody.
  defp refuse(frame) do
    case Message.parse_here(frame) do
      # Written at greater length than it need be.
      {:ok, {:request, id, method, _params}} when method in @callbacks ->
        {:asked, id, frame}

      {:ok, {:request, id, method, _params}} ->
        text = "this client has no method #{inspect(method, printable_limit: 80)}"
        {:respond, Message.error_response(id, Error.new(:method_not_found, text))}

      {:error, error, id} ->
        Logger.warning("DSPex: a frame could not be read: #{error.message}")
        {:respond, Message.error_response(id, error)}
    end
  end

  defp notification(frame, os_pid) do
    case Message.parse_here(frame) do
      {:ok, {:notification, method, %{"id" => about}}}
      when method in @about_requests and is_integer(about) ->
        {:about, about, frame}

      {:ok, {:notification, "cancel", %{"id" => id}}} when is_integer(id) ->
        {:cancel, id}

      {:ok, {:notification, "log", params}} ->
        {:log, params}

      {:ok, {:notification, "unhealthy", params}} ->
        Logger.warning("DSPex: Python (pid #{os_pid}) is unhealthy: #{text(params["reason"])}")

        {:unhealthy, text(params["reason"])}

      {:ok, {:notification, method, params}} ->
        log(method, params, os_pid)
        :nothing

      # Not even a value, so nobody knows that it was meant as a notification.
      {:error, %Error{code: :parse_error} = error, _id} ->
        Logger.warning("DSPex: a frame could not be read: #{error.message}")
        {:respond, Message.error_response(nil, error)}

      {:error, error, _id} ->
        Logger.warning("DSPex: a notification could not be read: #{error.message}")
        :nothing
    end
  end

  defp log("ready", %{"error" => error}, os_pid),
    do: Logger.error("DSPex: Python (pid #{os_pid}) has no DSPy: #{text(error)}")

  defp log("ready", _params, _os_pid), do: :ok

  defp log(method, _params, _os_pid),
    do: Logger.debug("DSPex: notification #{inspect(method, printable_limit: 40)}")

  # No call can be found for it.
  defp to_nobody(frame) do
    case Message.parse_here(frame) do
      {:ok, {:response, nil, {:error, error}}} ->
        Logger.warning("DSPex: Python could not read a frame: #{Exception.message(error)}")

      {:error, error, _id} ->
        Logger.warning("DSPex: an answer to no request: #{error.message}")
    end

    :nothing
  end

  defp text(value) when is_binary(value), do: value
  defp text(value), do: inspect(value, limit: 20, printable_limit: 200)
end
