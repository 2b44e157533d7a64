defmodule DSPex.Signature.Pattern do
  @moduledoc false
  # Patterns are Rust's, which the bridge compiles. Here they are looked for where PCRE is sure to
  # give the same answer, and quickly; else the pattern counts as found, and the bridge judges.

  # Plain characters, simple classes, groups, choices and repetitions mean the same to both.
  @common ~r/\A(?:[A-Za-z0-9 _\-,:;@#%&!"'<>=~\/.^$|*+?]|\(\?:|\((?!\?)|\)|\\[.\\+*?()|\[\]{}^$\-\/]|\\[dsw]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\}|\[\^?(?:[A-Za-z0-9 _.,:;@#%!"'<>=\/+*?()|${}]|(?<=[A-Za-z0-9])-(?=[A-Za-z0-9])|\\[.\\+*?()|\[\]{}^$\-\/dsw])+\])*\z/

  # Repetition of a repetition can take PCRE exponential time, and Rust's engine linear.
  @nested_repetition ~r/\)[*+?{]/

  # Classes such as \d are Unicode's in both, of different versions of it.
  @unicode_class ~r/\\[dsw]/

  @doc "Whether a pattern is found in a text; true where only the bridge can tell."
  @spec found?(String.t(), String.t()) :: boolean()
  def found?(pattern, text) do
    case compiled(pattern) do
      {:ok, regex, any_text?} when any_text? -> Regex.match?(regex, text)
      {:ok, regex, false} -> not ascii?(text) or Regex.match?(regex, text)
      :error -> true
    end
  end

  defp compiled(pattern) do
    with true <- Regex.match?(@common, pattern),
         false <- Regex.match?(@nested_repetition, pattern),
         {:ok, regex} <- Regex.compile(pattern, [:unicode, :dollar_endonly]) do
      {:ok, regex, not Regex.match?(@unicode_class, pattern)}
    else
      _other -> :error
    end
  end

  defp ascii?(text), do: not String.match?(text, ~r/[^\x00-\x7F]/u)
end
