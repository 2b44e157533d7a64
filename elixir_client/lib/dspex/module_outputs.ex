defmodule DSPex.ModuleOutputs do
  @moduledoc false
  # What the modules of DSPy answer beside the outputs of a signature: the table of modules in the
  # protocol's specification.

  @by_module %{
    "chain_of_thought" => [reasoning: :string],
    "react" => [reasoning: :string, trajectory: :map],
    "react_v2" => [termination_reason: :string, history: :list],
    "multi_chain_comparison" => [rationale: :string],
    "program_of_thought" => [reasoning: :string],
    "code_act" => [reasoning: :string, trajectory: :map],
    "rlm" => [final_reasoning: :string, trajectory: :list]
  }

  # Around another module, their option `module`: what that makes, they make.
  @around ~w(best_of_n refine knn)

  @names for {_module, outputs} <- @by_module,
             {name, _kind} <- outputs,
             into: %{},
             do: {Atom.to_string(name), name}

  @doc "The outputs of a module, each with what it is."
  @spec of(String.t(), map()) :: keyword(:string | :map | :list)
  def of(module, options) when module in @around,
    do: of(to_string(options["module"] || "predict"), %{})

  def of(module, _options), do: Map.get(@by_module, module, [])

  @doc "The names of all of them: the atoms by their texts."
  @spec names() :: %{String.t() => atom()}
  def names, do: @names

  @doc "A list for the documentation."
  @spec docs() :: String.t()
  def docs do
    @by_module
    |> Enum.sort()
    |> Enum.map_join("\n", fn {module, outputs} ->
      "  * `:#{module}` - " <>
        Enum.map_join(outputs, ", ", fn {name, kind} -> "`:#{name}`, a #{kind}" end)
    end)
  end
end
