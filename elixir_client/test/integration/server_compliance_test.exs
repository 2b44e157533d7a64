defmodule DSPex.Integration.ServerComplianceTest do
  # What a server cannot do, its adapter's documentation says, and the tests of it are in server_test.
  use DSPex.Test.AdapterCompliance,
    without: [:configure, :files, :functions],
    tags: [integration: true, capture_log: true, timeout: 120_000]

  alias DSPex.Test.{Bridge, Peer, Serve}

  setup_all do
    name = __MODULE__.Instance
    start_supervised!({DSPex, name: name, backend: {DSPex.Adapter.Server, url: Serve.start()}})
    {:ok, name: name}
  end

  setup %{name: name} do
    {:ok, programs} = DSPex.list(name)
    for %{"program" => id} <- programs, do: Peer.eventually(fn -> gone?(name, id) end)

    hang = fn ->
      {_listener, lm} = Bridge.silent_lm()
      [lm: lm]
    end

    %{hang: hang}
  end

  # An execution of the test before may be under way still, although its caller has been answered.
  defp gone?(name, id) do
    case DSPex.delete(name, id) do
      :ok -> true
      {:error, %Error{code: :wrong_state}} -> false
    end
  end
end
