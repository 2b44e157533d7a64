defmodule DSPex.Program.Compiler do
  @moduledoc false
  # What the macros of `DSPex.Program` expand to, and call while a module compiles.

  alias DSPex.Options
  alias DSPex.Signature.{Compiler, Field, TypeCheck, Types}

  @own [:server, :program]
  @sides %{InputSchema: :input, OutputSchema: :output}

  @doc "Refuses unknown options where `use` has them written down."
  @spec check_options!(Macro.t(), Macro.Env.t()) :: :ok
  def check_options!(options, env) do
    known = @own ++ (DSPex.create_options() -- [:program, :replace, :timeout])

    with true <- Keyword.keyword?(options),
         {:error, message} <- Options.known(options, known) do
      error!(env, message)
    else
      _known_or_no_literal -> :ok
    end
  end

  @doc "The code of `defschema`."
  @spec schema(Macro.t(), Macro.t(), Macro.Env.t()) :: Macro.t()
  def schema({:__aliases__, _meta, [name]}, block, _env) when is_map_key(@sides, name) do
    quote do
      @dspex_side unquote(@sides[name])

      # What is imported here is gone after it.
      try do
        import DSPex.Program, only: [field: 2, field: 3]
        unquote(block)
      after
        :ok
      end
    end
  end

  def schema(other, _block, env) do
    error!(env, "a program has an InputSchema and an OutputSchema, no #{Macro.to_string(other)}")
  end

  @doc "The code of `field`."
  @spec field(Macro.t(), Macro.t(), Macro.t(), Macro.Env.t()) :: Macro.t()
  def field(name, type, options, env) do
    quote do
      DSPex.Program.Compiler.field!(
        __MODULE__,
        @dspex_side,
        unquote(name),
        unquote(type),
        unquote(options),
        unquote(Macro.escape(%{file: env.file, line: env.line}))
      )
    end
  end

  @doc false
  def field!(module, side, name, type, options, env) do
    with true <- Keyword.keyword?(options),
         {:error, message} <- Options.known(options, [:required | Field.options()]) do
      error!(env, "#{side} #{inspect(name)}: #{message}")
    end

    {required, options} =
      if Keyword.keyword?(options), do: Keyword.pop(options, :required), else: {nil, options}

    if required not in [nil, true, false] do
      error!(env, "#{side} #{inspect(name)}: option :required: expected true or false")
    end

    has_default? = Keyword.keyword?(options) and Keyword.has_key?(options, :default)

    if required == true and side == :input and has_default? do
      error!(env, "#{side} #{inspect(name)}: an input with a default is never required")
    end

    required? = if is_nil(required), do: side == :output or has_default?, else: required
    Compiler.field!(module, side, name, optional(type, required?), options, env)
  end

  defp optional(type, true), do: type

  # What is no type is refused with its own name.
  defp optional(type, false) do
    if TypeCheck.check(type) == :ok and not Types.allows_nil?(type),
      do: {:optional, type},
      else: type
  end

  defmacro __before_compile__(env) do
    env.module
    |> Compiler.signature!(env, &missing/1)
    |> Compiler.definition(env.module, {:InputSchema, :OutputSchema})
  end

  defp missing(:input), do: "a program has an input: defschema InputSchema do field ... end"
  defp missing(:output), do: "a program has an output: defschema OutputSchema do field ... end"

  defp error!(env, message), do: Compiler.error!(%{file: env.file, line: env.line}, message)
end
