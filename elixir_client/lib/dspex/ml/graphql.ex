defmodule DSPex.ML.GraphQL do
  @moduledoc false
  # Documents for the server's GraphQL, and what its answers mean.

  alias DSPex.Error
  alias DSPex.Server.{HTTP, JSON}

  # A page of executions with long texts; more is a mistake of somebody's.
  @max_answer_bytes 64 * 1024 * 1024

  @default_timeout 60_000

  # Every mutation's union has these. A resource has a name and a state, too: theirs are called otherwise.
  @problems """
  ... on Problem { code message retryable }
  ... on InvalidValues { execution_id: executionId errors { path type message expected got } }
  ... on InvalidInput { param position }
  ... on NotFound { kind missing: name }
  ... on WrongState { resource currentState allowed }
  """

  @typedoc "An argument: its name, its type in the schema, and its value as JSON."
  @type argument :: {name :: String.t(), type :: String.t(), value :: term()}

  @spec default_timeout() :: timeout()
  def default_timeout, do: @default_timeout

  @doc """
  A field of the mutation: what it made, as `selection` asks for it by type. `grace_ms` is for the
  server's own answer to the timeout, where it was told of that.
  """
  @spec mutate(String.t(), [argument()], String.t(), timeout(), non_neg_integer()) ::
          {:ok, map()} | {:error, Error.t()}
  def mutate(field, arguments, selection, timeout, grace_ms \\ 0) do
    selection = "{ #{selection} #{@problems} }"

    with {:ok, made} <- ask("mutation", field, arguments, selection, timeout, grace_ms) do
      case made do
        %{"code" => _code, "message" => _message} -> {:error, problem(made)}
        %{} -> {:ok, made}
        _other -> unexpected(field)
      end
    end
  end

  @doc "A field of the query, `nil` where there is no such thing."
  @spec query(String.t(), [argument()], String.t(), timeout()) ::
          {:ok, map() | nil} | {:error, Error.t()}
  def query(field, arguments, selection, timeout),
    do: ask("query", field, arguments, "{ #{selection} }", timeout, 0)

  defp ask(kind, field, arguments, selection, timeout, grace_ms) do
    arguments = for {name, type, value} <- arguments, value != nil, do: {name, type, value}
    declared = list(arguments, fn {name, type, _value} -> "$#{name}: #{type}" end)
    passed = list(arguments, fn {name, _type, _value} -> "#{name}: $#{name}" end)
    document = "#{kind}#{declared} { #{field}#{passed} #{selection} }"
    variables = Map.new(arguments, fn {name, _type, value} -> {name, value} end)

    with {:ok, answer} <-
           post(%{"query" => document, "variables" => variables}, timeout, grace_ms) do
      case answer do
        %{"errors" => [error | _others]} -> {:error, request_error(error)}
        %{"data" => %{^field => found}} -> {:ok, found}
        _other -> unexpected(field)
      end
    end
  end

  defp list([], _fun), do: ""
  defp list(arguments, fun), do: "(" <> Enum.map_join(arguments, ", ", fun) <> ")"

  defp post(json, timeout, grace_ms) do
    with {:ok, address} <- DSPex.ML.address(),
         {:ok, http} <- HTTP.post(address, "/graphql", JSON.encode(json), timeout, grace_ms) do
      try do
        with {:ok, 200, http} <- HTTP.status(http),
             {:ok, text} <- HTTP.body(http, @max_answer_bytes) do
          JSON.decode(text)
        else
          {:ok, status, http} -> {:error, HTTP.refusal(http, status, @max_answer_bytes)}
          {:error, error} -> {:error, error}
        end
      after
        HTTP.close(http)
      end
    end
  end

  @renamed %{"missing" => "name", "currentState" => "state"}

  # What the members of the union have beside the message is an error's data.
  defp problem(made) do
    {known, data} = Map.split(made, ["code", "message", "retryable"])
    data = for {name, value} <- data, value != nil, into: %{}, do: {@renamed[name] || name, value}
    wire_error(Map.put(known, "data", data))
  end

  # Of the document itself, or of a query, which has no union.
  defp request_error(%{"extensions" => %{"code" => _code} = error, "message" => message}),
    do: wire_error(Map.put(error, "message", message))

  defp request_error(%{"message" => message}) when is_binary(message),
    do: Error.new(:invalid_params, message)

  defp request_error(_other), do: Error.new(:parse_error, "the server's error is none")

  defp wire_error(error) do
    case Error.from_wire(error) do
      {:ok, error} -> error
      :error -> Error.new(:parse_error, "the server's error is none")
    end
  end

  defp unexpected(field),
    do: {:error, Error.new(:parse_error, "the server's answer to #{field} is none")}
end
