defmodule DSPex.Connection.Callback do
  @moduledoc false
  # Answers one request of the bridge, in a process of its own: reads it, finds the application's
  # function, runs it, writes the response.
  #
  # What goes wrong in the function is told to the bridge in one sentence, and to the log in full: a
  # stack trace, or the reason of an exit, may show what is nobody's business in Python.

  require Logger

  alias DSPex.{Error, Journal, Telemetry, Tool}
  alias DSPex.Program.LostTools
  alias DSPex.Protocol.Message

  @type context :: %{server: atom(), journal: atom(), functions: :ets.table()}

  @typedoc "Functions by name that are there while one request is, and its caller's metadata for `Logger`."
  @type functions :: %{
          logger: keyword(),
          metrics: %{optional(String.t()) => (map(), map(), [map()] | nil -> term())},
          tools: %{optional(String.t()) => Tool.t()}
        }

  # Of an error's message; it stands in the prompt of the next step.
  @max_message_chars 2000

  @doc "The response, no longer than `max_frame_bytes`."
  @spec answer(non_neg_integer(), binary(), pos_integer(), context()) :: binary()
  def answer(id, frame, max_frame_bytes, context) do
    case Message.parse(frame) do
      {:ok, {:request, ^id, method, params}} ->
        metadata(params["request"], context)

        result =
          Telemetry.callback(about(method, params, context), fn ->
            call(method, params, context)
          end)

        encode(id, result, failure(method), max_frame_bytes)

      {:error, error, _id} ->
        encode_error(id, error, max_frame_bytes)
    end
  end

  defp about(method, params, context) do
    {kind, name} =
      if method == "call_tool", do: {:tool, params["tool"]}, else: {:metric, params["metric"]}

    %{
      server: context.server,
      kind: kind,
      name: name,
      program: params["program"],
      request: params["request"]
    }
  end

  defp metadata(request, context) do
    own =
      case :ets.lookup(context.functions, request) do
        [{_request, %{logger: logger}}] -> logger
        [] -> []
      end

    Logger.metadata(own ++ [dspex_request: request, dspex_server: context.server])
  end

  defp failure("call_tool"), do: :tool_error
  defp failure("call_metric"), do: :metric_error

  defp call("call_tool", params, context) do
    with %{"program" => program, "tool" => name, "args" => args} when is_map(args) <- params,
         {:ok, tool} <- tool(context, params["request"], program, name),
         {:ok, args} <- Tool.load_args(tool, args) do
      about = %{
        server: context.server,
        program: program,
        request: params["request"],
        tool: name,
        meta: params["meta"] || %{}
      }

      run(:tool_error, "the tool #{tool.name}", fn -> Tool.call(tool, args, about) end)
    else
      {:error, error} ->
        {:error, error}

      _params ->
        {:error, Error.new(:invalid_params, "call_tool has program, tool and args: a map")}
    end
  end

  defp call("call_metric", params, context) do
    with %{"metric" => name, "example" => example, "prediction" => prediction} <- params,
         {:ok, metric} <- metric(context.functions, params["request"], name) do
      run(:metric_error, metric_name(name), fn ->
        metric.(example, prediction, params["trace"])
      end)
    else
      {:error, error} ->
        {:error, error}

      _params ->
        {:error, Error.new(:invalid_params, "call_metric has metric, example, prediction")}
    end
  end

  # One that came with a call has the name of its kind.
  defp metric_name("metric"), do: "the metric"
  defp metric_name(name), do: "the metric #{name}"

  defp tool(context, request, program, name) do
    own =
      case :ets.lookup(context.functions, request) do
        [{_request, %{tools: tools}}] -> tools[name]
        [] -> nil
      end

    case own || journal_tool(context, program, name) do
      nil -> not_found("tool", name, "the program has no tool #{shown(name)} here")
      tool -> {:ok, tool}
    end
  end

  defp journal_tool(context, program, name) do
    # What was called on another node is perhaps needed for the first time on this one.
    _what_stays_lost_is_not_found = LostTools.restore(context.server, program)

    with %Journal.Program{tools: tools} <- Journal.program(context.journal, program),
         do: tools[name]
  end

  defp metric(functions, request, name) do
    case :ets.lookup(functions, request) do
      [{_request, %{metrics: %{^name => metric}}}] -> {:ok, metric}
      _none -> not_found("metric", name, "the request has no metric #{shown(name)} here")
    end
  end

  defp not_found(kind, name, text),
    do: {:error, Error.new(:not_found, text, data: %{"kind" => kind, "name" => name})}

  defp run(code, what, fun) do
    case fun.() do
      {:ok, value} -> {:ok, value}
      {:error, reason} -> {:error, Error.new(code, reason_text(reason))}
      value -> {:ok, value}
    end
  rescue
    error ->
      log(what, Exception.format(:error, error, __STACKTRACE__))
      {:error, Error.new(code, Exception.message(error))}
  catch
    kind, reason ->
      log(what, Exception.format(kind, reason, __STACKTRACE__))
      {:error, Error.new(code, "#{what} ended early (#{kind}); the client's log says more")}
  end

  defp log(what, text), do: Logger.error("DSPex: #{what} failed: #{text}")

  defp reason_text(%{__exception__: true} = error), do: Exception.message(error)
  defp reason_text(text) when is_binary(text), do: text
  defp reason_text(reason), do: shown(reason)

  defp encode(id, {:error, error}, _failure, max_frame_bytes),
    do: encode_error(id, error, max_frame_bytes)

  defp encode(id, {:ok, value}, failure, max_frame_bytes) do
    with {:ok, response} <- Message.result_response(id, value),
         size when size <= max_frame_bytes <- IO.iodata_length(response) do
      IO.iodata_to_binary(response)
    else
      {:error, error} ->
        error = Error.new(failure, "the result cannot be sent: #{error.message}")
        encode_error(id, error, max_frame_bytes)

      size ->
        text = "the result has #{size} bytes, the bridge takes #{max_frame_bytes}"
        data = %{"size" => size, "limit" => max_frame_bytes}
        encode_error(id, Error.new(:frame_too_large, text, data: data), max_frame_bytes)
    end
  end

  defp encode_error(id, error, max_frame_bytes) do
    # A character has at most 4 bytes, and the rest of an error is small.
    chars = min(@max_message_chars, div(max_frame_bytes, 8))
    error = %{error | message: error.message |> valid() |> String.slice(0, chars)}
    Message.error_response(id, error)
  end

  # An exception's message may be any bytes.
  defp valid(text), do: if(String.valid?(text), do: text, else: inspect(text))

  defp shown(value), do: inspect(value, limit: 20, printable_limit: 200)
end
