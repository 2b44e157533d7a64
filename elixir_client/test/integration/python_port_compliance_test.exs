defmodule DSPex.Integration.PythonPortComplianceTest do
  use DSPex.Test.AdapterCompliance,
    tags: [integration: true, capture_log: true, timeout: 120_000]

  alias DSPex.Test.{Bridge, Folder}

  setup_all do
    folder = Folder.make()
    command = Bridge.command() ++ ["--state-dir", folder]
    lms = [knn: "demo/knn"]
    name = __MODULE__.Instance
    {:ok, name: Bridge.start(name: name, command: command, lms: lms, default_lm: :knn)}
  end

  # One Python for all of them: its start is what takes the time.
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
