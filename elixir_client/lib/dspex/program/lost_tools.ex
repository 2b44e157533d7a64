defmodule DSPex.Program.LostTools do
  @moduledoc false
  # The tools of a program that has come back from a journal's file without their functions. Those that
  # a module declares are taken from there when the program is first needed: while the instance starts,
  # what the module asks for them may not be there yet. Without the others the program is not run.

  alias DSPex.{Adapter, Error, Program, Tool}
  alias DSPex.Signature.Struct

  @doc "That a program has all of its tools, or which it has not."
  @spec restore(atom(), String.t()) :: :ok | {:error, Error.t()}
  def restore(server, id) do
    case Adapter.lost_tools(server, id) do
      none when none == %{} -> :ok
      lost -> restore(server, id, lost)
    end
  end

  defp restore(server, id, lost) do
    modules = for {_name, module} <- lost, module != nil, uniq: true, do: module
    tools = for module <- modules, tool <- declared(module), lost[tool.name] == module, do: tool

    case Map.keys(lost) -- names(tools) do
      [] -> Adapter.record(server, {:tools, id, tools})
      missing -> {:error, without(id, missing)}
    end
  end

  defp without(id, names) do
    text =
      "the program #{id} has come back from the journal without its tools #{Enum.join(names, ", ")}, " <>
        "which are functions and in no file: give them with DSPex.put_tools/3"

    Error.new(:not_found, text, data: %{"kind" => "tool", "program" => id, "names" => names})
  end

  @doc """
  Whether a module's program that lacks its tools had those that the module declares now. Tools that are
  there, or were given beside the module, are not held to that.
  """
  @spec as_declared?(atom(), Program.definition()) :: boolean()
  def as_declared?(server, %{program: id, signature: %{name: module}}) do
    case Adapter.lost_tools(server, id) do
      none when none == %{} ->
        true

      lost ->
        Adapter.tools(server, id) != [] or
          Enum.any?(lost, fn {_name, declared_by} -> declared_by != module end) or
          Enum.sort(names(declared(module))) == Map.keys(lost) |> Enum.sort()
    end
  end

  @spec declared(module_name :: String.t()) :: [Tool.t()]
  defp declared(name) do
    with module when module != nil <- Struct.find(name, :__program__),
         {:ok, tools} <- Program.tools(module.__program__()) do
      tools
    else
      _no_module_or_wrong -> []
    end
  end

  defp names(tools), do: Enum.map(tools, & &1.name)
end
