defmodule DSPex.Journal.Lock do
  @moduledoc false
  # One journal has a file at a time: a local socket beside the file, at which the journal's process
  # listens. The system closes it with that process, however that or the whole node ends. The name in
  # the folder stays, and says nothing: whether anybody is there is seen by calling. A second process,
  # which ends with the first, takes the calls.

  alias DSPex.Deadline

  @type t :: :gen_tcp.socket()

  @type reason ::
          {:held, os_pid :: pos_integer() | nil} | :occupied | :inet.posix()

  # Who calls is in this queue until the lock's second process takes the call.
  @backlog 1024

  @call_ms 1000

  # What the system has room for in the name of a local socket, on Linux and the others.
  @max_name_bytes 103

  # A process of this node that has just ended may not have been closed yet; and who else is looking
  # has done so in far less.
  @patience_ms 1000
  @look_again_ms 10

  # The system's numbers for "who listens there" (SO_PEERCRED): its process, user and group.
  @linux_peer {1, 17, 12}

  @doc """
  Takes the lock of a file, in a folder that is there, for the calling process, until that ends.
  """
  @spec take(String.t()) :: {:ok, t()} | {:error, reason()}
  def take(path) do
    with {:ok, name, done} <- short(path <> ".lock") do
      try do
        with {:ok, lock} <- patiently(name, Deadline.from_now(@patience_ms)) do
          spawn_link(fn -> answer(lock) end)
          {:ok, lock}
        end
      after
        done.()
      end
    end
  end

  defp patiently(name, deadline) do
    own = System.pid() |> String.to_integer()

    with {:error, {:held, os_pid}} when os_pid in [own, :looking] <- alone(name, &take_or_tell/1) do
      if Deadline.passed?(deadline) do
        {:error, {:held, if(os_pid == own, do: own)}}
      else
        Deadline.pause(deadline, @look_again_ms)
        patiently(name, deadline)
      end
    end
  end

  # Takes all calls, as long as there is a lock: in a full queue nobody sees whose it is.
  defp answer(lock) do
    case :gen_tcp.accept(lock) do
      {:ok, call} ->
        :gen_tcp.close(call)
        answer(lock)

      {:error, :closed} ->
        :ok

      # The node has no more descriptors at this moment, or who called has gone.
      {:error, _passing} ->
        Deadline.pause(@look_again_ms)
        answer(lock)
    end
  end

  # A name that a process has left behind is cleared by one at a time: the second would clear that of
  # the first. The mutex is a name in no folder, which Linux has, and which nobody leaves behind; for
  # other systems, and between containers, two would have to come within the same millisecond.
  defp alone(name, fun) do
    case :gen_tcp.listen(0, [:local, ifaddr: {:local, mutex(name)}]) do
      {:ok, mutex} ->
        try do
          fun.(name)
        after
          :gen_tcp.close(mutex)
        end

      {:error, :eaddrinuse} ->
        {:error, {:held, :looking}}

      {:error, _no_such_names} ->
        fun.(name)
    end
  end

  # The same for every way to write the path.
  defp mutex(name) do
    folder = name |> Path.dirname() |> File.stat!()
    base = name |> Path.basename() |> :erlang.phash2()
    <<0, "dspex-journal-#{folder.major_device}-#{folder.inode}-#{base}">>
  end

  defp take_or_tell(name) do
    with {:error, :eaddrinuse} <- listen(name) do
      case holder(name) do
        :nobody -> with :ok <- File.rm(name), do: listen(name)
        other -> {:error, other}
      end
    end
  end

  defp listen(name),
    do: :gen_tcp.listen(0, [:local, ifaddr: {:local, name}, active: false, backlog: @backlog])

  defp holder(name) do
    case :gen_tcp.connect({:local, name}, 0, [:local, active: false], @call_ms) do
      {:ok, socket} ->
        os_pid = listener(socket)
        :gen_tcp.close(socket)
        {:held, os_pid}

      {:error, :econnrefused} ->
        # A socket is none of the kinds that have a name.
        if match?({:ok, %{type: :other}}, File.lstat(name)),
          do: :nobody,
          else: :occupied

      # The queue is full, or it is another user's.
      {:error, _reason} ->
        {:held, nil}
    end
  end

  defp listener(socket) do
    {level, option, bytes} = @linux_peer

    with {:unix, :linux} <- :os.type(),
         {:ok, [{:raw, _level, _option, <<os_pid::native-32, _rest::binary>>}]} when os_pid > 0 <-
           :inet.getopts(socket, [{:raw, level, option, bytes}]) do
      os_pid
    else
      # Another system, or a process of another container.
      _unknown -> nil
    end
  end

  # A name that is too long goes by a link to its folder, which nobody needs afterwards.
  defp short(name) when byte_size(name) <= @max_name_bytes, do: {:ok, name, fn -> :ok end}

  defp short(name) do
    unique = "dspex-#{System.pid()}-#{System.unique_integer([:positive])}"
    link = Path.join(System.tmp_dir!(), unique)

    with :ok <- File.ln_s(Path.expand(Path.dirname(name)), link),
         do: {:ok, Path.join(link, Path.basename(name)), fn -> File.rm(link) end}
  end
end
