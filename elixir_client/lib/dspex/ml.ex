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

  (which is where one listens that is told nothing), or a process for itself, with `put_url/1`.

  Every function answers `{:ok, result}` or `{:error, %DSPex.Error{}}`; the forms with `!` raise. A
  resource is named by its struct or its id; programs and datasets by their names, too. A function that
  lists takes filters, and `:first` (50, at most 500) and `:after` for the page: see `DSPex.ML.Page`.

  To run such programs by the functions of `DSPex`, with streams and evaluations, there is
  `DSPex.Adapter.Server`.
  """

  alias DSPex.Server.HTTP

  @key {__MODULE__, :url}

  @doc "The address of the server that this process asks."
  @spec url() :: String.t()
  def url do
    Process.get(@key) || Application.get_env(:dspex, __MODULE__, [])[:url] || HTTP.default_url()
  end

  @doc "Has this process ask another server, `nil` the application's again; gives what it asked before."
  @spec put_url(String.t() | nil) :: String.t()
  def put_url(url) do
    before = url()

    with address when address != nil <- url,
         {:error, message} <- HTTP.address(address),
         do: raise(ArgumentError, "DSPex.ML.put_url/1: " <> message)

    Process.put(@key, url)
    before
  end
end
