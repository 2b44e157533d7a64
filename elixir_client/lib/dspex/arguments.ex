defmodule DSPex.Arguments do
  @moduledoc false
  # What the functions of `DSPex` take, checked where it comes in, and what they answer where the
  # bridge's answer makes no sense.

  alias DSPex.{Config, Error, Options, Program, Signature}

  @type failure :: {:error, Error.t()}

  @doc "Options held to a schema."
  @spec check(term(), Options.schema()) :: {:ok, keyword()} | failure()
  def check(options, schema) do
    with {:error, message} <- Options.validate(options, schema), do: invalid(message)
  end

  @doc "The id of a program: of its handle, itself, or of a module."
  @spec id(term()) :: {:ok, String.t()} | failure()
  def id(%Program{id: id}), do: {:ok, id}
  def id(id) when is_binary(id) and id != "", do: {:ok, id}

  def id(module) do
    case Program.definition(module) do
      nil -> no_program(module)
      definition -> {:ok, definition.program}
    end
  end

  @spec no_program(term()) :: failure()
  def no_program(other) do
    invalid(
      "a program is a %DSPex.Program{}, its id, or a module that uses DSPex.Program, not " <>
        Options.shown(other)
    )
  end

  @doc "Values by name: a map, a keyword list, or a struct of a signature."
  @spec map(term(), String.t()) :: {:ok, map()} | failure()
  def map(map, _what) when is_map(map) and not is_struct(map), do: {:ok, map}

  def map(%module{} = struct, what) do
    if Signature.Struct.struct?(module),
      do: {:ok, Map.from_struct(struct)},
      else: invalid("#{what}: expected a map or a keyword list")
  end

  def map(other, what) do
    if Keyword.keyword?(other) and other != [],
      do: {:ok, Map.new(other)},
      else: invalid("#{what}: expected a map or a keyword list")
  end

  @doc "Names as the wire has them."
  @spec names(list(), String.t()) :: {:ok, [String.t()]} | failure()
  def names(names, what) do
    if Enum.all?(names, &((is_atom(&1) and &1 != nil) or is_binary(&1))),
      do: {:ok, Enum.map(names, &to_string/1)},
      else: invalid("#{what}: expected a list of names, atoms or strings")
  end

  @doc """
  Examples and demonstrations, `%{inputs: %{...}, outputs: %{...}}` with atom or string keys, as the
  codec writes them. Without a signature their values stay as they are.
  """
  @spec examples(term(), Signature.t() | nil, String.t()) :: {:ok, [map()]} | failure()
  def examples(examples, signature, what) when is_list(examples) do
    examples
    |> Enum.with_index()
    |> Enum.reduce_while({:ok, []}, fn {example, at}, {:ok, done} ->
      case example(example, signature) do
        {:ok, example} -> {:cont, {:ok, [example | done]}}
        :error -> {:halt, invalid("#{what}[#{at}]: expected %{inputs: %{...}, outputs: %{...}}")}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, Enum.reverse(done)}
      error -> error
    end
  end

  def examples(_other, _signature, what),
    do: invalid("#{what}: expected a list of %{inputs: %{...}, outputs: %{...}}")

  defp example(example, signature) when is_map(example) and map_size(example) == 2 do
    with %{inputs: inputs, outputs: outputs} <- named(example),
         {:ok, inputs} <- map(inputs, "inputs"),
         {:ok, outputs} <- map(outputs, "outputs") do
      {:ok,
       %{inputs: dump(signature, :inputs, inputs), outputs: dump(signature, :outputs, outputs)}}
    else
      _other -> :error
    end
  end

  defp example(_other, _signature), do: :error

  defp named(%{"inputs" => inputs, "outputs" => outputs}), do: %{inputs: inputs, outputs: outputs}
  defp named(example), do: example

  defp dump(nil, _side, values), do: values
  defp dump(signature, side, values), do: Signature.dump(Map.fetch!(signature, side), values)

  @doc "The name of an LM, or the options of one; a check of `DSPex.Options`."
  @spec lm_or_name(term()) :: {:ok, String.t() | map()} | {:error, String.t()}
  def lm_or_name(name) when is_atom(name) and name not in [nil, true, false],
    do: {:ok, Atom.to_string(name)}

  def lm_or_name(name) when is_binary(name) and name != "", do: {:ok, name}
  def lm_or_name(options), do: Config.lm(options)

  @doc "A function of one argument; a check of `DSPex.Options`."
  @spec listener(term()) :: {:ok, (term() -> term())} | {:error, String.t()}
  def listener(fun) when is_function(fun, 1), do: {:ok, fun}
  def listener(_other), do: {:error, "expected a function of one argument"}

  @spec invalid(String.t()) :: failure()
  def invalid(message), do: {:error, Error.new(:invalid_params, message)}

  @doc "The bridge answered with what is no answer to this method."
  @spec unexpected(String.t(), term()) :: failure()
  def unexpected(method, result) do
    shown = inspect(result, limit: 5, printable_limit: 80)
    {:error, Error.new(:internal_error, "the bridge answered #{method} with #{shown}")}
  end

  @doc "A name for a program: what is in the journal has to have the same one in every Python."
  @spec make_id() :: String.t()
  def make_id, do: "program-" <> Base.encode16(:rand.bytes(8), case: :lower)
end
