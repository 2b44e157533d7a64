defmodule DSPex.Signature.Source do
  @moduledoc false
  # Where in its source file a part of a signature stands. Keywords and strings carry no line into a
  # macro, so the file is read again, and only once something is wrong.

  @type env :: %{file: String.t(), line: non_neg_integer()}

  @doc "The place of a key of the call at a place, the `nth` from 0; else the place of the call."
  @spec key(env(), atom(), non_neg_integer()) :: env()
  def key(env, name, nth \\ 0) do
    lines = for {meta, [^name]} <- literals(env), meta[:format] == :keyword, do: meta[:line]

    case Enum.at(lines, nth) do
      nil -> env
      line -> %{env | line: line}
    end
  end

  @doc "The place of a character of a text in the call at a place; else the place of the call."
  @spec character(env(), String.t(), non_neg_integer()) :: env()
  def character(env, text, position) do
    case for {meta, [^text]} <- literals(env), do: {meta[:line], meta[:delimiter]} do
      # Only in a heredoc a line of the text is a line of the file.
      [{line, ~s(""")} | _] ->
        breaks =
          text |> String.slice(0, position) |> String.graphemes() |> Enum.count(&(&1 == "\n"))

        %{env | line: line + 1 + breaks}

      [{line, _quote} | _] ->
        %{env | line: line}

      [] ->
        env
    end
  end

  # What stands literally in the calls that begin at this place.
  defp literals(env) do
    with {:ok, text} <- File.read(env.file),
         {:ok, ast} <-
           Code.string_to_quoted(text,
             literal_encoder: &{:ok, {:__block__, &2, [&1]}},
             token_metadata: true
           ) do
      for {name, meta, args} <- nodes(ast),
          name in [:signature, :use] and meta[:line] == env.line,
          {:__block__, meta, [_literal] = literal} <- nodes(args),
          do: {meta, literal}
    else
      _no_file_or_no_code -> []
    end
  end

  # In the order of the source.
  defp nodes(ast) do
    {_ast, nodes} = Macro.prewalk(ast, [], fn node, nodes -> {node, [node | nodes]} end)
    Enum.reverse(nodes)
  end
end
