defmodule DSPex.DeadlineTest do
  use ExUnit.Case, async: true

  alias DSPex.Deadline

  @hour 3_600_000

  test "what is left of a deadline is no more than its timeout and the grace, and of none infinite" do
    assert Deadline.left(Deadline.from_now(@hour)) in (@hour - 60_000)..@hour
    assert Deadline.left(Deadline.from_now(@hour, 50)) in (@hour - 60_000)..(@hour + 50)
    assert Deadline.left(Deadline.from_now(:infinity, 50)) == :infinity
  end

  test "a step takes what it may at most, or less where less is left" do
    assert Deadline.left(Deadline.from_now(@hour), 10) == 10
    assert Deadline.left(Deadline.from_now(0), 10) == 0
    assert Deadline.left(Deadline.from_now(:infinity), 10) == 10
    assert Deadline.left(Deadline.from_now(:infinity), :infinity) == :infinity
  end

  test "one that is over stays over, with nothing left of it" do
    over = Deadline.from_now(0)
    assert Deadline.pause(1) == :ok
    assert Deadline.passed?(over)
    assert Deadline.left(over) == 0
    refute Deadline.passed?(Deadline.from_now(@hour))
    refute Deadline.passed?(Deadline.from_now(:infinity))
  end

  test "a step before others gives what is left for them, and is late where nothing is" do
    assert {:ok, :made, left} =
             Deadline.step(@hour, fn @hour ->
               Deadline.pause(20)
               {:ok, :made}
             end)

    assert left in (@hour - 60_000)..(@hour - 20)
    assert Deadline.step(:infinity, fn :infinity -> {:ok, :made} end) == {:ok, :made, :infinity}
    assert Deadline.step(@hour, fn _all -> {:error, :no} end) == {:error, :no}

    assert {:error, %DSPex.Error{code: :timeout, message: "no answer within 5 ms"}} =
             Deadline.step(5, fn _all -> {:ok, Deadline.pause(5)} end)
  end

  test "a pause ends with the deadline, and takes nothing out of the mailbox" do
    send(self(), :news)
    # Were it an hour, the test would not end.
    assert Deadline.pause(Deadline.from_now(5), @hour) == :ok
    assert_received :news
  end

  test "a pause without a deadline is as long as it says" do
    began = System.monotonic_time(:millisecond)
    Deadline.pause(20)
    assert System.monotonic_time(:millisecond) - began >= 20
  end
end
