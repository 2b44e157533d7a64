defmodule DSPex.Connection.CallsTest do
  use ExUnit.Case, async: true

  alias DSPex.Connection.Calls
  alias DSPex.Connection.Calls.Call

  @moduletag :protocol

  defp add(calls, reply),
    do: Calls.add(calls, %Call{reply: reply, method: "ping", caller: self()})

  defp delete(calls, id) do
    {:ok, call} = Calls.fetch(calls, id)
    Calls.delete(calls, id, call)
  end

  test "a call is found by its alias until it is answered" do
    refs = for _ <- 1..1000, do: make_ref()
    calls = Enum.reduce(refs, %Calls{}, &add(&2, &1))
    {found, calls} = Calls.id(calls, Enum.at(refs, 700))
    assert found == {:ok, 700}

    # One that came after somebody had asked.
    late = make_ref()
    calls = add(calls, late)
    assert {{:ok, 1000}, calls} = Calls.id(calls, late)

    calls = delete(calls, 700)
    assert {:error, calls} = Calls.id(calls, Enum.at(refs, 700))
    calls = Enum.reduce(Calls.all(calls), calls, &delete(&2, elem(&1, 0)))
    assert {calls.by_id, calls.by_key} == {%{}, %{}}
  end

  test "nothing is kept of the connection's own calls" do
    calls =
      Enum.reduce(1..1000, %Calls{}, fn _, calls ->
        id = Calls.next_id(calls)
        calls |> Calls.add(%Call{reply: :heartbeat, method: "ping"}) |> delete(id)
      end)

    assert {calls.by_id, calls.recent} == {%{}, []}
  end

  test "a caller that is dead when it comes to be watched is told, that of an answered call is not" do
    {dead, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, ^dead, :normal}

    calls =
      Enum.reduce(1..2, %Calls{}, fn _, calls ->
        Calls.add(calls, %Call{reply: make_ref(), method: "ping", caller: dead})
      end)

    calls = calls |> delete(0) |> Calls.watch()

    assert_receive {{:caller_down, 1}, _ref, :process, ^dead, :noproc}
    refute_received {{:caller_down, 0}, _ref, :process, _pid, _reason}
    assert calls.recent == []
    assert map_size(calls.by_key) == 1
  end

  test "a caller that dies is told for as long as it waits" do
    {caller, monitor} = spawn_monitor(fn -> receive do: (:end -> :ok) end)

    calls =
      Enum.reduce(1..2, %Calls{}, fn _, calls ->
        Calls.add(calls, %Call{reply: make_ref(), method: "ping", caller: caller})
      end)

    _calls = calls |> Calls.watch() |> delete(0)
    send(caller, :end)

    assert_receive {{:caller_down, 1}, _ref, :process, ^caller, :normal}
    assert_receive {:DOWN, ^monitor, :process, ^caller, :normal}
    refute_received {{:caller_down, 0}, _ref, :process, _pid, _reason}
  end
end
