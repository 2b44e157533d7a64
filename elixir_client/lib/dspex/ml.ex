defmodule DSPex.ML do
  @moduledoc """
  What a `dspex serve` keeps, from Elixir: signatures, programs, their executions, datasets, and the jobs
  that make programs better, each as a struct with functions that are one call of the server.

      DSPex.ML.Signature.create!(name: "triage", signature: Triage)
      program = DSPex.ML.Program.create!(name: "desk", signature: Triage)
      {:ok, execution} = DSPex.ML.Program.execute(program, %{email: "It leaks."})
      execution.outputs
      #=> %{category: :defect, urgency: 0.8}

      dataset = DSPex.ML.Dataset.create!(name: "mails", rows: examples)
      {:ok, job} = DSPex.ML.OptimizationJob.start(program, dataset: dataset, metric: {:exact_match, :category})
      {:ok, job} = DSPex.ML.OptimizationJob.await(job)
      DSPex.ML.Program.deploy!(program, job.result_revision)

  No instance of `DSPex` is needed: all that runs does so at the server. Where that is, the application
  says,

      config :dspex, DSPex.ML, url: "http://127.0.0.1:8000"

  (which is where one listens that is told nothing), or a process for itself, with `put_url/2`. A server
  that wants a token is given that as `token:`.

  Every function answers `{:ok, result}` or `{:error, %DSPex.Error{}}`; the forms with `!` raise. A
  resource is named by its struct or its id; programs and datasets by their names, too. A function that
  lists takes filters, and `:first` (50, at most 500) and `:after` for the page: see `DSPex.ML.Page`.
  Every function takes `timeout:` (milliseconds or `:infinity`; a minute where nothing is said), as its
  last argument where it has no other options: `Program.deploy(program, 2, timeout: 5_000)`. A change
  whose answer came too late, with `:timeout`, may have been made. `await/2` waits for ever unless it is
  told otherwise.

  To run such programs by the functions of `DSPex`, with streams and evaluations, there is
  `DSPex.Adapter.Server`.
  """

  alias DSPex.{Error, Secret}
  alias DSPex.Server.Address

  @key {__MODULE__, :server}

  @doc "The address of the server that this process asks."
  @spec url() :: String.t()
  def url, do: server()[:url] || Address.default_url()

  @typedoc "What a process asked before: its server with the token, which is hidden, or the application's."
  @opaque server :: {:server, nil | [url: String.t(), token: Secret.t() | nil]}

  @doc """
  Has this process ask another server, one that wants a `:token` with it, or with `nil` the application's
  again. What it gives puts back, given to it, what the process asked before, and its token:

      before = DSPex.ML.put_url("http://127.0.0.1:8001", token: token)
      # ...
      DSPex.ML.put_url(before)
  """
  @spec put_url(String.t() | nil | server(), token: String.t()) :: server()
  def put_url(url, options \\ [])

  def put_url(nil, []), do: put(nil)
  def put_url({:server, server}, []), do: put(server)

  def put_url(url, options) do
    case address(Keyword.put(options, :url, url)) do
      {:ok, {_host, _port, token}} -> put(url: url, token: token)
      {:error, message} -> raise ArgumentError, "DSPex.ML.put_url/2: " <> message
    end
  end

  # `Process.get/1` has `nil` for what is not there, too.
  defp put(server), do: {:server, Process.put(@key, server)}

  @doc false
  @spec address() :: {:ok, Address.t()} | {:error, Error.t()}
  def address do
    with {:error, message} <- address(server()),
         do: {:error, Error.new(:invalid_params, "the configuration of DSPex.ML: " <> message)}
  end

  defp address(options) do
    with {:ok, token} <- token(options[:token]),
         do: Address.new(options[:url] || Address.default_url(), token)
  end

  @spec token(term()) :: {:ok, Secret.t() | nil} | {:error, String.t()}
  defp token(nil), do: {:ok, nil}
  defp token(token), do: Address.token(token)

  defp server, do: Process.get(@key) || Application.get_env(:dspex, __MODULE__, [])
end
