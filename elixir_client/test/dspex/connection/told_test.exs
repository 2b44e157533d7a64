defmodule DSPex.Connection.ToldTest do
  use ExUnit.Case, async: true

  alias DSPex.Connection.Told
  alias DSPex.Journal

  @moduletag :protocol

  defp journal(test) do
    name = Module.concat([__MODULE__, test])
    start_supervised!({Journal, name: name, configuration: %{}, journal: :memory})
    {_configuration, version} = Journal.configuration(name)
    {name, %Told{generation: Journal.generation(name), configuration: version}}
  end

  defp put(journal, id) do
    {:ok, _before, _version} = Journal.record(journal, {:put, id, fn -> "body" end, nil, []})
  end

  test "a change that is nothing to tell is looked at once, and not again with every request", %{
    test: test
  } do
    {journal, told} = journal(test)
    refute Told.behind?(told, journal)

    # It is told when a call needs it.
    put(journal, "qa")
    assert Told.behind?(told, journal)
    assert {:unchanged, told} = Told.change(told, journal)
    refute Told.behind?(told, journal)
    assert {{:load, "qa"}, "body", told} = Told.load(told, journal, ["qa"])
    assert Told.load(told, journal, ["qa"]) == nil
  end

  test "each program that is gone is told, and then there is nothing more", %{test: test} do
    {journal, told} = journal(test)
    for id <- ["one", "two", "three"], do: put(journal, id)
    told = Enum.reduce(["one", "two"], told, &elem(Told.load(&2, journal, [&1]), 2))
    for id <- ["one", "two", "three"], do: {:ok, _, _} = Journal.record(journal, {:delete, id})

    assert {{:forget, one}, _body, told} = Told.change(told, journal)
    assert {{:forget, other}, _body, told} = Told.change(told, journal)
    assert Enum.sort([one, other]) == ["one", "two"]
    assert {:unchanged, told} = Told.change(told, journal)
    refute Told.behind?(told, journal)
  end
end
