defmodule DSPex.Connection.OutboxTest do
  use ExUnit.Case, async: true

  alias DSPex.Connection.Outbox

  @moduletag :protocol

  defp body(id), do: fn -> "#{id}" end
  defp size(id), do: 1 + rem(id, 7)

  defp put(outbox, id) do
    {:ok, outbox} = Outbox.put_request(outbox, {id, body(id), size(id), []})
    outbox
  end

  test "requests leave in the order of their ids, whatever is dropped meanwhile" do
    seed = :rand.uniform(1_000_000)
    :rand.seed(:exsss, seed)

    {outbox, waiting, _taken, _next} =
      Enum.reduce(1..5000, {Outbox.new(10_000_000), [], [], 0}, fn _, before ->
        {outbox, waiting, taken, _next} = now = step(:rand.uniform(5), before)
        assert Enum.all?(Enum.take_random(waiting, 5), &Outbox.waits?(outbox, &1)), "seed #{seed}"
        refute Enum.any?(Enum.take_random(taken, 5), &Outbox.waits?(outbox, &1)), "seed #{seed}"
        assert Outbox.waiting(outbox) == length(waiting), "seed #{seed}"
        now
      end)

    outbox = Enum.reduce(waiting, outbox, &taken(&2, &1))
    assert Outbox.next_request(outbox) == :none, "seed #{seed}"
    assert %{bytes: 0, waiting: 0, dropped_bytes: 0} = outbox
    assert outbox.dropped == %{}
  end

  # Some ids are the connection's own, and never here.
  defp step(number, {outbox, waiting, taken, next}) when number in 1..2 do
    id = next + :rand.uniform(2)
    {put(outbox, id), waiting ++ [id], taken, id + 1}
  end

  defp step(_number, {outbox, [], taken, next}), do: {outbox, [], taken, next}

  defp step(3, {outbox, [first | rest], taken, next}),
    do: {taken(outbox, first), rest, [first | taken], next}

  defp step(_number, {outbox, waiting, taken, next}) do
    id = Enum.random(waiting)
    {:dropped, outbox} = Outbox.drop(outbox, id, size(id))
    {outbox, List.delete(waiting, id), taken, next}
  end

  defp taken(outbox, id) do
    assert {{^id, body, size, []}, outbox} = Outbox.next_request(outbox)
    assert {body.(), size} == {"#{id}", size(id)}
    outbox
  end

  test "what was dropped is not kept while others wait" do
    outbox = Enum.reduce(1..1000, Outbox.new(10_000_000), &put(&2, &1))

    outbox =
      Enum.reduce(2..1000, outbox, fn id, outbox ->
        {:dropped, outbox} = Outbox.drop(outbox, id, size(id))
        outbox
      end)

    assert :queue.len(outbox.requests) <= 2
    assert map_size(outbox.dropped) <= 1

    # Many small ones do not keep a large one.
    outbox = Enum.reduce(2001..3000, outbox, &put(&2, &1))
    {:ok, outbox} = Outbox.put_request(outbox, {4000, body(4000), 1_000_000, []})
    {:dropped, outbox} = Outbox.drop(outbox, 4000, 1_000_000)
    assert {map_size(outbox.dropped), :queue.len(outbox.requests)} == {0, 1001}
  end
end
