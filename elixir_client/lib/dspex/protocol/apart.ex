defmodule DSPex.Protocol.Apart do
  @moduledoc false
  # Long frames are read in a process of their own, whose heap is made for them.
  #
  # A heap that grows as it fills is copied again and again, and what it was before stays with the
  # runtime's allocators for a while: reading a hostile frame then takes three hundred times its
  # bytes, where its values are a tenth of that. A heap that is large enough from the beginning is
  # never copied, and the system gives memory only for as much of it as is written to. It is also
  # up to three times as fast.

  alias DSPex.Error

  # Where a process costs nothing beside the reading. The heaps of shorter ones matter to nobody.
  @long 65_536

  # Of heap, for a byte of a frame: more than reading the worst of them takes, garbage included.
  @heap_bytes 64

  # Room for collecting it all the same, for the application's own library may make much of decimals.
  @most_heap_bytes 3 * @heap_bytes

  @doc """
  What `fun` makes of the frame. Where that takes more memory than a frame of its size may, or does
  not succeed, it is the error of this frame alone.
  """
  @spec read(binary(), (binary() -> result)) :: {:ok, result} | {:error, Error.t()}
        when result: term()
  def read(frame, fun) when byte_size(frame) < @long, do: {:ok, fun.(frame)}

  def read(frame, fun) do
    caller = self()

    work = fn ->
      receive do
        ref -> send(caller, {ref, fun.(frame)})
      end
    end

    pid = :erlang.spawn_opt(work, heap(byte_size(frame)))
    ref = Process.monitor(pid)
    send(pid, ref)

    # As a message: the reason of an exit would be copied twice, and its literals with it.
    receive do
      {^ref, result} ->
        Process.demonitor(ref, [:flush])
        {:ok, result}

      {:DOWN, ^ref, :process, ^pid, :killed} ->
        {:error, too_much(byte_size(frame))}

      {:DOWN, ^ref, :process, ^pid, _crash} ->
        {:error, crashed(byte_size(frame))}
    end
  end

  defp heap(size) do
    [
      min_heap_size: words(size * @heap_bytes),
      # The frame itself would else be a reason to collect at once.
      min_bin_vheap_size: words(2 * size),
      max_heap_size: %{size: words(size * @most_heap_bytes), kill: true, error_logger: false}
    ]
  end

  defp words(bytes), do: div(bytes, :erlang.system_info(:wordsize))

  defp too_much(size) do
    text = "reading a frame of #{size} bytes would take more than #{@most_heap_bytes} times that"
    Error.new(:internal_error, text)
  end

  # The runtime has logged it.
  defp crashed(size),
    do: Error.new(:internal_error, "the process that read a frame of #{size} bytes crashed")
end
