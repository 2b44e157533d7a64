defmodule DSPex.Test.Serve do
  @moduledoc false
  # A real `dspex serve`, on a free port and in a folder of its own, which ends with the process that
  # started it.

  import ExUnit.Assertions

  # Its database is made, and Python starts, on a machine under load.
  @patience_ms 60_000

  @serve "import sys, threading, os, signal; " <>
           "threading.Thread(target=lambda: (sys.stdin.buffer.read(), " <>
           "os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start(); " <>
           "from dspex_bridge.cli import main; main()"

  @doc "Starts one; gives its URL. Its only LM is the embedded one."
  def start(arguments \\ []) do
    folder = Path.join(System.tmp_dir!(), "dspex-serve-#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    [bridge | _args] = DSPex.Test.Bridge.command()
    python = bridge |> Path.dirname() |> Path.join("python")

    # Its standard input ends with the process that opened it, and it with that.
    port =
      Port.open({:spawn_executable, python}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        {:line, 10_000},
        args:
          ["-P", "-c", @serve, "serve", "--port", "0", "--data-dir", folder] ++
            ["--lm", "main=demo/knn", "--bridges", "1"] ++ arguments
      ])

    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(folder) end)
    url(port, [])
  end

  defp url(port, said) do
    receive do
      {^port, {:data, {:eol, "dspex: GraphQL at " <> rest}}} ->
        [url, _json] = String.split(rest, "/graphql", parts: 2)
        url

      {^port, {:data, {_whole, line}}} ->
        url(port, [line | said])

      {^port, {:exit_status, status}} ->
        flunk(
          "the server ended with status #{status}:\n#{said |> Enum.reverse() |> Enum.join("\n")}"
        )
    after
      @patience_ms -> flunk("the server did not start within #{@patience_ms} ms")
    end
  end
end
