defmodule DSPex.Test.Readme do
  @moduledoc false
  # What the README tells its readers to type.

  @readme Path.expand("../../README.md", __DIR__)

  @doc "The section that leads to the first prediction."
  def guide, do: "From `mix new` to the first prediction"

  @doc "The blocks of code of a section, each with its language."
  def blocks(section) do
    [_before, text] = @readme |> File.read!() |> String.split("\n## #{section}\n", parts: 2)
    [text | _next] = String.split(text, "\n## ", parts: 2)

    for [_text, language, code] <- Regex.scan(~r/```(\w+)\n(.*?)```/s, text),
        do: {language, code}
  end
end
