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

  To run such programs by the functions of `DSPex`, with streams and evaluations, there is
  `DSPex.Adapter.Server`.
  """

  alias DSPex.{Error, Secret}
  alias DSPex.Server.HTTP

  @key {__MODULE__, :server}

  @doc "The address of the server that this process asks."
  @spec url() :: String.t()
  def url, do: server()[:url] || HTTP.default_url()

  @doc """
  Has this process ask another server, one that wants a `:token` with it, or with `nil` the application's
  again; gives the address that it asked before.
  """
  @spec put_url(String.t() | nil, token: String.t()) :: String.t()
  def put_url(url, options \\ [])

  def put_url(nil, []) do
    before = url()
    Process.delete(@key)
    before
  end

  def put_url(url, options) do
    before = url()
    options = Keyword.put(options, :url, url)

    case address(options) do
      {:ok, {_host, _port, token}} -> Process.put(@key, url: url, token: token)
      {:error, message} -> raise ArgumentError, "DSPex.ML.put_url/2: " <> message
    end

    before
  end

  @doc false
  @spec address() :: {:ok, HTTP.address()} | {:error, Error.t()}
  def address do
    with {:error, message} <- address(server()),
         do: {:error, Error.new(:invalid_params, "the configuration of DSPex.ML: " <> message)}
  end

  defp address(options) do
    with {:ok, token} <- token(options[:token]),
         do: HTTP.address(options[:url] || HTTP.default_url(), token)
  end

  @spec token(term()) :: {:ok, Secret.t() | nil} | {:error, String.t()}
  defp token(nil), do: {:ok, nil}
  defp token(token), do: HTTP.token(token)

  defp server, do: Process.get(@key) || Application.get_env(:dspex, __MODULE__, [])
end
