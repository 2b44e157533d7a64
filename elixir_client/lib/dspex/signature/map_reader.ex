defmodule DSPex.Signature.MapReader do
  @moduledoc false
  # Signatures that are maps. Keys are atoms or strings; types are Elixir's or the wire's.

  alias DSPex.{Error, Options, Signature}
  alias DSPex.Signature.{Constraints, Field, TypeConverter}

  @map_keys ~w(name instructions inputs outputs)
  @field_keys ~w(name type description default constraints)

  @doc "The signature that a map describes."
  @spec read(map()) :: {:ok, Signature.t()} | {:error, Error.t()}
  def read(map) do
    with {:ok, map} <- string_keys(map, @map_keys, "a signature"),
         {:ok, name} <- text_or_nil(map, "name"),
         {:ok, instructions} <- text_or_nil(map, "instructions"),
         {:ok, inputs} <- side(map, "inputs"),
         {:ok, outputs} <- side(map, "outputs") do
      distinct(%Signature{
        name: name,
        instructions: instructions,
        inputs: inputs,
        outputs: outputs
      })
    end
  end

  @doc "Fields of pairs of name and type."
  @spec fields([{term(), term()}]) :: {:ok, [Field.t()]} | {:error, Error.t()}
  def fields(pairs),
    do: collect(pairs, fn {name, type} -> named(name, Field.new(name, type, [])) end)

  @doc "The signature, unless a name stands in it twice."
  @spec distinct(Signature.t()) :: {:ok, Signature.t()} | {:error, Error.t()}
  def distinct(signature) do
    names = Enum.map(signature.inputs ++ signature.outputs, &to_string(&1.name))

    case names -- Enum.uniq(names) do
      [] ->
        {:ok, signature}

      [name | _] ->
        invalid("the field #{inspect(name)} stands twice; names are distinct over both sides")
    end
  end

  defp side(map, side) do
    case map do
      %{^side => [_ | _] = fields} -> collect(fields, &field(&1, side))
      %{} -> invalid("a signature has a list of #{side}, one at least")
    end
  end

  defp field(field, side) when is_map(field) and not is_struct(field) do
    with {:ok, field} <- string_keys(field, @field_keys, "a field of the #{side}"),
         {:ok, type} <- type(Map.get(field, "type", :string)),
         {:ok, options} <- options(said_by_schema(field)),
         do: named(field["name"], Field.new(field["name"], type, options))
  end

  defp field(_other, side), do: invalid("a field of the #{side} is a map")

  # A JSON Schema says these of itself.
  defp said_by_schema(%{"type" => %{} = schema} = field) do
    schema |> Map.take(["description", "default"]) |> Map.merge(field)
  end

  defp said_by_schema(field), do: field

  defp type(text) when is_binary(text), do: TypeConverter.from_wire(text)

  # Elixir's object types have types for values, and JSON Schemas have a type of their own.
  defp type(map) when is_map(map) and not is_struct(map) do
    case TypeConverter.check(map) do
      :ok -> {:ok, map}
      {:error, _message} -> TypeConverter.from_wire(map)
    end
  end

  defp type(type), do: {:ok, type}

  defp options(field) do
    constraints = field["constraints"] || %{}

    with true <- is_map(constraints) or Keyword.keyword?(constraints),
         names = Enum.map(Constraints.names(), &Atom.to_string/1),
         {:ok, constraints} <- string_keys(constraints, names, "constraints") do
      options = for {key, value} <- constraints, do: {String.to_existing_atom(key), value}

      own =
        for key <- [:description, :default],
            is_map_key(field, "#{key}"),
            do: {key, field["#{key}"]}

      {:ok, Enum.reject(own, &(&1 == {:description, nil})) ++ options}
    else
      false -> invalid("constraints are a map")
      error -> error
    end
  end

  defp string_keys(map, known, what) do
    map =
      Map.new(map, fn {key, value} ->
        {if(is_atom(key), do: Atom.to_string(key), else: key), value}
      end)

    case Enum.find(Map.keys(map), &(&1 not in known)) do
      nil ->
        {:ok, map}

      unknown ->
        hint = Options.did_you_mean(unknown, known)
        shown = inspect(unknown, limit: 5, printable_limit: 60)
        invalid("unknown key #{shown}#{hint} in #{what}; the keys are #{Enum.join(known, ", ")}")
    end
  end

  defp text_or_nil(map, key) do
    case Map.get(map, key) do
      value when is_binary(value) or is_nil(value) -> {:ok, value}
      _other -> invalid("the #{key} of a signature is a string")
    end
  end

  defp named(_name, {:ok, field}), do: {:ok, field}

  defp named(name, {:error, message}),
    do: invalid("field #{inspect(name, limit: 5, printable_limit: 60)}: #{message}")

  defp collect(items, fun) do
    Enum.reduce_while(items, {:ok, []}, fn item, {:ok, done} ->
      case fun.(item) do
        {:ok, made} -> {:cont, {:ok, [made | done]}}
        error -> {:halt, error}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, Enum.reverse(done)}
      error -> error
    end
  end

  defp invalid(message), do: {:error, Error.new(:signature_error, message)}
end
