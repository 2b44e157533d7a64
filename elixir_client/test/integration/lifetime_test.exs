defmodule DSPex.Integration.LifetimeTest do
  # Bridges that start, die and stop.
  use ExUnit.Case, async: true

  alias DSPex.Error
  alias DSPex.Test.{Bridge, Peer}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 120_000

  defmodule Note do
    @moduledoc "Read a note."
    use DSPex.Signature
    input :note, :string
    output :kind, {:one_of, [:task, :idea]}
    output :due, :date
  end

  @demos [
    %{inputs: %{note: "Buy milk"}, outputs: %{kind: :task, due: ~D[2024-02-29]}},
    %{inputs: %{note: "A car that flies"}, outputs: %{kind: :idea, due: ~D[2030-01-01]}}
  ]

  test "a killed Python is back with every program, and no call is answered twice or never" do
    name = Bridge.start(lms: [knn: "demo/knn"])
    {:ok, program} = DSPex.create(name, Note, demos: @demos, program: "kept")
    inputs = %{note: "Buy bread"}
    assert {:ok, before} = DSPex.execute(name, program, inputs)
    first = Bridge.os_pid(name)

    calls =
      for n <- 1..50 do
        Task.async(fn ->
          if n == 25, do: System.cmd("kill", ["-KILL", Integer.to_string(first)])
          answer = DSPex.execute(name, "kept", inputs)
          {answer, Process.info(self(), :messages)}
        end)
      end

    for task <- calls do
      assert {answer, {:messages, []}} = Task.await(task, 60_000)

      case answer do
        {:ok, prediction} -> assert prediction.outputs == before.outputs
        {:error, error} -> assert error.code == :connection_lost
      end
    end

    assert {:ok, again} = DSPex.execute(name, program, inputs)
    assert again.outputs == before.outputs
    assert Bridge.os_pid(name) != first
    assert Peer.eventually(fn -> not Bridge.alive?(first) end)
  end

  test "a killed Python is back with a program whose deadline was shorter than Python's start" do
    name = Bridge.start()
    assert {:ok, nil} = DSPex.ping(name)

    # However busy the machine is, some attempt is made in time.
    options = [program: "kept", replace: true, timeout: 500]
    Peer.eventually(fn -> match?({:ok, _}, DSPex.create(name, "a -> b", options)) end)

    System.cmd("kill", ["-KILL", Integer.to_string(Bridge.os_pid(name))])
    assert {:ok, [%{"program" => "kept"}]} = Peer.eventually(fn -> after_restart(name) end)
  end

  # The list of the next Python; a call may still be on its way to the one before.
  defp after_restart(name) do
    with {:error, %Error{code: :connection_lost}} <- DSPex.list(name), do: nil
  end

  test "an answer over the client's limit is an error of that call" do
    name = Bridge.start(max_frame_bytes: 10_000)

    assert {:error, %Error{code: :frame_too_large, data: %{"limit" => 10_000}}} =
             DSPex.ping(name, payload: String.duplicate("x", 20_000))

    assert DSPex.ping(name, payload: "small") == {:ok, "small"}
  end

  test "a wrong configuration is told with the bridge's own words" do
    name = Bridge.start(lms: [main: [model: "openai/x", extra: %{headers: %{a: "b"}}]])

    assert {:error, %Error{code: :start_failed, retryable: false, message: message}} =
             DSPex.ping(name)

    assert message =~ "configure was refused: invalid_params: lms.main.extra.headers: "

    assert {:ok, %{"lms" => %{"main" => _}}} = DSPex.configure(name, lms: [main: "demo/knn"])
    assert DSPex.ping(name, payload: "mended") == {:ok, "mended"}
  end

  test "an instance that stops leaves no process" do
    name = Bridge.start()
    assert {:ok, nil} = DSPex.ping(name)
    os_pid = Bridge.os_pid(name)
    assert Bridge.alive?(os_pid)
    stop_supervised!(name)
    assert Peer.eventually(fn -> not Bridge.alive?(os_pid) end)
  end
end
