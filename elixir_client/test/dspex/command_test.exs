defmodule DSPex.CommandTest do
  # Not async: it changes the environment of the whole node.
  use ExUnit.Case

  alias DSPex.{Command, Error}

  setup do
    before = {System.get_env("DSPEX_BRIDGE"), System.get_env("PATH")}

    on_exit(fn ->
      {bridge, path} = before

      if bridge,
        do: System.put_env("DSPEX_BRIDGE", bridge),
        else: System.delete_env("DSPEX_BRIDGE")

      System.put_env("PATH", path)
    end)
  end

  test "the option comes before the environment, and that before the path" do
    sh = System.find_executable("sh")
    System.put_env("DSPEX_BRIDGE", "sh -c 'echo \"a b\"'")
    assert Command.find(["sh", "x"]) == {:ok, {sh, ["x"]}}
    assert Command.find([sh]) == {:ok, {sh, []}}
    assert Command.find(nil) == {:ok, {sh, ["-c", "echo \"a b\""]}}
  end

  test "without an option or variable it is `dspex bridge` on the path" do
    System.delete_env("DSPEX_BRIDGE")
    directory = DSPex.Test.Folder.make()
    executable = Path.join(directory, "dspex")
    File.write!(executable, "")
    File.chmod!(executable, 0o755)
    System.put_env("PATH", directory)
    assert Command.find(nil) == {:ok, {executable, ["bridge"]}}
  end

  test "the environment that was made here comes before the path" do
    System.delete_env("DSPEX_BRIDGE")
    here = DSPex.Test.Folder.make()
    executable = Path.join(here, ".venv/bin/dspex")
    File.mkdir_p!(Path.dirname(executable))
    File.write!(executable, "")
    File.chmod!(executable, 0o755)

    File.cd!(here, fn ->
      assert {:ok, {found, ["bridge"]}} = Command.find(nil)
      assert File.stat!(found).inode == File.stat!(executable).inode
      assert Path.type(found) == :absolute
    end)
  end

  test "what is nowhere is an error that says what to install or set" do
    System.delete_env("DSPEX_BRIDGE")
    System.put_env("PATH", "/nowhere")
    assert {:error, %Error{code: :start_failed, message: message}} = Command.find(nil)
    assert message =~ ~s(there is no "dspex" on PATH)
    assert message =~ "mix dspex.install"
    assert message =~ "DSPEX_BRIDGE="

    System.put_env("DSPEX_BRIDGE", "/no/such bridge")
    assert {:error, %Error{message: message}} = Command.find(nil)

    assert message =~
             "the environment variable DSPEX_BRIDGE names \"/no/such\", which is no executable file"

    assert message =~ "mix dspex.install"
  end
end
