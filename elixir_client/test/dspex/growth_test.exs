defmodule DSPex.GrowthTest do
  # What a frame within the limit may take of the system's memory, for as long as it is read.
  use ExUnit.Case, async: true

  @moduletag :protocol

  alias DSPex.Protocol.Apart

  # Of the frame's size; what SPEC.md and the README say.
  @bound 100

  @script Path.expand("../support/growth.exs", __DIR__)

  # The most expensive values for their bytes that there are, of each kind.
  @values %{
    "timestamps" => <<0xD6, 0xFF, 1::32>>,
    "decimals" => <<0xD4, 3, ?1>>,
    "decimals of two digits" => <<0xD5, 3, "12">>,
    "empty texts" => <<0xA0>>,
    "texts of a character" => <<0xA1, "a">>,
    "empty binaries" => <<0xC4, 0>>,
    "binaries of a byte" => <<0xC4, 1, 0>>,
    "maps of a pair" => <<0x81, 0xA0, 0xA0>>,
    "maps with a key twice" => <<0x82, 0xA0, 0xC0, 0xA0, 0xC0>>,
    "maps in maps" => :binary.copy(<<0x81, 0xA0>>, 400) <> <<0xC0>>,
    "lists in lists" => :binary.copy(<<0x91>>, 400) <> <<0xC0>>,
    "tensors" => <<0xD7, 2, 0x93, 0xA2, "u8", 0x91, 0, 0xC4, 0>>
  }

  defp growth(bytes, value) do
    ebin = Path.join(:code.lib_dir(:dspex), "ebin")
    hex = Base.encode16(value)
    args = ["-pa", ebin, @script, Integer.to_string(bytes), hex]

    assert {printed, 0} = System.cmd("elixir", args, stderr_to_stdout: true)
    {times, "\n"} = Float.parse(printed)
    times
  end

  # Those that come nearest to it.
  @worst ["maps with a key twice", "maps in maps", "decimals", "binaries of a byte"]

  @tag timeout: 600_000
  test "a frame of 2 MB takes at most a hundred times its size" do
    grown = for {name, value} <- @values, do: {name, growth(2_000_000, value)}

    assert Enum.filter(grown, fn {_name, times} -> times > @bound end) == []
    # And what is measured is there: these values alone are as much, twice.
    assert {_name, times} = List.keyfind(grown, "timestamps", 0)
    assert times > 48
  end

  @tag timeout: 600_000
  test "a frame of 16 MB takes at most a hundred times its size" do
    grown = for name <- @worst, do: {name, growth(16_000_000, @values[name])}
    assert Enum.filter(grown, fn {_name, times} -> times > @bound end) == []
  end

  describe "a long frame" do
    @frame :binary.copy(<<0>>, 100_000)

    test "whose reading takes too much memory is an error, and nobody dies" do
      read = fn _frame -> Enum.reduce(1..100_000_000, [], &[&1 | &2]) end

      assert {:error, error} = Apart.read(@frame, read)
      assert error.code == :internal_error
      assert error.message =~ "a frame of 100000 bytes"
    end

    test "whose reading crashes is an error, and nobody dies" do
      assert {:error, error} = Apart.read(@frame, fn _frame -> exit(:broken) end)
      assert error.code == :internal_error
    end

    test "is read in a process that is gone afterwards, a short one in the caller's" do
      assert {:ok, reader} = Apart.read(@frame, fn _frame -> self() end)
      refute reader == self()
      ref = Process.monitor(reader)
      assert_receive {:DOWN, ^ref, :process, ^reader, _normal}

      assert Apart.read("short", fn "short" -> self() end) == {:ok, self()}
    end
  end
end
