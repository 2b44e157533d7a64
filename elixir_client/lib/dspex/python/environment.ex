defmodule DSPex.Python.Environment do
  @moduledoc false
  # A virtual environment with the bridge in it.

  # As pyproject.toml has it (requires-python).
  @min_python {3, 11}
  @print_version "import sys; print(*sys.version_info[:2])"

  # What is mostly meant by what Python, pip and uv say then.
  @venv_hint "On Debian and its relatives, Python's venv is a package of its own: python3-venv"
  @package_hint "Without a network, --source takes a checkout, or a wheel where pip finds its " <>
                  "dependencies (PIP_FIND_LINKS, UV_FIND_LINKS)"

  @type run ::
          (executable :: String.t(), arguments :: [String.t()] -> status :: non_neg_integer())

  @doc "Makes or renews it; `run` runs a command and gives its status."
  @spec install(String.t(), keyword(), run()) :: :ok | {:error, String.t()}
  def install(path, options, run) do
    uv = if Keyword.get(options, :uv, true), do: System.find_executable("uv")

    source = Keyword.fetch!(options, :source)
    requirement = requirement(source, Keyword.get(options, :extras, []))

    with {:ok, python} <- python(options[:python] || "python3"),
         :ok <- make(uv, path, python, run) do
      what = ["install", "--upgrade"] ++ constraints(source, path) ++ [requirement]
      step(run, installer(uv, path), installing(uv, path, what))
    end
  end

  defp requirement(source, []), do: source

  defp requirement(source, extras) do
    extras = "[#{Enum.join(extras, ",")}]"

    cond do
      # They are said already.
      String.contains?(source, "[") -> source
      source =~ ~r{^[\w+.]+://} -> "dspex#{extras} @ #{source}"
      # A folder or a wheel, else a name and perhaps a version.
      String.contains?(source, "/") or File.exists?(source) -> source <> extras
      true -> String.replace(source, ~r/^[\w.-]+/, "\\0#{extras}")
    end
  end

  defp make(nil, path, python, run), do: step(run, python, ["-m", "venv", path], @venv_hint)

  defp make(uv, path, python, run),
    do: step(run, uv, ["venv", "--allow-existing", "--python", python, path])

  defp installer(nil, path), do: in_it(path, "python")
  defp installer(uv, _path), do: uv

  defp installing(nil, _path, what), do: ["-m", "pip" | what]

  defp installing(_uv, path, [install | what]),
    do: ["pip", install, "--python", in_it(path, "python") | what]

  # A checkout has the versions that it was tried with. They are taken without their hashes, which
  # pip would then want of the checkout, too.
  defp constraints(source, path) do
    lock = Path.join(source, "requirements.lock")

    if File.regular?(lock) do
      versions =
        for line <- File.stream!(lock),
            line =~ ~r/^[\w.-]+==/,
            do: String.trim_trailing(line, "\\\n")

      file = Path.join(path, "constraints.txt")
      File.mkdir_p!(path)
      File.write!(file, Enum.map(versions, &[String.trim(&1), "\n"]))
      ["--constraint", file]
    else
      []
    end
  end

  defp python(name) do
    case System.find_executable(name) do
      nil -> {:error, "there is no #{name}: #{advice()}"}
      path -> recent(path)
    end
  end

  defp recent(path) do
    case System.cmd(path, ["-c", @print_version], stderr_to_stdout: true) do
      {output, 0} ->
        old_or_not(path, version_in(output), output)

      {output, status} ->
        {:error, "#{path} does not run (status #{status}): #{String.trim(output)}"}
    end
  end

  # The interpreter, or what stands before it (pyenv, asdf), may have something else to say, in any order.
  defp version_in(output) do
    case Regex.run(~r/^(\d{1,3}) (\d{1,3})\r?$/m, output, capture: :all_but_first) do
      [major, minor] -> {String.to_integer(major), String.to_integer(minor)}
      nil -> nil
    end
  end

  defp old_or_not(path, nil, output),
    do: {:error, "#{path} does not say which Python it is: #{String.trim(output)}"}

  defp old_or_not(path, {major, minor}, _output) do
    if {major, minor} >= @min_python,
      do: {:ok, path},
      else: {:error, "#{path} is Python #{major}.#{minor}: #{advice()}"}
  end

  defp advice do
    {major, minor} = @min_python
    "install Python #{major}.#{minor} or newer, or say which one to take with --python"
  end

  defp step(run, executable, arguments, hint \\ @package_hint) do
    case run.(executable, arguments) do
      0 ->
        :ok

      status ->
        command = Enum.join([executable | arguments], " ")
        {:error, "#{command} ended with status #{status}, for the reason above. #{hint}"}
    end
  end

  @doc "The bridge's version, of the bridge itself."
  @spec version(String.t()) :: {:ok, String.t()} | {:error, String.t()}
  def version(path) do
    case System.cmd(executable(path), ["--version"], stderr_to_stdout: true) do
      {output, 0} -> {:ok, output |> String.split() |> List.last()}
      {output, _status} -> {:error, "#{executable(path)} does not run: #{String.trim(output)}"}
    end
  rescue
    error in ErlangError ->
      {:error, "#{executable(path)} does not run: #{Exception.message(error)}"}
  end

  @spec executable(String.t()) :: String.t()
  def executable(path), do: in_it(path, "dspex")

  defp in_it(path, name), do: Path.join([path, "bin", name])
end
