# A supervised bridge, a typed program from a signature written in Elixir, and its answer on a real
# text. `scripts/demo` runs it from a bare machine; with the client compiled and `DSPEX_BRIDGE` or
# `dspex` on the PATH, `mix run demo/demo.exs` does too.

defmodule Demo.Triage do
  @moduledoc "Sort a customer's e-mail for the support team of a shop."
  use DSPex.Signature

  input :subject, :string
  input :body, :string
  input :products, {:list, :string}, description: "the products that the shop sells"

  output :category, {:one_of, [:delivery, :defect, :billing, :question, :praise]}
  output :urgency, :probability, description: "0: whenever, 1: drop everything"
  output :phrases, {:list, :string}, description: "what in the e-mail matters, word for word"
  output :reply, :string, description: "the first sentence of the answer"
end

defmodule Demo do
  @folder __DIR__

  def run do
    {model, note} = choose_model()
    if note, do: IO.puts(note <> "\n")

    # Which process Python is, for the second scene.
    demo = self()

    DSPex.Telemetry.attach(:demo, [:dspex, :python, :ready], fn _event, _duration, python ->
      send(demo, {:python, python.os_pid})
    end)

    # The application's own supervisor: a Python that is killed comes back with every program.
    {:ok, _supervisor} =
      Supervisor.start_link([{DSPex, name: Demo.DSPex, lms: [main: [model: model]]}],
        strategy: :one_for_one
      )

    {demos, _binding} = Code.eval_file(Path.join(@folder, "demonstrations.exs"))
    program = DSPex.create!(Demo.DSPex, Demo.Triage, program: "triage", demos: demos)

    {subject, body} = read_email("email.txt")
    IO.puts("#{program.id}, with #{length(demos)} demonstrations, reads \"#{subject}\":\n")

    inputs = %{
      subject: subject,
      body: body,
      products: ["kettle", "toaster", "coffee mill", "scales"]
    }

    case DSPex.execute(Demo.DSPex, program, inputs) do
      {:ok, prediction} ->
        show(prediction)
        IO.puts("\n#{model}, #{cost(prediction)}, #{round(prediction.duration_ms)} ms")
        Demo.Departments.run(model)

      {:error, error} ->
        IO.puts(:stderr, Exception.message(error))
        System.halt(1)
    end
  end

  defp show(prediction) do
    for field <- [:category, :urgency, :phrases, :reply] do
      IO.puts("  #{String.pad_trailing("#{field}", 9)} #{shown(prediction[field])}")
    end
  end

  # The last digits of what demo/knn weighs differ from one build of its libraries to another.
  defp shown(number) when is_float(number), do: inspect(Float.round(number, 2))
  defp shown(value), do: inspect(value)

  defp choose_model do
    cond do
      model = present("DSPEX_MODEL") ->
        {model, nil}

      present("OPENAI_API_KEY") ->
        {"openai/gpt-5-mini", nil}

      true ->
        {"demo/knn",
         "No OPENAI_API_KEY and no DSPEX_MODEL: using the embedded demo/knn, which answers with " <>
           "the nearest demonstration and has no intelligence."}
    end
  end

  defp present(variable) do
    case System.get_env(variable) do
      "" -> nil
      value -> value
    end
  end

  defp read_email(name) do
    ["Subject: " <> subject, body] =
      @folder |> Path.join(name) |> File.read!() |> String.split("\n\n", parts: 2)

    {subject, body}
  end

  defp cost(%{usage: usage, cost_usd: cost}) do
    tokens = "#{usage.prompt_tokens} + #{usage.completion_tokens} tokens"
    if is_number(cost) and cost > 0, do: "#{tokens}, $#{Float.round(cost, 6)}", else: tokens
  end
end

Code.require_file("departments.exs", __DIR__)
Logger.configure(level: :info)
Demo.run()
