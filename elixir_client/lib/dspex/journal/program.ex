defmodule DSPex.Journal.Program do
  @moduledoc false
  # A program as the journal knows it: the request that makes it anew, in a function that nothing
  # shows, and what Elixir alone knows of it.
  #
  # `lost_tools` are those whose functions no file holds, by name, until they are there again; each
  # with the name of the module that declares it, `nil` where it was given at run time.

  alias DSPex.{Signature, Tool}
  alias DSPex.Protocol.Codec

  {:ok, load} = Codec.encode("load")
  @load load

  @enforce_keys [:body, :signature, :tools, :revision]
  defstruct @enforce_keys ++ [lost_tools: %{}]

  @type lost_tools :: %{optional(String.t()) => module_name :: String.t() | nil}

  @type t :: %__MODULE__{
          body: (... -> binary()),
          signature: Signature.t() | nil,
          tools: %{optional(String.t()) => Tool.t()},
          revision: pos_integer(),
          lost_tools: lost_tools()
        }

  @doc "The same program with these of its tools."
  @spec with_tools(t(), [Tool.t()]) :: t()
  def with_tools(program, tools) do
    tools = Map.new(tools, &{&1.name, &1})

    %{
      program
      | tools: Map.merge(program.tools, tools),
        lost_tools: Map.drop(program.lost_tools, Map.keys(tools))
    }
  end

  @doc "Whether these are its tools as the modules have them that declare them."
  @spec restored_by?(t(), [Tool.t()]) :: boolean()
  def restored_by?(program, tools) do
    of = tools_of(program)
    Enum.all?(tools, &(&1.module != nil and of[&1.name] == &1.module))
  end

  @doc "The names of its tools, and the modules that declare them, where such do."
  @spec tools_of(t()) :: lost_tools()
  def tools_of(program),
    do:
      Map.merge(program.lost_tools, Map.new(program.tools, fn {name, t} -> {name, t.module} end))

  @doc "Whether it is made of a state, as an optimized one is, and not of a definition."
  @spec of_state?(t()) :: boolean()
  def of_state?(program), do: String.starts_with?(program.body.(), @load)
end
