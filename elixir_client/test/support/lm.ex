defmodule DSPex.Test.LM do
  @moduledoc false
  # An LM that says the same to every prompt: integration/openai_server.py, as a process.

  import ExUnit.Assertions

  @server Path.expand("../../../integration/openai_server.py", __DIR__)

  @patience_ms 30_000

  @doc "Starts one; gives its options. Its answers are these fields, in DSPy's chat form."
  def start(answers) do
    [bridge | _args] = DSPex.Test.Bridge.command()
    python = bridge |> Path.dirname() |> Path.join("python")
    fields = Enum.flat_map(answers, fn {field, value} -> ["--answer", "#{field}=#{value}"] end)

    # Its standard input ends with the process that opened it.
    port =
      Port.open({:spawn_executable, python}, [
        :binary,
        {:line, 1000},
        args: [@server | fields]
      ])

    assert_receive {^port, {:data, {:eol, url}}}, @patience_ms
    [model: "openai/gpt-4.1-mini", api_base: url, api_key: "sk-local", num_retries: 0]
  end
end
