defmodule DSPex.Journal.Configuration do
  @moduledoc false
  # The configuration in a journal's file: how it is written, and what is restored of it.
  #
  # There is no key in it. An LM or embedder that was configured with anything secret (a key, an
  # address, extra parameters) is kept by its name alone: it could only be restored as another one.
  # What the application gives at its start goes before what the file has.

  require Logger

  alias DSPex.{Config, Fallbacks, Secret}

  # What a configuration has by name: how it is read, and what a person calls it.
  @by_name [{:lms, &Config.lm/1, "LMs"}, {:embedders, &Config.embedder/1, "embedders"}]
  @names for {key, _read, _called} <- @by_name, do: Atom.to_string(key)

  @typedoc "As the file has it: string keys, and `nil` for what was configured with a secret."
  @type record :: %{optional(String.t()) => term()}

  @spec to_record(Config.t()) :: record()
  def to_record(params),
    do: Map.new(params, fn {key, value} -> {"#{key}", configured("#{key}", value)} end)

  defp configured(key, models) when key in @names,
    do: Map.new(models, fn {name, model} -> {name, open_model(model)} end)

  defp configured(_key, value), do: value

  defp open_model(model) do
    if Enum.any?(model, &match?({_key, %Secret{}}, &1)),
      do: nil,
      else: Map.new(model, fn {key, value} -> {"#{key}", value} end)
  end

  @doc "As `DSPex.Config.merge/2`, of records."
  @spec merge(record(), record()) :: record()
  def merge(earlier, later) do
    Map.merge(earlier, later, fn
      key, earlier, later when key in @names -> Map.merge(earlier, later)
      _key, _earlier, later -> later
    end)
  end

  @doc "What is restored beside what the application gives; warns of what is not."
  @spec restore(record(), Config.t()) :: Config.t()
  def restore(record, given) do
    models =
      for {key, read, called} <- @by_name,
          models = models(record["#{key}"] || %{}, Map.get(given, key, %{}), {key, read, called}),
          models != %{},
          into: %{},
          do: {key, models}

    restored = Map.get(models, :lms, %{})
    given = Map.get(given, :lms, %{})
    lms = Map.merge(restored, given)

    models
    |> put(
      :lms,
      restored |> only_known_fallbacks(given, lms) |> without_circles(given),
      restored != %{}
    )
    |> put(:adapter, record["adapter"], is_binary(record["adapter"]))
    |> put(:limits, record["limits"], is_map(record["limits"]))
    # Of an LM that is lost, nothing could be the default.
    |> put(:default_lm, record["default_lm"], is_map_key(lms, record["default_lm"]))
  end

  defp models(before, given, {key, read, called}) do
    {lost, kept} = Enum.split_with(before, fn {_name, model} -> model == nil end)
    lost = for {name, nil} <- lost, not is_map_key(given, name), do: name

    if lost != [] do
      Logger.warning(
        "DSPex: the #{called} #{Enum.join(lost, ", ")} were configured with something secret, which " <>
          "no journal holds: give them as #{key}: or with DSPex.configure/2"
      )
    end

    for {name, model} <- kept, {:ok, model} <- [read.(model)], into: %{}, do: {name, model}
  end

  # The bridge would refuse the whole configuration for one that is not there.
  defp only_known_fallbacks(restored, given, lms) do
    Map.new(restored, fn {name, lm} ->
      {known, lost} = Enum.split_with(Map.get(lm, :fallbacks, []), &is_map_key(lms, &1))

      if lost == [] or is_map_key(given, name) do
        {name, lm}
      else
        Logger.warning(
          "DSPex: the LM #{name} of the journal is without its fallbacks #{Enum.join(lost, ", ")}, " <>
            "which are no LMs now: give them and it as lms:, or with DSPex.configure/2"
        )

        {name, %{lm | fallbacks: known}}
      end
    end)
  end

  # Nor would it take one that leads back, by an LM that the application now gives.
  defp without_circles(restored, given) do
    {reconciled, cut} = Fallbacks.reconcile(%{lms: restored}, %{lms: given})

    if cut != [] do
      Logger.warning(
        "DSPex: the LMs #{Enum.join(cut, ", ")} of the journal are without their fallbacks, which would " <>
          "lead back to where they began: give them as lms:, or with DSPex.configure/2"
      )
    end

    Map.merge(restored, Map.take(reconciled.lms, cut))
  end

  defp put(params, key, value, true), do: Map.put(params, key, value)
  defp put(params, _key, _value, false), do: params
end
