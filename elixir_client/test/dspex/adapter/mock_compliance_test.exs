defmodule DSPex.Adapter.MockComplianceTest do
  use DSPex.Test.AdapterCompliance

  alias DSPex.Adapter.Mock

  setup_all do
    name = __MODULE__.Instance
    start_supervised!({DSPex, name: name, backend: Mock, lms: [main: "mock/lm"]})
    %{name: name}
  end

  # One instance, and each test has its own.
  setup %{name: name} do
    Mock.checkout(name)

    hang = fn ->
      Mock.script(name, :any, [:hang])
      []
    end

    %{hang: hang}
  end
end
