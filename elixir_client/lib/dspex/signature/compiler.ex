defmodule DSPex.Signature.Compiler do
  @moduledoc false
  # What the macros of `DSPex.Signature` call while a module compiles. Fields are checked where they
  # are written, the whole at the end.

  alias DSPex.Signature
  alias DSPex.Signature.Field

  @doc "Adds the field of one line."
  def field!(module, side, name, type, options, env) do
    case Field.new(name, type, options) do
      {:ok, field} -> Module.put_attribute(module, :dspex_fields, {side, field, env})
      {:error, message} -> error!(env, "#{side} #{inspect(name)}: #{message}")
    end
  end

  @doc "Adds the fields of a string signature."
  def text!(module, text, env) do
    case Signature.parse(text) do
      {:ok, signature} ->
        for {side, fields} <- [input: signature.inputs, output: signature.outputs],
            field <- fields do
          # The text stands in the source: these atoms are as many as the programmer wrote.
          name = String.to_atom(field.name)
          Module.put_attribute(module, :dspex_fields, {side, %{field | name: name}, env})
        end

      {:error, error} ->
        error!(env, error.message)
    end
  end

  defmacro __before_compile__(env) do
    signature = env.module |> Module.get_attribute(:dspex_fields) |> Enum.reverse() |> build!(env)

    quote do
      @doc "The signature that this module defines."
      @spec __signature__() :: DSPex.Signature.t()
      def __signature__, do: unquote(Macro.escape(signature))

      @doc "The inputs, in order."
      @spec input_fields() :: [DSPex.Signature.Field.t()]
      def input_fields, do: __signature__().inputs

      @doc "The outputs, in order."
      @spec output_fields() :: [DSPex.Signature.Field.t()]
      def output_fields, do: __signature__().outputs
    end
  end

  defp build!(fields, env) do
    Enum.reduce(fields, %{}, fn {side, field, at}, seen ->
      case Map.fetch(seen, field.name) do
        {:ok, other} -> error!(at, twice(field.name, side, other))
        :error -> Map.put(seen, field.name, side)
      end
    end)

    sides = Enum.group_by(fields, &elem(&1, 0), &elem(&1, 1))

    for side <- [:input, :output], not is_map_key(sides, side) do
      error!(env, "a signature has at least one #{side}: #{side} :name, :string")
    end

    %Signature{
      name: inspect(env.module),
      instructions: instructions(env.module),
      inputs: sides.input,
      outputs: sides.output
    }
  end

  defp twice(name, side, side), do: "the #{side} #{inspect(name)} stands twice"

  defp twice(name, _side, _other),
    do: "#{inspect(name)} stands among the inputs and the outputs; names are distinct over both"

  defp instructions(module) do
    case Module.get_attribute(module, :moduledoc) do
      {_line, text} when is_binary(text) -> String.trim(text)
      _none -> nil
    end
  end

  defp error!(env, message) do
    raise CompileError, file: env.file, line: env.line, description: message
  end
end
