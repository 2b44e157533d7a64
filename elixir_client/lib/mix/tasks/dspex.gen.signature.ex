defmodule Mix.Tasks.Dspex.Gen.Signature do
  @shortdoc "Writes a module of a signature"

  @moduledoc """
  Writes a module of a signature, from the string that DSPy has for it.

      mix dspex.gen.signature MyApp.Triage "subject, body -> category, urgency: probability"

  makes `lib/my_app/triage.ex`. A file that is there is not touched unless `--force` is given. What is
  wrong with the name or the signature is said, and nothing is written.
  """

  use Mix.Task

  alias DSPex.Signature

  @impl true
  def run(arguments) do
    case OptionParser.parse!(arguments, strict: [force: :boolean]) do
      {options, [name, text]} -> generate(name, text, options)
      _other -> Mix.raise("mix dspex.gen.signature MODULE \"inputs -> outputs\" [--force]")
    end
  end

  defp generate(name, text, options) do
    unless name =~ ~r/^[A-Z][A-Za-z0-9_]*(\.[A-Z][A-Za-z0-9_]*)*$/,
      do: Mix.raise("#{inspect(name)} is no name of a module, such as MyApp.Triage")

    case Signature.new(text) do
      {:ok, _signature} -> write(name, text, options)
      {:error, error} -> Mix.raise(Exception.message(error))
    end
  end

  defp write(name, text, options) do
    path = Path.join("lib", Macro.underscore(name) <> ".ex")

    if File.exists?(path) and not Keyword.get(options, :force, false),
      do: Mix.raise("#{path} is there already; --force replaces it")

    File.mkdir_p!(Path.dirname(path))
    File.write!(path, source(name, text))
    Mix.shell().info("wrote #{path}")
  end

  defp source(name, text) do
    """
    defmodule #{name} do
      @moduledoc "Say what the program is to do: these are its instructions."
      use DSPex.Signature, #{inspect(text)}
    end
    """
    |> Code.format_string!()
    |> then(&[&1, "\n"])
  end
end
