defmodule DSPex.Signature.Variable do
  @moduledoc false
  # An input that is a parameter of the program: an optimizer may choose it. It goes to no prompt.

  alias DSPex.Options
  alias DSPex.Signature.{Constraints, Types, TypeText}

  @schema [
    applies_to: {:string, "where the value goes; without it `config.` and the field's name."},
    low: {:any, "the least value, where `:min` or the type do not say it."},
    high: {:any, "the greatest value, where `:max` or the type do not say it."},
    log: {:boolean, "whether values are tried on a logarithmic scale."},
    choices: {:list, "the values to choose from."}
  ]

  @floats [:float, :probability, :confidence_score]
  @integers [:integer, :token_count]

  @doc "What `:variable` may be, as a check of `DSPex.Options`."
  @spec option(term()) :: {:ok, false | keyword()} | {:error, String.t()}
  def option(false), do: {:ok, false}
  def option(true), do: {:ok, []}
  def option(options), do: Options.validate(options, @schema)

  @doc "The variable as the wire has it."
  @spec new(atom() | String.t(), Types.t(), map(), {:value, term()} | :none, keyword()) ::
          {:ok, map()} | {:error, String.t()}
  def new(_name, _type, _constraints, :none, _options),
    do: {:error, "a variable has a default: its value until an optimizer finds a better one"}

  def new(name, type, constraints, {:value, default}, options) do
    bounds = Map.merge(Constraints.own(type), constraints)
    low = Keyword.get(options, :low, bounds[:min])
    high = Keyword.get(options, :high, bounds[:max])

    with {:ok, range} <- range(type, low, high, options[:choices] || choices(type, constraints)) do
      {:ok,
       Map.merge(range, %{
         "default" => default,
         "applies_to" => Keyword.get(options, :applies_to, "config.#{name}")
       })
       |> put_log(options[:log])}
    end
  end

  defp choices(_type, %{one_of: values}), do: values
  defp choices({:one_of, values}, _constraints), do: values
  defp choices(:boolean, _constraints), do: [true, false]
  defp choices(_type, _constraints), do: nil

  defp range(_type, _low, _high, [_ | _] = choices),
    do: {:ok, %{"kind" => "categorical", "choices" => choices}}

  defp range(type, low, high, nil) when type in @floats or type in @integers do
    kind = if type in @floats, do: "float", else: "int"

    cond do
      not (is_number(low) and is_number(high)) ->
        {:error, "a variable number has :min and :max, or variable: [low: ..., high: ...]"}

      low >= high ->
        {:error, "a variable number has room between #{low} and #{high}"}

      true ->
        {:ok, %{"kind" => kind, "low" => low, "high" => high}}
    end
  end

  defp range(:string, _low, _high, nil), do: {:ok, %{"kind" => "text"}}

  defp range(type, _low, _high, _choices) do
    {:error,
     "a variable is a number, a boolean, a string or one of some values, not #{TypeText.text(type)}"}
  end

  defp put_log(variable, true), do: Map.put(variable, "log", true)
  defp put_log(variable, _none), do: variable
end
