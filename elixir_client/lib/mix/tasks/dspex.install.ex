defmodule Mix.Tasks.Dspex.Install do
  @shortdoc "Makes a Python environment with the bridge for this application"

  @moduledoc """
  Makes a virtual environment with the bridge in it, by `uv` where that is installed, else by Python's
  own `venv` and `pip`, and has the bridge start in it once.

      mix dspex.install                            # .venv, with the bridge of this client
      mix dspex.install --source dspex-0.1.0-py3-none-any.whl
      mix dspex.install --extras optimize,otel
      mix dspex.install --path /opt/my_app/python --python python3.12

  Of a checkout it takes the versions that this was tested with (its `requirements.lock`). An environment
  that is there already is brought up to date. It holds its own path, so it is made where
  it is used: not in `priv`, which a release would copy. Options:

    * `--path` - where it is made; `.venv` unless you say otherwise.
    * `--source` - what pip installs: a requirement, a wheel or a folder. Unless you say otherwise, it
      is the checkout of DSPex that this client is in, and outside of one the client's own version of
      `dspex` from PyPI.
    * `--extras` - the optional parts of it, with a comma between: `optimize` (what optimizers need),
      unless you say otherwise, `data`, `otel`, `server`…; `--extras ""` for none.
    * `--python` - the interpreter, from 3.11; `python3` unless you say otherwise.
    * `--no-uv` - pip also where there is uv.

  It then says what to give an instance as `command:`.
  """

  use Mix.Task

  alias DSPex.Python.Environment

  @switches [path: :string, source: :string, extras: :string, python: :string, uv: :boolean]

  # An application that tries out the guide comes to `DSPex.optimize/3`.
  @extras ["optimize"]

  @impl true
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: @switches)

    if rest != [],
      do: Mix.raise("mix dspex.install takes no #{hd(rest)}; see mix help dspex.install")

    path = Path.expand(options[:path] || ".venv")

    options =
      options
      |> Keyword.put_new_lazy(:source, &source/0)
      |> Keyword.update(:extras, @extras, &String.split(&1, ",", trim: true))

    with :ok <- Environment.install(path, options, &run_command/2),
         {:ok, version} <- Environment.version(path) do
      executable = Path.relative_to_cwd(Environment.executable(path))

      Mix.shell().info("""
      The bridge #{version} is in #{path}. Give the instance

          command: [#{inspect(executable)}, "bridge"]

      (a relative path is looked up from where the application is started), or set

          export DSPEX_BRIDGE='"#{Environment.executable(path)}" bridge'

      `mix dspex.doctor -- #{executable} bridge` looks whether all is well.\
      """)
    else
      {:error, message} -> Mix.raise(message)
    end
  end

  # A client of one version talks to a bridge of the same.
  defp source do
    client = Mix.Project.deps_paths()[:dspex] || File.cwd!()
    checkout = Path.dirname(client)

    if File.dir?(Path.join(checkout, "bridge/dspex_bridge")),
      do: checkout,
      else: "dspex~=#{Application.spec(:dspex, :vsn)}"
  end

  defp run_command(executable, arguments) do
    Mix.shell().info("#{executable} #{Enum.join(arguments, " ")}")

    {_output, status} =
      System.cmd(executable, arguments, into: IO.stream(), stderr_to_stdout: true)

    status
  end
end
