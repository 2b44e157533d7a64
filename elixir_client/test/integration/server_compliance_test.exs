defmodule DSPex.Integration.ServerComplianceTest do
  # What a server cannot do, its adapter's documentation says, and the tests of it are in server_test.
  use DSPex.Test.AdapterCompliance,
    without: [:configure, :files, :functions],
    tags: [integration: true, capture_log: true, timeout: 120_000]

  alias DSPex.Test.{Bridge, Serve}

  setup_all do
    name = __MODULE__.Instance
    start_supervised!({DSPex, name: name, backend: {DSPex.Adapter.Server, url: Serve.start()}})
    {:ok, name: name}
  end

  setup %{name: name} do
    {:ok, programs} = DSPex.list(name)
    for %{"program" => id} <- programs, do: :ok = DSPex.delete(name, id)

    hang = fn ->
      {_listener, lm} = Bridge.silent_lm()
      [lm: lm]
    end

    %{hang: hang}
  end
end
