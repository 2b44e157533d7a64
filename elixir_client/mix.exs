defmodule DSPex.MixProject do
  use Mix.Project

  @version "0.1.0"
  @description "DSPy programs for Elixir: typed signatures, supervised Python, MessagePack over a port"

  def project do
    [
      app: :dspex,
      version: @version,
      elixir: "~> 1.14",
      description: @description,
      package: package(),
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: false,
      deps: [],
      aliases: aliases(),
      preferred_cli_env: Enum.map(aliases(), fn {name, _task} -> {name, :test} end),
      releases: [dspex: [include_executables_for: [:unix]]],
      docs: [main: "readme", extras: ["README.md"]]
    ]
  end

  # By what they need: nothing; a Python 3; the bridge with DSPy.
  defp aliases do
    [
      "test.fast": "test --exclude protocol --exclude integration",
      "test.protocol": "test --only protocol",
      "test.integration": "test --only integration",
      "test.all": "test"
    ]
  end

  # No application callback: the application that uses DSPex owns its supervision tree.
  def application do
    [extra_applications: [:logger]]
  end

  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{},
      files: ~w(lib mix.exs README.md .formatter.exs)
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]
end
