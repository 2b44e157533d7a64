defmodule DSPex.Test.JournalCase do
  @moduledoc false
  # Journals in a file, without Python: `path` is that of one that is not there yet.
  use ExUnit.CaseTemplate

  alias DSPex.Journal
  alias DSPex.Protocol.Message
  alias DSPex.Test.Folder

  # Every change waits for the disk, and these tests make thousands: in memory where that can be had.
  @root Enum.find(["/dev/shm", System.tmp_dir!()], &File.dir?/1)

  using do
    quote do
      import DSPex.Test.JournalCase

      @moduletag :capture_log
    end
  end

  setup do
    # The journal makes its own folder.
    %{path: Path.join([Folder.make(@root), "folder", "journal"])}
  end

  @doc "A node that starts, with what the application says."
  @spec start(Path.t(), map()) :: {atom(), pid()} | {:error, term()}
  def start(path, configuration \\ %{}) do
    name = Module.concat(__MODULE__, "J#{System.unique_integer([:positive])}")
    options = [name: name, configuration: configuration, journal: {:file, path}]
    with {:ok, pid} <- start_supervised({Journal, options}, id: name), do: {name, pid}
  end

  @doc "Ends it, with its test."
  @spec stop(atom()) :: :ok
  def stop(name), do: :ok = stop_supervised(name)

  @doc "Records a program; its body."
  @spec put(atom(), String.t(), module() | nil, atom()) :: iodata()
  def put(name, id, signature \\ nil, kind \\ :put) do
    {:ok, body} = Message.body("create", %{program: id, replace: true})

    {:ok, _before, _version} = Journal.record(name, {kind, id, fn -> body end, signature, []})
    body
  end
end
