defmodule DSPex.Integration.GuideTest do
  # A new application, made by the README's guide to the letter, with all that pip installs; then what
  # else one does with it. This needs PyPI, or what uv has in its cache.
  use ExUnit.Case, async: true

  alias DSPex.Test.{Bridge, Folder, Peer, Readme}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 300_000

  @checkout Path.expand("../../..", __DIR__)

  # What the README promises.
  @guide_bound_ms 300_000

  # Of a release, on a machine that is busy.
  @start_bound_ms 60_000

  @email ~S(%{email: "The machine leaks again!"})

  setup_all do
    folder = Folder.make()
    # A checkout beside the new application.
    File.ln_s!(@checkout, Path.join(folder, "dspex"))
    app = %{folder: Path.join(folder, "my_app"), env: environment(folder)}

    began = System.monotonic_time(:millisecond)
    guide = Task.async(fn -> walk(folder, app) end)
    printed = Task.await(guide, @guide_bound_ms)
    took = System.monotonic_time(:millisecond) - began
    IO.puts(:stderr, "\nthe guide, from `mix new` to the first prediction: #{div(took, 1000)} s")
    {:ok, app: app, printed: printed}
  end

  # Nothing of this test's own settings, and uv.
  defp environment(folder) do
    path = System.fetch_env!("PATH")

    path =
      if System.find_executable("uv") do
        path
      else
        tools = Path.join(folder, "tools")
        run!(%{folder: folder, env: []}, Peer.python(), ["-m", "venv", tools])
        run!(%{folder: folder, env: []}, Path.join(tools, "bin/pip"), ~w(install -q uv))
        File.mkdir_p!(Path.join(folder, "bin"))
        File.ln_s!(Path.join(tools, "bin/uv"), Path.join(folder, "bin/uv"))
        Path.join(folder, "bin") <> ":" <> path
      end

    [{"PATH", path}, {"LC_ALL", "C.UTF-8"}] ++
      for(name <- ~w(DSPEX_BRIDGE PYTHONPATH MIX_ENV MIX_BUILD_PATH), do: {name, nil})
  end

  # As a reader types it: each block where it belongs.
  defp walk(folder, app) do
    [
      {"sh", new},
      {"elixir", dependency},
      {"sh", install},
      {"elixir", formatter},
      {"elixir", application},
      {"elixir", program},
      {"elixir", first_prediction}
    ] = Readme.blocks(Readme.guide())

    run!(%{app | folder: folder}, "sh", ["-ec", new])
    depend(app, dependency)
    assert run!(app, "sh", ["-ec", install]) =~ "uv pip install"

    for code <- [formatter, application, program], do: write(app, code)

    File.write!(Path.join(app.folder, "typed"), first_prediction)
    run!(app, "sh", ["-c", "iex --dot-iex /dev/null -S mix <typed"])
  end

  # The first line says where it belongs.
  defp write(app, code) do
    ["# " <> path, _code] = String.split(code, "\n", parts: 2)
    path = Path.join(app.folder, path)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, code)
  end

  defp depend(app, block) do
    ["# " <> path, dependency] = String.split(block, "\n", parts: 2)
    path = Path.join(app.folder, path)
    text = File.read!(path)
    deps = "  defp deps do\n    [\n"
    assert text =~ deps
    File.write!(path, String.replace(text, deps, deps <> "      " <> dependency))
  end

  defp run(app, executable, arguments, env \\ []) do
    env = Enum.uniq_by(env ++ app.env, &elem(&1, 0))
    System.cmd(executable, arguments, cd: app.folder, env: env, stderr_to_stdout: true)
  end

  defp run!(app, executable, arguments, env \\ []) do
    {printed, status} = run(app, executable, arguments, env)
    assert status == 0, "#{executable} #{Enum.join(arguments, " ")}:\n#{printed}"
    printed
  end

  test "leads to a prediction, without a warning, within five minutes", %{printed: printed} do
    assert printed =~ ~r/iex\(2\)> :(billing|defect|question)\n/
    refute printed =~ "warning"
  end

  test "has code that is formatted, and an environment that is not for git", %{app: app} do
    run!(app, "mix", ~w(format --check-formatted))
    assert File.read!(Path.join(app.folder, ".gitignore")) =~ ~r{^/\.venv/$}m
  end

  test "is followed by the application's own tests, on the mock", %{app: app} do
    tested = %{app | folder: app.folder <> "_tested"}
    File.cp_r!(app.folder, tested.folder)

    [{"elixir", child}, {"elixir", config}, {"elixir", for_tests}, {"elixir", test}] =
      Readme.blocks("In the tests of an application")

    ["# in the application's children", child] = String.split(child, "\n", parts: 2)
    path = Path.join(tested.folder, "lib/my_app/application.ex")

    [start, _child, rest] =
      String.split(File.read!(path), ~r/\{DSPex, .*\}(?=\n)/, include_captures: true)

    File.write!(path, start <> String.trim(child) <> rest)
    for code <- [config, for_tests, test], do: write(tested, code)

    assert run!(tested, "mix", ["test", "--warnings-as-errors"]) =~ "0 failures"
    code = "{:ok, prediction} = MyApp.Desk.predict(#{@email}); IO.puts(prediction.lm)"
    assert run!(tested, "mix", ["run", "-e", code]) =~ ~r/^main$/m
  end

  test "makes an environment in which the doctor finds nothing wrong", %{app: app} do
    printed = run!(app, "mix", ~w(dspex.doctor -- .venv/bin/dspex bridge))
    assert printed =~ "ok     DSPy runs a program"
    refute printed =~ "WRONG"
  end

  test "makes an environment in which the optimizers find what they need", %{app: app} do
    code = """
    examples = [%{inputs: #{@email}, outputs: %{category: :defect}}]
    {:ok, found} = DSPex.optimize(MyApp.Desk, examples, optimizer: :labeled_few_shot,
      metric: {:exact_match, :category})
    IO.puts("score \#{found.score}")
    """

    assert run!(app, "mix", ["run", "-e", code]) =~ ~r/^score [01]\.0$/m
  end

  test "may be followed without uv, by venv and pip", %{app: app} do
    # DSPy and the rest are many, and pip is slow: they are those of this test's own Python.
    libraries = "import sysconfig; print(sysconfig.get_path('purelib'), end='')"
    libraries = run!(app, Peer.python(), ["-c", libraries])
    build = ["-m", "hatchling", "build", "-t", "wheel", "-d", app.folder]
    run!(%{app | folder: @checkout}, Peer.python(), build)
    [wheel] = Path.wildcard(Path.join(app.folder, "*.whl"))

    install = ["dspex.install", "--no-uv", "--path", "by_pip", "--python", Peer.python()]
    printed = run!(app, "mix", install ++ ["--source", wheel], [{"PIP_NO_DEPS", "1"}])
    assert printed =~ "-m venv"
    assert printed =~ "-m pip install --upgrade #{wheel}"
    assert printed =~ ~s(command: ["by_pip/bin/dspex", "bridge"])

    doctor = ~w(dspex.doctor -- by_pip/bin/dspex bridge)
    assert run!(app, "mix", doctor, [{"PYTHONPATH", libraries}]) =~ "ok     DSPy runs a program"

    # Without a network.
    offline = [{"PIP_NO_INDEX", "1"}, {"PIP_FIND_LINKS", ""}]
    {printed, status} = run(app, "mix", install ++ ["--source", "dspex==0.0.0"], offline)
    assert status == 1
    assert printed =~ "No matching distribution found for dspex"

    assert printed =~
             "ended with status 1, for the reason above. Without a network, --source takes"
  end

  test "leads to a release that starts, predicts, and leaves no Python when it stops", %{app: app} do
    run!(app, "mix", ["release"])
    executable = Path.join(app.folder, "_build/dev/rel/my_app/bin/my_app")
    # A node of its own, whatever else runs here.
    node = "my_app_#{System.unique_integer([:positive])}_#{System.pid()}"
    app = %{app | env: [{"RELEASE_NODE", node} | app.env]}

    started =
      Port.open({:spawn_executable, executable}, [
        :exit_status,
        :binary,
        :stderr_to_stdout,
        args: ["start"],
        cd: app.folder,
        env: for({name, value} <- app.env, do: {to_charlist(name), charlist(value)})
      ])

    code = """
    {:ok, prediction} = MyApp.Desk.predict(#{@email})
    {:ok, [%{os_pid: python}]} = DSPex.workers(MyApp.DSPex)
    IO.puts("category \#{prediction[:category]}, python \#{python}, mix \#{Code.ensure_loaded?(Mix)}")
    """

    printed =
      Peer.eventually(
        fn ->
          with {printed, 0} <- run(app, executable, ["rpc", code]), do: printed, else: (_ -> nil)
        end,
        System.monotonic_time(:millisecond) + @start_bound_ms
      )

    assert [_all, python] =
             Regex.run(~r/category (?:billing|defect|question), python (\d+), mix false/, printed)

    python = String.to_integer(python)
    assert Bridge.alive?(python)
    run!(app, executable, ["stop"])
    assert_receive {^started, {:exit_status, 0}}, @start_bound_ms
    assert Peer.eventually(fn -> not Bridge.alive?(python) end)
  end

  defp charlist(nil), do: false
  defp charlist(value), do: to_charlist(value)
end
