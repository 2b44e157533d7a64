defmodule DSPex.GrowthTest do
  # What an answer within the limit may take in the process that decodes it.
  use ExUnit.Case, async: true

  alias DSPex.Connection.Caller

  @frame_bytes 200_000

  # Of the frame's size, the heaps that a garbage collection holds at one time included: what the
  # README says.
  @bound 200

  # The most expensive values for their bytes that there are.
  @values %{
    "timestamps" => <<0xD6, 0xFF, 1::32>>,
    "decimals" => <<0xD4, 3, ?1>>,
    "empty texts" => <<0xA0>>,
    "empty binaries" => <<0xC4, 0>>,
    "empty maps" => <<0x80>>,
    "maps of one pair" => <<0x81, 0xA0, 0xA0>>,
    "maps in maps" => :binary.copy(<<0x81, 0xA0>>, 400) <> <<0xC0>>,
    "lists in lists" => :binary.copy(<<0x91>>, 400) <> <<0xC0>>,
    "tensors" => <<0xC7, 8, 2, 0x93, 0xA2, "u8", 0x91, 0, 0xC4, 0>>
  }

  defp answer(value) do
    count = div(@frame_bytes, byte_size(value))
    <<0x94, 1, 7, 0xC0, 0xDD, count::32>> <> :binary.copy(value, count)
  end

  # Whether the answer is read by a process that is killed where it takes more than that.
  defp read_within?(frame, times) do
    words = div(byte_size(frame) * times, :erlang.system_info(:wordsize))
    limit = %{size: words, kill: true, error_logger: false}
    read = fn -> exit(elem(Caller.read(frame), 0)) end
    {pid, monitor} = :erlang.spawn_opt(read, [:monitor, {:max_heap_size, limit}])

    receive do
      {:DOWN, ^monitor, :process, ^pid, reason} ->
        assert reason in [:ok, :killed]
        reason == :ok
    end
  end

  test "an answer takes at most two hundred times its size" do
    for {name, value} <- @values do
      assert {name, read_within?(answer(value), @bound)} == {name, true}
    end
  end

  test "and the bound is one that would be noticed" do
    refute read_within?(answer(@values["timestamps"]), div(@bound, 2))
  end
end
