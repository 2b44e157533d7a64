defmodule DSPex.Python.Environment do
  @moduledoc false
  # A virtual environment with the bridge in it.

  @type run ::
          (executable :: String.t(), arguments :: [String.t()] -> status :: non_neg_integer())

  @doc "Makes or renews it; `run` runs a command and gives its status."
  @spec install(String.t(), keyword(), run()) :: :ok | {:error, String.t()}
  def install(path, options, run) do
    uv = if Keyword.get(options, :uv, true), do: System.find_executable("uv")

    with {:ok, python} <- python(options[:python] || "python3"),
         do: install(uv, path, python, Keyword.fetch!(options, :source), run)
  end

  defp install(nil, path, python, source, run) do
    with :ok <- step(run, python, ["-m", "venv", path]),
         do: step(run, in_it(path, "python"), ["-m", "pip", "install", "--upgrade", source])
  end

  defp install(uv, path, python, source, run) do
    with :ok <- step(run, uv, ["venv", "--allow-existing", "--python", python, path]) do
      step(run, uv, ["pip", "install", "--python", in_it(path, "python"), "--upgrade", source])
    end
  end

  defp python(name) do
    case System.find_executable(name) do
      nil ->
        {:error, "there is no #{name}: install Python 3.11 or later, or say which with --python"}

      path ->
        {:ok, path}
    end
  end

  defp step(run, executable, arguments) do
    case run.(executable, arguments) do
      0 ->
        :ok

      status ->
        {:error, "#{Enum.join([executable | arguments], " ")} ended with status #{status}"}
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
