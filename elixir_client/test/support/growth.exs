# What reading a frame takes of the system's memory: run by growth_test.exs in a BEAM of its own, for
# what an earlier frame took stays with the runtime's allocators for a while.
#
#     elixir -pa EBIN growth.exs BYTES HEX
#
# The frame is an answer that is a list of the value in HEX, as often as it goes into BYTES. Prints
# how many times the frame's bytes the resident memory grew at its peak, from before there was a
# frame to when the value is on the heap of the process that asked for it.

alias DSPex.Connection.Caller

[bytes, hex] = System.argv()
value = Base.decode16!(hex)
count = div(String.to_integer(bytes), byte_size(value))

status = fn field ->
  [_line, kilobytes] = Regex.run(~r/#{field}:\s+(\d+) kB/, File.read!("/proc/self/status"))
  String.to_integer(kilobytes) * 1024
end

answer = fn value, count ->
  <<0x94, 1, 7, 0xC0, 0xDD, count::32>> <> :binary.copy(value, count)
end

# What the code and its first use take is no matter of a frame's.
{:ok, _warm} = Caller.read(answer.(value, div(100_000, byte_size(value))))

frame = answer.(value, count)
Enum.each(Process.list(), &:erlang.garbage_collect/1)
before = status.("VmRSS") - byte_size(frame)
# The peak is counted from here.
File.write!("/proc/self/clear_refs", "5")

{:ok, values} = Caller.read(frame)
# What came in a message is moved to the heap by the collection that it brings about.
{:garbage_collection_info, info} = Process.info(self(), :garbage_collection_info)
if info[:mbuf_size] > count, do: :erlang.garbage_collect()
peak = status.("VmHWM")
^count = length(values)
IO.puts(Float.round((peak - before) / byte_size(frame), 1))
