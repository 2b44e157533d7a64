defmodule DSPex.Program do
  @moduledoc """
  A program that `DSPex.create/3` or `DSPex.load/3` made.

    * `:id` - its name in the bridge; wherever a program is asked for, the id alone will do.
    * `:module` - what runs it, such as `"predict"`.
    * `:signature` - a `DSPex.Signature`.
    * `:revision` - 1, and more with every replacement under the same id in one Python.
    * `:input_schema`, `:output_schema` - JSON Schemas of its inputs and outputs.
  """

  @type t :: %__MODULE__{
          id: String.t(),
          module: String.t(),
          signature: DSPex.Signature.t(),
          revision: pos_integer(),
          input_schema: map(),
          output_schema: map()
        }

  @enforce_keys [:id, :module, :signature, :revision, :input_schema, :output_schema]
  defstruct @enforce_keys

  defimpl Inspect do
    def inspect(program, _opts),
      do: "#DSPex.Program<#{inspect(program.id)}, #{program.module}, #{program.signature}>"
  end
end
