defmodule DSPex.Connection.CallsTest do
  use ExUnit.Case, async: true

  alias DSPex.Connection.Calls
  alias DSPex.Connection.Calls.Call

  @moduletag :protocol

  defp add(calls, reply), do: Calls.add(calls, %Call{reply: reply, method: "ping"})

  test "a call is found by its alias until it is answered" do
    refs = for _ <- 1..1000, do: make_ref()
    calls = Enum.reduce(refs, %Calls{}, &add(&2, &1))
    {found, calls} = Calls.id(calls, Enum.at(refs, 700))
    assert found == {:ok, 700}

    # One that came after somebody had asked.
    late = make_ref()
    calls = add(calls, late)
    assert {{:ok, 1000}, calls} = Calls.id(calls, late)

    {_call, calls} = Calls.pop(calls, 700)
    assert {:error, calls} = Calls.id(calls, Enum.at(refs, 700))
    calls = Enum.reduce(Calls.ids(calls), calls, &elem(Calls.pop(&2, &1), 1))
    assert {calls.by_id, calls.by_key} == {%{}, %{}}
  end

  test "what is kept to find calls later stays small where nobody asks" do
    calls =
      Enum.reduce(1..10_000, add(%Calls{}, make_ref()), fn _, calls ->
        id = Calls.next_id(calls)
        {_call, calls} = calls |> add(make_ref()) |> Calls.pop(id)
        calls
      end)

    assert Calls.count(calls) == 1
    assert length(calls.recent) == calls.recent_count
    assert calls.recent_count < 300
  end
end
