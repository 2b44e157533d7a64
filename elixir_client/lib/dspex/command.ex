defmodule DSPex.Command do
  @moduledoc false
  # Where the bridge is: an option, else an environment variable, else the environment that
  # `mix dspex.install` made here, else the search path.

  alias DSPex.Error

  @variable "DSPEX_BRIDGE"
  @installed ".venv/bin/dspex"

  @doc "The executable's full path and its arguments."
  @spec find([String.t()] | nil) :: {:ok, {String.t(), [String.t()]}} | {:error, Error.t()}
  def find([executable | args]), do: locate(executable, args, "the option :command")

  def find(nil) do
    case System.get_env(@variable, "") |> OptionParser.split() do
      [executable | args] -> locate(executable, args, "the environment variable #{@variable}")
      [] -> locate(if(File.regular?(@installed), do: @installed, else: "dspex"), ["bridge"], nil)
    end
  end

  defp locate(executable, args, source) do
    # A path is looked up from here, a name in PATH.
    found =
      if String.contains?(executable, "/"),
        do: executable |> Path.expand() |> System.find_executable(),
        else: System.find_executable(executable)

    case found do
      nil -> {:error, Error.new(:start_failed, message(executable, source))}
      path -> {:ok, {path, args}}
    end
  end

  defp message(executable, nil) do
    "there is no #{inspect(executable)} on PATH, nor #{Path.expand(@installed)}, which " <>
      "`mix dspex.install` makes. Where it is elsewhere, say so: " <>
      "command: [\"/opt/my_app/bin/dspex\", \"bridge\"], or " <>
      "#{@variable}=\"/opt/my_app/bin/dspex bridge\""
  end

  defp message(executable, source) do
    "#{source} names #{inspect(executable)}, which is no executable file; `mix dspex.install` makes " <>
      "a virtual environment with the bridge"
  end
end
