defmodule DSPex.Upkeep do
  @moduledoc false
  # Calls that are about an instance, and not about a program.

  import DSPex.Arguments, only: [check: 2, unexpected: 2]

  alias DSPex.{Adapter, Config, Error}

  # A first call waits for Python and DSPy to start, and an LM may think for long.
  @default_timeout 60_000

  @timeout {:timeout, "milliseconds until the work is cancelled, or `:infinity`.",
            @default_timeout}

  @configure_schema Config.schema() ++ [timeout: @timeout]
  @restart_schema [drain_timeout: {:timeout, "milliseconds, or `:infinity`.", :infinity}]
  @ping_schema [payload: {:any, "a value that is sent back."}, timeout: @timeout]

  @spec configure_schema() :: keyword()
  def configure_schema, do: @configure_schema

  @spec ping_schema() :: keyword()
  def ping_schema, do: @ping_schema

  @spec configure(DSPex.server(), keyword()) :: {:ok, map()} | {:error, Error.t()}
  def configure(server, options) do
    with {:ok, options} <- check(options, @configure_schema) do
      {timeout, options} = Keyword.pop!(options, :timeout)
      configuration = Map.new(options)
      entry = fn _body -> {:configure, configuration} end
      Adapter.request(server, "configure", Config.reveal(configuration), timeout, entry: entry)
    end
  end

  @spec ping(DSPex.server(), keyword()) :: {:ok, term()} | {:error, Error.t()}
  def ping(server, options) do
    with {:ok, options} <- check(options, @ping_schema),
         {timeout, params} = Keyword.pop!(options, :timeout),
         {:ok, result} <- Adapter.request(server, "ping", Map.new(params), timeout) do
      case result do
        %{"payload" => payload} -> {:ok, payload}
        other -> unexpected("ping", other)
      end
    end
  end

  @spec restart(DSPex.server(), keyword()) :: :ok | {:error, Error.t()}
  def restart(server, options) do
    with {:ok, options} <- check(options, @restart_schema),
         do: Adapter.restart(server, options[:drain_timeout])
  end

  @spec stats(DSPex.server()) :: {:ok, map()} | {:error, Error.t()}
  def stats(server), do: Adapter.request(server, "stats", %{}, @default_timeout)
end
