defmodule DSPex.TasksTest do
  # The mix tasks, without Python. Not async: they work in the current folder.
  use ExUnit.Case, async: false

  alias DSPex.Python.Environment
  alias DSPex.Test.Folder
  alias Mix.Tasks.Dspex.Gen

  setup do
    folder = Folder.make()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(Mix.Shell.IO) end)
    %{folder: folder}
  end

  describe "mix dspex.gen.signature" do
    test "writes a module that compiles and is the signature", %{folder: folder} do
      File.cd!(folder, fn ->
        Gen.Signature.run(["GenTest.Triage", "subject, body: str -> kind, urgency: probability"])
        assert_received {:mix_shell, :info, ["wrote lib/gen_test/triage.ex"]}
        modules = for {module, _code} <- Code.compile_file("lib/gen_test/triage.ex"), do: module
        signature = Enum.find(modules, &function_exported?(&1, :__signature__, 0)).__signature__()

        assert to_string(signature) ==
                 "subject: str, body: str -> kind: str, urgency: probability"
      end)
    end

    test "touches no file that is there, unless it is forced", %{folder: folder} do
      File.cd!(folder, fn ->
        Gen.Signature.run(["GenTest.Twice", "a -> b"])
        again = ["GenTest.Twice", "a -> c"]
        assert_raise Mix.Error, ~r/is there already; --force/, fn -> Gen.Signature.run(again) end
        assert File.read!("lib/gen_test/twice.ex") =~ "a -> b"
        Gen.Signature.run(["--force" | again])
        assert File.read!("lib/gen_test/twice.ex") =~ "a -> c"
      end)
    end

    test "says what is wrong and writes nothing", %{folder: folder} do
      File.cd!(folder, fn ->
        for {arguments, message} <- [
              {["triage", "a -> b"], ~r/"triage" is no name of a module/},
              {["Triage", "a -> b: strin"], ~r/strin/},
              {["Triage"], ~r/MODULE/}
            ] do
          assert_raise Mix.Error, message, fn -> Gen.Signature.run(arguments) end
        end

        assert File.ls!(".") == []
      end)
    end
  end

  describe "mix dspex.doctor" do
    setup do
      set = System.get_env("DSPEX_BRIDGE")
      System.delete_env("DSPEX_BRIDGE")
      on_exit(fn -> if set, do: System.put_env("DSPEX_BRIDGE", set) end)
    end

    @tag :capture_log
    test "looks at the environment of this folder first, and says why it does not start",
         context do
      path = Path.join(context.folder, ".venv/bin")
      File.mkdir_p!(path)
      executable = script(path, "dspex", "dspex: error: it is broken", 2)

      File.cd!(context.folder, fn ->
        assert catch_exit(Mix.Tasks.Dspex.Doctor.run([])) == {:shutdown, 1}
        assert_received {:mix_shell, :info, ["ok     the bridge's command is " <> command]}
        assert String.ends_with?(command, executable <> " bridge")
        assert_received {:mix_shell, :info, ["WRONG  " <> why]}
        assert why =~ "it is broken"
      end)
    end
  end

  # What runs, and what comes of it; the real ones are in test/integration/install_test.exs.
  describe "mix dspex.install" do
    defp recorded(status) do
      test = self()

      fn executable, arguments ->
        send(test, {:run, Path.basename(executable), arguments})
        status
      end
    end

    # An executable that prints something and ends.
    defp script(folder, name, text, status \\ 0) do
      path = Path.join(folder, name)
      File.write!(path, "#!/bin/sh\necho '#{text}'\nexit #{status}\n")
      File.chmod!(path, 0o755)
      path
    end

    test "makes an environment by venv and pip where there is no uv", %{folder: folder} do
      options = [source: "dspex", uv: false, python: script(folder, "python3", "3 11")]
      assert Environment.install("/an/environment", options, recorded(0)) == :ok
      assert_received {:run, "python3", ["-m", "venv", "/an/environment"]}
      assert_received {:run, "python", ["-m", "pip", "install", "--upgrade", "dspex"]}
    end

    test "installs of a checkout the versions that it was tried with", %{folder: folder} do
      checkout = Path.join(folder, "checkout")
      File.mkdir_p!(checkout)

      File.write!(Path.join(checkout, "requirements.lock"), """
      anyio==4.9.0 \\
          --hash=sha256:0123
          # via dspy
      numpy==2.4.6 ; python_full_version < '3.12' \\
          --hash=sha256:4567
      """)

      environment = Path.join(folder, "environment")
      options = [source: checkout, uv: false, python: script(folder, "python3", "3 11")]
      assert Environment.install(environment, options, recorded(0)) == :ok

      assert_received {:run, "python",
                       ["-m", "pip", "install", "--upgrade", "--constraint", file, ^checkout]}

      assert File.read!(file) == "anyio==4.9.0\nnumpy==2.4.6 ; python_full_version < '3.12'\n"
    end

    test "installs the extras that are asked for, of whatever the source is", %{folder: folder} do
      python = script(folder, "python3", "3 11")
      wheel = script(folder, "dspex-0.1.0-py3-none-any.whl", "")

      for {source, extras, requirement} <- [
            {"dspex~=0.1.0", ["optimize", "otel"], "dspex[optimize,otel]~=0.1.0"},
            {"dspex~=0.1.0", [], "dspex~=0.1.0"},
            {"dspex[data]", ["optimize"], "dspex[data]"},
            {folder, ["optimize"], folder <> "[optimize]"},
            {wheel, ["optimize"], wheel <> "[optimize]"},
            {"git+https://host/x.git", ["optimize"], "dspex[optimize] @ git+https://host/x.git"}
          ] do
        options = [source: source, extras: extras, uv: false, python: python]
        assert Environment.install("/an/environment", options, recorded(0)) == :ok
        assert_received {:run, "python", ["-m", "pip", "install", "--upgrade", ^requirement]}
      end
    end

    test "says which step failed and what may be the reason, and stops there", context do
      python = script(context.folder, "python3", "3 14")
      options = [source: "dspex", uv: false, python: python]
      assert {:error, message} = Environment.install("/an/environment", options, recorded(3))
      assert message =~ "python3 -m venv /an/environment ended with status 3"
      assert message =~ "python3-venv"
      assert_received {:run, _python, _arguments}
      refute_received {:run, _pip, _arguments}

      broken = fn executable, _arguments -> if executable =~ "environment", do: 1, else: 0 end
      assert {:error, message} = Environment.install("/an/environment", options, broken)
      assert message =~ "pip install --upgrade dspex ended with status 1"
      assert message =~ "Without a network, --source takes a checkout"
    end

    test "says that there is no such interpreter, or that it is too old or broken", context do
      for {python, text} <- [
            {"no-such-python", "there is no no-such-python: install Python 3.11 or newer"},
            {script(context.folder, "old", "3 10"), "old is Python 3.10: install Python 3.11"},
            {script(context.folder, "bad", "no libc", 1), "bad does not run (status 1): no libc"},
            {script(context.folder, "odd", "hello"), "odd does not say which Python it is: hello"}
          ] do
        options = [source: "dspex", python: python]
        assert {:error, message} = Environment.install("/an/environment", options, recorded(0))
        assert message =~ text
      end

      refute_received {:run, _executable, _arguments}
    end

    test "takes an interpreter that says something else, too", %{folder: folder} do
      for {name, said} <- [{"a", "pyenv: 1 warning\n3 11"}, {"b", "3 11\nit is late: 1 2 3"}] do
        options = [source: "dspex", uv: false, python: script(folder, name, said)]
        assert Environment.install("/an/environment", options, recorded(0)) == :ok
      end
    end

    test "says that the bridge does not run" do
      assert {:error, message} = Environment.version("/no/such/environment")
      assert message =~ "/no/such/environment/bin/dspex does not run"
    end
  end
end
