defmodule DSPex.Test.SupportMessages do
  @moduledoc false
  # The labelled set that comes with the project, as the command beside the bridge's prints it.

  alias DSPex.Test.{Bridge, JSON}

  @doc "The first `count` examples of a split, whose only output is the department."
  def examples(split, count) when split in [:train, :val, :test] do
    [executable | _args] = Bridge.command()
    dspex = executable |> Path.dirname() |> Path.join("dspex")
    {printed, 0} = System.cmd(dspex, ["dataset", "support_messages", "#{split}"])
    lines = String.split(printed, "\n", trim: true)

    for line <- Enum.take(lines, count) do
      %{"inputs" => %{"message" => message}, "outputs" => %{"department" => department}} =
        JSON.decode(line)

      %{inputs: %{message: message}, outputs: %{department: department}}
    end
  end
end
