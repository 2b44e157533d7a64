defmodule DSPex.Test.Folder do
  @moduledoc false
  # A folder of one test's own, which goes with it; another run of the tests has others.

  @doc "Its path; `root` where the system's folder for such is not good enough."
  def make(root \\ System.tmp_dir!()) do
    path = Path.join(root, "dspex-test-#{System.pid()}-#{System.unique_integer([:positive])}")
    File.mkdir_p!(path)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(path) end)
    path
  end
end
