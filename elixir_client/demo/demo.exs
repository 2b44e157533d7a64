# A customer's e-mail, sorted by a DSPy program whose signature is written in Elixir.
#
#     mix run demo/demo.exs [FILE]        FILE: an e-mail, "Subject: …" in its first line

defmodule Demo.Triage do
  @moduledoc """
  Sort a customer's e-mail for the support team of a shop for coffee machines.
  """
  use DSPex.Signature

  input :subject, :string
  input :body, :string, description: "the e-mail's text"
  input :products, {:list, :string}, description: "what the shop sells"

  output :category, {:one_of, [:billing, :defect, :delivery, :question]}
  output :urgency, :float, min: 0, max: 1, description: "0 can wait for weeks, 1 is dangerous"
  output :phrases, {:list, :string}, description: "the three phrases that matter most, verbatim"
  output :summary, :string, description: "one sentence"
end

defmodule Demo do
  @here __DIR__

  def run(arguments) do
    # What happens inside is not the demo's business unless it goes wrong.
    Logger.configure(level: :error)

    path = List.first(arguments) || Path.join(@here, "email.txt")
    {subject, body} = read(path)
    {model, note} = model()

    # In an application this child stands in its own supervision tree.
    children = [{DSPex, name: Demo.DSPex, lms: [main: model], default_lm: :main}]
    {:ok, _supervisor} = Supervisor.start_link(children, strategy: :one_for_one)

    {demonstrations, _bindings} = Code.eval_file(Path.join(@here, "demonstrations.exs"))
    products = hd(demonstrations).inputs.products
    row("LM", note)
    row("e-mail", "#{inspect(subject)}, #{length(String.split(body))} words")

    program = DSPex.create!(Demo.DSPex, Demo.Triage, demos: demonstrations)
    inputs = %{subject: subject, body: body, products: products}
    {microseconds, prediction} = :timer.tc(fn -> DSPex.execute!(Demo.DSPex, program, inputs) end)

    IO.puts("")
    for %{name: name} <- Demo.Triage.output_fields(), do: row(name, show(prediction[name]))
    IO.puts("")
    %{prompt_tokens: prompt, completion_tokens: completion} = prediction.usage
    row("tokens", "#{prompt} in, #{completion} out#{cost(prediction.cost_usd)}")
    row("time", "#{div(microseconds, 1000)} ms from Elixir to Elixir")
  rescue
    # Of DSPex alone: its message says what to do.
    error in [DSPex.Error, File.Error] ->
      IO.puts(:stderr, Exception.message(error))
      System.halt(1)
  end

  defp model do
    cond do
      model = set("DSPEX_MODEL") ->
        {model, "#{model} (DSPEX_MODEL)"}

      set("OPENAI_API_KEY") ->
        {"openai/gpt-5-mini", "openai/gpt-5-mini (OPENAI_API_KEY is set)"}

      true ->
        {"demo/knn",
         "no key is set, so the embedded demo/knn: the nearest demonstrations, no intelligence"}
    end
  end

  defp set(variable) do
    case System.get_env(variable) do
      value when value in [nil, ""] -> nil
      value -> value
    end
  end

  defp read(path) do
    case path |> File.read!() |> String.split("\n", parts: 2) do
      ["Subject: " <> subject, body] -> {String.trim(subject), String.trim(body)}
      _no_subject -> {"(none)", File.read!(path)}
    end
  end

  defp show(values) when is_list(values), do: Enum.map_join(values, ", ", &inspect/1)
  defp show(number) when is_float(number), do: number |> Float.round(2) |> to_string()
  defp show(value), do: inspect(value)

  # Not known, or nothing.
  defp cost(none) when none in [nil, 0.0], do: ""
  defp cost(usd), do: ", $#{:erlang.float_to_binary(usd * 1.0, decimals: 4)}"

  defp row(label, text), do: IO.puts(String.pad_trailing("#{label}", 10) <> text)
end

Demo.run(System.argv())
