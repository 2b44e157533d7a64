defmodule DSPex.Metric do
  @moduledoc """
  How good an answer is: the option `metric:` of `DSPex.evaluate/4` and `DSPex.optimize/4`. Without
  it the outputs are compared with those of the example: `{:exact_match, output}` where the signature
  has one output, else the share of the example's outputs that are the same.

    * a function of the example and the prediction, run in Elixir:

          fn example, prediction -> prediction.category == example.outputs.category end

      The example is `%{inputs: %{...}, outputs: %{...}}`, the prediction the map of the outputs;
      both have the names and types of the signature. One of three arguments gets the program's trace
      too, a list of maps, which is `nil` where no optimizer asks. It answers with a number (1 is
      perfect), a boolean, or `{score, feedback}` with a text that optimizers such as `:gepa` learn
      from. What it raises is that example's `:metric_error`.

    * the name of a built-in one: `:exact_match`, `:f1`, `:contains`, `:numeric_close`, `:json_match`
      or `:semantic_f1`; `{:exact_match, :answer}` where there are several outputs, and
      `{:numeric_close, :price, absolute_tolerance: 0.01}` with parameters.

    * `{:judge, signature, field}` or `{:judge, signature, field, options}`: a program, with the inputs
      `example` and `prediction` (maps) and the options of `DSPex.create/3`, whose output `field` is
      the score.
  """

  alias DSPex.{Options, Programs, Signature}
  alias DSPex.Signature.TypeConverter

  @type t ::
          (map(), map() -> score())
          | (map(), map(), [map()] | nil -> score())
          | atom()
          | {atom(), field :: atom() | String.t()}
          | {atom(), field :: atom() | String.t(), parameters :: keyword() | map()}
          | {:judge, DSPex.signature(), field :: atom() | String.t()}
          | {:judge, DSPex.signature(), field :: atom() | String.t(), keyword()}

  @type score :: number() | boolean() | {number() | boolean(), feedback :: String.t()}

  @built_in ~w(exact_match f1 contains numeric_close json_match semantic_f1)a

  # The name by which the bridge asks for a function. A request has one.
  @callback_name "metric"

  @doc false
  # A check of `DSPex.Options`: the form alone.
  @spec option(term()) :: {:ok, t()} | {:error, String.t()}
  def option(fun) when is_function(fun, 2) or is_function(fun, 3), do: {:ok, fun}
  def option(name) when name in @built_in, do: {:ok, name}
  def option({name, _field} = metric) when name in @built_in, do: {:ok, metric}
  def option({name, _field, _params} = metric) when name in @built_in, do: {:ok, metric}
  def option({:judge, _signature, _field} = metric), do: {:ok, metric}

  def option({:judge, _signature, _field, options} = metric) when is_list(options),
    do: {:ok, metric}

  def option(other) do
    wrong = if is_tuple(other) and tuple_size(other) > 0, do: elem(other, 0), else: other
    shown = if is_atom(wrong), do: ", not #{inspect(wrong)}", else: ""

    {:error,
     "expected a function of an example and a prediction, {:judge, signature, field}, or one of " <>
       Enum.map_join(@built_in, ", ", &inspect/1) <>
       shown <> Options.did_you_mean(wrong, @built_in)}
  end

  @doc false
  # What is compared where nobody says.
  @spec default(Signature.t()) :: t()
  def default(%Signature{outputs: [output]}), do: {:exact_match, output.name}
  def default(%Signature{}), do: &DSPex.Metric.Agreement.score/2

  @doc false
  # The metric as the wire has it, and the functions that the bridge will ask for.
  @spec to_wire(t(), Signature.t() | nil) ::
          {:ok, map(), %{optional(String.t()) => function()}} | {:error, DSPex.Error.t()}
  def to_wire(fun, signature) when is_function(fun),
    do: {:ok, %{callback: @callback_name}, %{@callback_name => callback(fun, signature)}}

  def to_wire(name, _signature) when is_atom(name), do: {:ok, %{name: name}, %{}}

  def to_wire({:judge, signature, field}, about),
    do: to_wire({:judge, signature, field, []}, about)

  def to_wire({:judge, signature, field, options}, _about) do
    with {:ok, options} <- DSPex.Arguments.check(options, Programs.program_schema()),
         {:ok, params, _signature, []} <- Programs.create_params(signature, options) do
      {:ok, %{judge: params, field: to_string(field)}, %{}}
    else
      {:ok, _params, _signature, _tools} ->
        DSPex.Arguments.invalid("option :metric: a judge has no tools")

      {:error, error} ->
        {:error, error}
    end
  end

  def to_wire({name, field}, _signature),
    do: {:ok, %{name: name, field: to_string(field)}, %{}}

  def to_wire({name, field, params}, _signature),
    do: {:ok, %{name: name, field: to_string(field), params: Map.new(params)}, %{}}

  # Values come as the function's author knows them, the score goes as the wire has it.
  defp callback(fun, signature) do
    fn example, prediction, trace ->
      example = %{
        inputs: load(signature, :inputs, example["inputs"]),
        outputs: load(signature, :outputs, example["outputs"])
      }

      prediction = load(signature, :outputs, prediction)

      score =
        if is_function(fun, 3),
          do: fun.(example, prediction, trace),
          else: fun.(example, prediction)

      score(score)
    end
  end

  defp score({score, feedback}) when is_binary(feedback), do: %{score: score, feedback: feedback}
  defp score(score), do: score

  defp load(nil, _side, values), do: values

  # An example may have more than the signature, or what does not fit it: that stays as it is.
  defp load(signature, side, values) when is_map(values) do
    fields = Map.new(Map.fetch!(signature, side), &{to_string(&1.name), &1})

    Map.new(values, fn {text, value} ->
      with {:ok, field} <- Map.fetch(fields, text),
           {:ok, loaded} <- TypeConverter.load(field.type, value) do
        {field.name, loaded}
      else
        :error -> {Signature.output_name(signature, text), value}
        {:error, _path, _expected} -> {fields[text].name, value}
      end
    end)
  end

  defp load(_signature, _side, other), do: other
end
