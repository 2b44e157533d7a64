defmodule Mix.Tasks.Dspex.Install do
  @shortdoc "Makes a Python environment with the bridge for this application"

  @moduledoc """
  Makes a virtual environment with the bridge in it, by `uv` where that is installed, else by Python's
  own `venv` and `pip`, and has the bridge start in it once.

      mix dspex.install                     # priv/python, from PyPI
      mix dspex.install --source ../dspex   # a checkout or a wheel
      mix dspex.install --path /opt/python --python python3.12

  An environment that is there already is brought up to date. Options:

    * `--path` - where it is made; `priv/python` of the application unless you say otherwise.
    * `--source` - what pip installs; `dspex` unless you say otherwise.
    * `--python` - the interpreter, from 3.11; `python3` unless you say otherwise.
    * `--no-uv` - pip also where there is uv.

  It then says what to give an instance as `command:`.
  """

  use Mix.Task

  alias DSPex.Python.Environment

  @switches [path: :string, source: :string, python: :string, uv: :boolean]

  @impl true
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: @switches)

    if rest != [],
      do: Mix.raise("mix dspex.install takes no #{hd(rest)}; see mix help dspex.install")

    path = Path.expand(options[:path] || "priv/python")
    options = Keyword.put_new(options, :source, "dspex")

    with :ok <- Environment.install(path, options, &run_command/2),
         {:ok, version} <- Environment.version(path) do
      Mix.shell().info("""
      The bridge #{version} is in #{path}. Give the instance

          command: [#{inspect(Environment.executable(path))}, "bridge"]

      or set DSPEX_BRIDGE="#{Environment.executable(path)} bridge".\
      """)
    else
      {:error, message} -> Mix.raise(message)
    end
  end

  defp run_command(executable, arguments) do
    Mix.shell().info("#{executable} #{Enum.join(arguments, " ")}")

    {_output, status} =
      System.cmd(executable, arguments, into: IO.stream(), stderr_to_stdout: true)

    status
  end
end
