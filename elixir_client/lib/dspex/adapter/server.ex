defmodule DSPex.Adapter.Server do
  alias DSPex.Adapter.Server.{Exchange, Known}
  alias DSPex.{Deadline, Error, Options}
  alias DSPex.Server.Address

  @schema [
    url: {{:is, &__MODULE__.url/1}, "where the server listens.", Address.default_url()},
    token:
      {{:is, &Address.token/1}, "what it wants to be shown, where it was started with a token."}
  ]

  @moduledoc """
  An instance whose programs are those of a `dspex serve`: in its database, run by its bridges, each
  execution a row there.

      {DSPex, name: MyApp.DSPex, backend: {DSPex.Adapter.Server, url: "http://127.0.0.1:8000"}}

  Its options:

  #{Options.docs(@schema)}

  The functions of `DSPex` are the same over it. What is different:

    * Programs outlive the instance and are shared with all other clients of the server. `replace: true`
      makes a new revision where the definition is another, and nothing where it is the same, so that an
      application may create its programs at each start: a better revision that an optimizer made stays.
      A program that was deployed goes on with the deployed revision.
    * What this instance did not make itself it knows by its names and types in Python: inputs and
      outputs have string keys then.
    * The LMs are the server's (`dspex serve --lms`). `configure/2`, and `lms:` or `limits:` at the
      start, are refused, and a call names one of them, as `lm:`: one that it describes itself is
      `:invalid_params`, as its `api_base:` would be sent the server's keys.
    * Functions of this application are not called from there: programs with tools are
      `:invalid_params`, and metrics that are functions `:unavailable`. So a metric has to be named
      (`{:exact_match, :answer}`) or a judge; that is also true of the default of a signature with
      several outputs.
    * `save/3`, `stats/1` and a `checkpoint:` of `optimize/4` are `:unavailable`, and a path given to
      `load/3` is `:not_found`: a server keeps no files of its clients. An optimization that has to
      outlive this process is a `DSPex.ML.OptimizationJob`.
    * A batch has no `limits:` of its own. `call/4` leaves no execution there.
    * `workers/1` are none, and `restart/2` does nothing: the bridges are the server's affair.

  Where no server answers, calls fail with `:connection_lost`, which is `retryable` as nothing was
  sent; where it ended before it had answered, it is not, and the execution's row says what came of it.
  """

  @behaviour DSPex.Adapter

  # Before a call is made again; each time twice as long.
  @first_pause_ms 50
  @max_pause_ms 2000

  @doc false
  def url(url) do
    with {:ok, _address} <- Address.new(url), do: {:ok, url}
  end

  @impl true
  def start_link(name, configuration, options) do
    with :ok <- no_configuration(configuration),
         # Those of `{adapter, options}` have been checked.
         {:ok, own} = options(Keyword.get(options, :backend_options, [])),
         {:ok, address} = Address.new(own[:url], own[:token]) do
      Known.start_link(name, address, options[:max_frame_bytes])
    end
  end

  defp no_configuration(none) when none == %{}, do: :ok

  defp no_configuration(configuration) do
    names = configuration |> Map.keys() |> Enum.map_join(", ", &inspect/1)
    text = "the options #{names} are the server's own: give LMs to `dspex serve` by --lm or --lms"
    {:error, Error.new(:invalid_params, text)}
  end

  @impl true
  def options(options), do: Options.validate(options, @schema)

  @impl true
  def request(instance, method, params, timeout, options) do
    {retries, options} = Keyword.pop(options, :retry, 0)
    request = &Exchange.request(instance, method, params, &1, options)
    again(request, timeout, Deadline.from_now(timeout), retries)
  end

  defp again(request, timeout, ends, retries, pause \\ @first_pause_ms) do
    case request.(timeout) do
      {:error, %Error{} = error} when retries > 0 ->
        if (error.retryable or error.code == :connection_lost) and Deadline.left(ends) > pause do
          Deadline.pause(pause)
          left = max(1, Deadline.left(ends))
          again(request, left, ends, retries - 1, min(pause * 2, @max_pause_ms))
        else
          {:error, error}
        end

      answer ->
        answer
    end
  end

  @impl true
  defdelegate open(instance, method, params, timeout, listens?, options), to: Exchange

  @impl true
  defdelegate next(exchange), to: Exchange

  # A chunk that is not read yet holds the server back by itself.
  @impl true
  def grant(_exchange, _n), do: :ok

  @impl true
  defdelegate cancel(exchange), to: Exchange

  @impl true
  defdelegate close(exchange), to: Exchange

  @impl true
  defdelegate signature(instance, program), to: Known

  @impl true
  def tools(_instance, _program), do: []

  @impl true
  defdelegate record(instance, entry), to: Known
end
