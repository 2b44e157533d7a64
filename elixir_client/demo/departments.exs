# The second scene: a program that is made better by examples, and is still there after its Python was
# killed. The examples come with the project: `dspex dataset support_messages train` prints them.

defmodule Demo.Departments do
  @moduledoc "Which department does the message go to?"
  use DSPex.Program, server: Demo.DSPex

  defschema InputSchema do
    field(:message, :string, required: true)
  end

  defschema OutputSchema do
    field(:department, {:one_of, [:billing, :accounts, :engineering, :integrations, :sales]})
  end

  # With a real LM every example of every candidate costs: a few show how it goes.
  @of_a_real_lm 20

  def run(model) do
    knn? = model == "demo/knn"
    [train, val, test] = for split <- ~w(train val test), do: examples(split, knn?)

    IO.puts(
      "\n#{length(train)} labelled messages to learn from, #{length(val)} to choose by, " <>
        "#{length(test)} that no optimizer sees:\n"
    )

    before = score(__MODULE__, test)
    IO.puts("  as it is          #{shown(before)} of them right")

    {:ok, better} =
      DSPex.optimize(Demo.DSPex, __MODULE__, train,
        valset: val,
        metric: {:exact_match, :department},
        optimizer: {:bootstrap_few_shot_random_search, optimizer(knn?)},
        save_as: "departments-better",
        on_progress: &progress/1
      )

    show_trials(better, length(val))
    IO.puts("    #{List.last(better.changes)}")
    IO.puts("  optimized         #{shown(score(better.program, test))}")
    kill_python()
    IO.puts("  its Python killed #{shown(score(better.program, test))}, by the next one")
  end

  defp optimizer(true), do: [max_labeled_demos: 32, num_candidate_programs: 1]
  defp optimizer(false), do: [max_labeled_demos: 8, num_candidate_programs: 1]

  # Of a candidate that is at work: its score so far. Only for somebody who watches.
  defp progress(%{score: score, best_score: best} = progress)
       when is_number(score) and is_number(best) do
    if IO.ANSI.enabled?() do
      IO.write("\r  candidate #{progress.step}: #{shown(score)}, the best #{shown(best)} ")
    end
  end

  defp progress(_unscored), do: :ok

  defp show_trials(optimization, all) do
    if IO.ANSI.enabled?(), do: IO.write(["\r", IO.ANSI.clear_line()])

    # Some were given up after a few examples.
    for %{"trial" => trial, "score" => score, "examples" => ^all} <- optimization.trials do
      name = if trial == 0, do: "as it is", else: "candidate #{trial}"
      best = if trial == optimization.best_trial, do: "  the best", else: ""
      IO.puts("    #{String.pad_trailing(name, 12)} #{shown(score)} on those to choose by#{best}")
    end
  end

  # What it was asked would be answered with :connection_lost; the next call waits for the next one.
  defp kill_python do
    # The log would warn of what is meant to happen here.
    Logger.configure(level: :error)
    os_pid = python()
    {_printed, 0} = System.cmd("kill", ["-KILL", "#{os_pid}"])
    # The next one is ready: from here on there is no trace of the old one.
    true = python() != os_pid
  end

  defp python do
    receive do
      {:python, os_pid} -> os_pid
    end
  end

  defp score(program, examples) do
    {:ok, evaluation} =
      DSPex.evaluate(Demo.DSPex, program, examples, metric: {:exact_match, :department})

    evaluation.score
  end

  defp shown(score), do: :erlang.float_to_binary(score / 1, decimals: 3)

  defp examples(split, all?) do
    {printed, 0} = System.cmd(dspex(), ["dataset", "support_messages", split])
    examples = for line <- String.split(printed, "\n", trim: true), do: example(line)
    if all?, do: examples, else: Enum.take(examples, @of_a_real_lm)
  end

  # The command beside the bridge's, or in PATH.
  defp dspex do
    beside =
      for bridge <- [System.get_env("DSPEX_BRIDGE", "")],
          [executable | _] <- [OptionParser.split(bridge)],
          do: executable |> Path.dirname() |> Path.join("dspex")

    Enum.find(beside, "dspex", &File.exists?/1)
  end

  # Each line is JSON with three texts, whose escapes are Elixir's, too.
  defp example(line) do
    [message, department] =
      for key <- ["message", "department"] do
        [_all, text] = Regex.run(~r/"#{key}": "((?:[^"\\]|\\.)*)"/, line)
        Macro.unescape_string(text)
      end

    %{inputs: %{message: message}, outputs: %{department: department}}
  end
end
