defmodule DSPex.Adapter.Mock.MadeUp do
  @moduledoc false
  # Outputs that nobody scripted: of the field's type, within its constraints, and the same for the same
  # inputs. They mean nothing.

  alias DSPex.Error
  alias DSPex.Signature.{Constraints, Field, Types, Validator}

  @formats %{
    "date" => "2024-05-17",
    "date-time" => "2024-05-17T12:30:00Z",
    "email" => "mock@example.org",
    "hostname" => "example.org",
    "ipv4" => "192.0.2.1",
    "ipv6" => "2001:db8::1",
    "time" => "12:30:00Z",
    "uri" => "https://example.org/mock",
    "uuid" => "123e4567-e89b-42d3-a456-426614174000"
  }

  # Of a number that has no bounds.
  @default_range 0..100
  @hundredths 100
  @embedding_size 8
  @items 2

  @spec outputs([Field.t()], map()) :: {:ok, map()} | {:error, Error.t()}
  def outputs(fields, inputs) do
    Enum.reduce_while(fields, {:ok, %{}}, fn field, {:ok, made} ->
      case make(field, inputs) do
        {:ok, value} ->
          {:cont, {:ok, Map.put(made, to_string(field.name), value)}}

        {:error, _unfit} ->
          text =
            "a mock cannot make up the output #{field.name}: script an answer, " <>
              "DSPex.Adapter.Mock.script(instance, program, [%{#{field.name}: ...}])"

          {:halt, {:error, Error.new(:unavailable, text)}}
      end
    end)
  end

  # Constraints may ask for more than is thought of here, a pattern for one.
  defp make(field, inputs) do
    name = to_string(field.name)
    value = value(field.type, field.constraints, seed(name, inputs), name)

    with {:ok, _converted} <- Validator.value(field.type, field.constraints, value),
         do: {:ok, value}
  catch
    {:nothing_of, type} -> {:error, type}
  end

  @doc "A text about nothing."
  @spec text(String.t(), map()) :: String.t()
  def text(name, inputs), do: string(seed(name, inputs), name)

  defp seed(name, inputs), do: :erlang.phash2({to_string(name), Enum.sort(inputs)})

  defp string(seed, name), do: "mock #{name} #{Integer.to_string(rem(seed, 46_656), 36)}"

  defp value(type, constraints, seed, name) do
    constraints = Map.merge(Constraints.own(type), constraints)

    case constraints do
      %{one_of: [_ | _] = values} -> pick(values, seed)
      %{} -> of_type(Types.canonical(type), constraints, seed, name)
    end
  end

  defp pick(values, seed), do: Enum.at(values, rem(seed, length(values)))

  defp of_type(:string, %{format: format}, _seed, _name), do: @formats[to_string(format)]

  defp of_type(:string, constraints, seed, name) do
    least = Map.get(constraints, :min_length, 0)
    most = Map.get(constraints, :max_length, :infinity)
    text = seed |> string(name) |> String.pad_trailing(least, ".")
    if most == :infinity, do: text, else: String.slice(text, 0, most)
  end

  defp of_type(type, constraints, seed, _name) when type in [:integer, :token_count] do
    step = Map.get(constraints, :multiple_of, 1)
    low = ceil(Map.get(constraints, :min, lowest(constraints)) / step)
    high = floor(Map.get(constraints, :max, low * step + @default_range.last) / step)
    (low + rem(seed, max(1, high - low + 1))) * step
  end

  defp of_type(type, constraints, seed, _name)
       when type in [:float, :probability, :confidence_score] do
    low = Map.get(constraints, :min, lowest(constraints))
    high = Map.get(constraints, :max, low + 1)
    low + (high - low) * rem(seed, @hundredths + 1) / @hundredths
  end

  defp of_type(:boolean, _constraints, seed, _name), do: rem(seed, 2) == 0
  defp of_type(:any, _constraints, seed, name), do: string(seed, name)
  defp of_type(:map, _constraints, seed, name), do: %{"mock" => string(seed, name)}
  defp of_type(:binary, _constraints, seed, _name), do: <<seed::32>>
  defp of_type(:date, _constraints, seed, _name), do: Date.add(~D[2024-01-01], rem(seed, 366))
  defp of_type(:time, _constraints, seed, _name), do: Time.add(~T[00:00:00], rem(seed, 86_400))

  defp of_type(:datetime, _constraints, seed, _name),
    do: DateTime.add(~U[2024-01-01 00:00:00Z], seed, :second)

  defp of_type(:decimal, constraints, seed, name),
    do: constraints |> then(&of_type(:integer, &1, seed, name)) |> Integer.to_string()

  defp of_type(:embedding, constraints, seed, _name),
    do: floats(Map.get(constraints, :dimensions, @embedding_size), seed)

  defp of_type({:embedding, size}, _constraints, seed, _name), do: floats(size, seed)

  defp of_type(:reasoning_chain, constraints, seed, name),
    do: items(:string, constraints, seed, name)

  defp of_type({:list, type}, constraints, seed, name), do: items(type, constraints, seed, name)

  defp of_type({:set, type}, constraints, seed, name),
    do: MapSet.new(items(type, constraints, seed, name))

  defp of_type({:tuple, types}, _constraints, seed, name) do
    types
    |> Enum.with_index(seed)
    |> Enum.map(fn {type, seed} -> value(type, %{}, seed, name) end)
    |> List.to_tuple()
  end

  defp of_type({:dict, key, type}, _constraints, seed, name),
    do: %{value(key, %{}, seed, name) => value(type, %{}, seed, name)}

  defp of_type({:optional, type}, constraints, seed, name),
    do: value(type, constraints, seed, name)

  defp of_type({:union, [type | _others]}, constraints, seed, name),
    do: value(type, constraints, seed, name)

  defp of_type({:one_of, values}, _constraints, seed, _name), do: pick(values, seed)

  defp of_type({:constrained, type, own}, constraints, seed, name),
    do: value(type, Map.merge(Map.new(own), constraints), seed, name)

  defp of_type(type, _constraints, seed, _name) do
    # What else there is nobody can make up: images, tensors…
    if not Types.object?(type), do: throw({:nothing_of, type})

    for property <- Types.object(type).properties,
        into: %{},
        do: {property.name, value(property.type, %{}, seed, to_string(property.name))}
  end

  defp lowest(%{max: max}), do: min(@default_range.first, max - @default_range.last)
  defp lowest(_unbounded), do: @default_range.first

  defp items(type, constraints, seed, name) do
    count =
      max(
        Map.get(constraints, :min_items, 0),
        min(@items, Map.get(constraints, :max_items, @items))
      )

    for at <- 1..count//1, do: value(type, %{}, seed + at, name)
  end

  defp floats(size, seed), do: for(at <- 1..size//1, do: :math.sin(seed + at))
end
