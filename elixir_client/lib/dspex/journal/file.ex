defmodule DSPex.Journal.File do
  @moduledoc false
  # A journal in a file: a heading, then one record for each change, appended and synced before the
  # change is confirmed. A record is its length, a checksum of that, a checksum of what follows, and
  # a MessagePack map: nothing in it becomes an atom or code.
  #
  # What a crash may leave is a record that is cut off at the end, which nobody had been told of: it
  # is put beside the file and cut away, with a warning. Whatever else is not as it was written is
  # damage: the file is left alone, and the instance does not start.
  #
  # It has one journal at a time: `DSPex.Journal.Lock`.
  #
  # There is no key in it: see `DSPex.Journal.Configuration`.

  require Logger

  alias DSPex.{Config, Error, Signature}
  alias DSPex.Journal.{Configuration, Lock, Program}
  alias DSPex.Protocol.Codec
  alias DSPex.Signature.Struct

  @heading "DSPex journal 1\n"

  # Before each record: three numbers of 32 bits.
  @record_head_bytes 12

  # Of changes that later ones have undone, before the file is written anew.
  @max_dead 1000

  # One after the other, as many as Linux follows.
  @max_links 40

  # Programs, with their demonstrations, are nobody else's.
  @mode 0o600

  @enforce_keys [:path, :lock, :io, :configuration, :programs, :records]
  defstruct @enforce_keys

  @type t :: %__MODULE__{}
  @type past :: %{configuration: Config.t(), programs: %{optional(String.t()) => Program.t()}}

  @doc "Opens the file, which is made where there is none; gives what it has."
  @spec open(String.t(), Config.t()) :: {:ok, t(), past()} | {:error, Error.t()}
  def open(path, configuration) do
    with {:ok, path} <- resolve(path, @max_links),
         {:ok, lock} <- lock(path),
         :ok <- alone(path),
         {:ok, bytes} <- read(path),
         {:ok, records} <- records(bytes, path),
         {:ok, file} <- rewrite(replay(records, path, lock)) do
      {:ok, file, past(file, configuration)}
    end
  end

  # The lock is beside the file itself, whatever link leads there; and writing it anew would put a file
  # in the place of a link.
  defp resolve(path, links) do
    case Elixir.File.read_link(path) do
      {:ok, _target} when links == 0 -> {:error, failed(path, "found", :eloop)}
      {:ok, target} -> path |> Path.dirname() |> beside(target) |> resolve(links - 1)
      {:error, _no_link} -> {:ok, path}
    end
  end

  # Not expanded: what is above a folder that is itself reached by a link, the system knows.
  defp beside(folder, target),
    do: if(Path.type(target) == :absolute, do: target, else: Path.join(folder, target))

  defp lock(path) do
    with :ok <- Elixir.File.mkdir_p(Path.dirname(path)),
         {:ok, lock} <- Lock.take(path) do
      {:ok, lock}
    else
      {:error, {:held, os_pid}} ->
        text =
          "the journal #{path} is in use by #{holder(os_pid)}: two would damage it. Give each " <>
            "instance a file of its own, or stop the other one first"

        {:error, Error.new(:journal_error, text)}

      {:error, :occupied} ->
        text =
          "the journal #{path} is locked with a socket named #{path}.lock, and there is another " <>
            "file of that name: move it away"

        {:error, Error.new(:journal_error, text)}

      {:error, reason} ->
        {:error, failed(path, "locked", reason)}
    end
  end

  defp holder(nil), do: "another process"

  defp holder(os_pid) do
    if "#{os_pid}" == System.pid(),
      do: "another instance of this node",
      else: "another process (pid #{os_pid})"
  end

  # Writing it anew would leave the other name with what it had, and nobody would see.
  defp alone(path) do
    case Elixir.File.lstat(path) do
      {:ok, %{type: :regular, links: links}} when links > 1 ->
        text =
          "the journal #{path} has #{links} names (hard links), and they would become files of their " <>
            "own: remove the others, or make them symbolic links"

        {:error, Error.new(:journal_error, text)}

      _one_or_none ->
        :ok
    end
  end

  @doc "Appends a change; once it answers, the change is on the disk."
  @spec append(t(), term()) :: {:ok, t()} | {:error, Error.t(), t()}
  def append(file, change) do
    record = to_record(change)

    case add(keep(%{file | records: file.records + 1}, record), record) do
      {:ok, file} -> {:ok, file}
      {:error, error} -> {:error, error, close(file)}
    end
  end

  # The last write failed, and may have left half of a record: nothing can follow that.
  defp add(%{io: nil} = file, _record), do: rewrite(file)

  defp add(file, record) do
    with :ok <- :file.write(file.io, frame(record)),
         :ok <- :file.datasync(file.io) do
      compact(file)
    else
      {:error, reason} -> {:error, failed(file.path, "written", reason)}
    end
  end

  defp close(file) do
    # It may be closed already, or be unable to write what is left: it is written anew.
    if file.io, do: :file.close(file.io)
    %{file | io: nil}
  end

  defp compact(file) do
    live = map_size(file.programs) + 1
    if file.records - live > @max_dead, do: rewrite(file), else: {:ok, file}
  end

  # --- reading ---

  defp read(path) do
    case Elixir.File.read(path) do
      {:ok, bytes} -> {:ok, bytes}
      {:error, :enoent} -> {:ok, @heading}
      {:error, reason} -> {:error, failed(path, "read", reason)}
    end
  end

  defp records(@heading <> rest, path), do: records(rest, byte_size(@heading), path, [])

  defp records(bytes, path) do
    # A heading that was cut off: nothing had been written after it.
    if bytes != "" and String.starts_with?(@heading, bytes),
      do: torn(bytes, 0, path, []),
      else: damaged(path, 0, "it does not begin as a journal of this version does")
  end

  defp records("", _at, _path, records), do: {:ok, Enum.reverse(records)}

  defp records(<<size::32, check::32, sum::32, rest::binary>> = bytes, at, path, records) do
    if check == size_check(size),
      do: record(rest, size, sum, {bytes, at, path, records}),
      else: damaged(path, at, "the length of a record is not what was written")
  end

  defp records(bytes, at, path, records), do: torn(bytes, at, path, records)

  defp record(rest, size, sum, {bytes, at, path, records}) do
    with <<payload::binary-size(size), rest::binary>> <- rest,
         {:sum, ^sum} <- {:sum, :erlang.crc32(payload)},
         {:ok, record} <- Codec.decode(payload) do
      records(rest, at + @record_head_bytes + size, path, [record | records])
    else
      short when is_binary(short) -> torn(bytes, at, path, records)
      _other -> damaged(path, at, "a record is not what was written")
    end
  end

  # The last change was never confirmed. It is kept all the same, for whoever wants to look.
  defp torn(bytes, at, path, records) do
    beside = "#{path}.torn-#{at}"

    Logger.warning(
      "DSPex: the journal #{path} ends in the middle of a change that was not confirmed; its last " <>
        "#{byte_size(bytes)} bytes are now in #{beside}"
    )

    case Elixir.File.write(beside, bytes) do
      :ok -> {:ok, Enum.reverse(records)}
      {:error, reason} -> {:error, failed(beside, "written", reason)}
    end
  end

  defp damaged(path, at, what) do
    text =
      "the journal #{path} is damaged at byte #{at}: #{what}. It has been left as it is: put a copy " <>
        "from a backup in its place, or move it away to begin with an empty one"

    {:error, Error.new(:journal_error, text)}
  end

  defp failed(path, what, reason) do
    Error.new(
      :journal_error,
      "the journal #{path} cannot be #{what}: #{:file.format_error(reason)}"
    )
  end

  # --- what it has ---

  defp replay(records, path, lock) do
    empty = %__MODULE__{
      path: path,
      lock: lock,
      io: nil,
      configuration: %{},
      programs: %{},
      records: 0
    }

    Enum.reduce(records, empty, &keep(&2, &1))
  end

  # Records are kept as they are written: what they mean is looked at when they are read.
  defp keep(file, %{"program" => id} = record),
    do: %{file | programs: Map.put(file.programs, id, record)}

  defp keep(file, %{"delete" => id}), do: %{file | programs: Map.delete(file.programs, id)}

  defp keep(file, %{"configure" => params}),
    do: %{file | configuration: Configuration.merge(file.configuration, params)}

  # From a later version of DSPex.
  defp keep(file, _unknown), do: file

  defp to_record({:delete, id}), do: %{"delete" => id}

  defp to_record({:program, id, program}) do
    tools = Program.tools_of(program)

    %{
      "program" => id,
      "body" => %DSPex.Binary{data: program.body.()},
      "signature" => program.signature && Signature.to_wire(program.signature),
      "module" => program.signature && program.signature.name,
      "tools" => Map.keys(tools),
      "tools_of" => tools,
      "revision" => program.revision
    }
  end

  defp to_record({:configure, params}), do: %{"configure" => Configuration.to_record(params)}

  # --- what comes of it ---

  defp past(file, given) do
    programs = Map.new(file.programs, fn {id, record} -> {id, program(id, record)} end)
    %{configuration: Configuration.restore(file.configuration, given), programs: programs}
  end

  defp program(id, record) do
    signature = signature(record)

    body = record["body"].data
    lost = lost_tools(id, record)

    case for {name, module} <- lost, not declared?(module), do: name do
      [] ->
        :ok

      names ->
        Logger.warning(
          "DSPex: the program #{id} of the journal has the tools #{Enum.join(names, ", ")}, which no " <>
            "file holds: give them with DSPex.put_tools/3; until then it is not run"
        )
    end

    %Program{
      body: fn -> body end,
      signature: signature,
      tools: %{},
      revision: record["revision"],
      lost_tools: lost
    }
  end

  defp lost_tools(_id, %{"tools_of" => tools}), do: tools

  # Of an earlier version of DSPex, which wrote down their names alone.
  defp lost_tools(id, %{"tools" => names, "module" => module}),
    do: Map.new(names, &{&1, if(module == id, do: module)})

  defp declared?(nil), do: false
  # Asked for its tools when they are needed: at this moment the application is still starting.
  defp declared?(module), do: Struct.find(module, :__program__) != nil

  # With the names that Elixir has for the fields, where the module is still there and the same.
  defp signature(%{"signature" => nil}), do: nil

  defp signature(%{"signature" => wire} = record) do
    with {:ok, signature} <- Signature.fetch(wire) do
      case of_module(record["module"]) do
        %Signature{} = of_module ->
          if Signature.to_wire(of_module) == wire, do: of_module, else: signature

        nil ->
          signature
      end
    else
      {:error, _error} -> nil
    end
  end

  defp of_module(nil), do: nil

  defp of_module(name) do
    with module when module != nil <- Struct.find(name, :__signature__),
         do: module.__signature__()
  end

  # --- writing ---

  # Beside the file and then in its place: one of the two is there whenever it is read.
  defp rewrite(file) do
    file = close(file)
    beside = file.path <> ".new"

    configuration =
      if file.configuration == %{}, do: [], else: [%{"configure" => file.configuration}]

    records = configuration ++ Map.values(file.programs)
    bytes = [@heading | Enum.map(records, &frame/1)]

    with {:ok, io} <- :file.open(beside, [:write, :raw, :binary]),
         :ok <- :file.change_mode(beside, @mode),
         :ok <- :file.write(io, bytes),
         :ok <- :file.sync(io),
         :ok <- :file.close(io),
         :ok <- :file.rename(beside, file.path),
         :ok <- sync_folder(Path.dirname(file.path)),
         {:ok, io} <- :file.open(file.path, [:append, :raw, :binary]) do
      {:ok, %{file | io: io, records: length(records)}}
    else
      {:error, reason} -> {:error, failed(file.path, "written", reason)}
    end
  end

  defp sync_folder(folder) do
    with {:ok, io} <- :file.open(folder, [:read, :raw, :directory]) do
      # Where a file system cannot, the name is on the disk when it likes.
      _may_fail = :file.sync(io)
      :file.close(io)
    end
  end

  defp frame(record) do
    # Everything in it has been on the wire.
    {:ok, payload} = Codec.encode(record)
    size = byte_size(payload)
    [<<size::32, size_check(size)::32, :erlang.crc32(payload)::32>>, payload]
  end

  defp size_check(size), do: :erlang.crc32(<<size::32>>)
end
