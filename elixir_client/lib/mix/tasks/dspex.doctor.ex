defmodule Mix.Tasks.Dspex.Doctor do
  @shortdoc "Says whether the bridge can start here, and what is missing"

  @moduledoc """
  Looks at everything that an instance needs, one line each: the command of the bridge, its start, its
  version of the protocol, and DSPy behind it.

      mix dspex.doctor
      mix dspex.doctor -- /opt/my_app/python/bin/dspex bridge    # another command

  Without a command it looks where an instance looks that has none: the one of `DSPEX_BRIDGE`, else the
  environment that `mix dspex.install` makes here, `.venv`, and where there is none `dspex bridge` in
  `PATH`.

  The exit status is 1 where something is missing; each line then says what to do.
  """

  use Mix.Task

  alias DSPex.Python.Doctor

  @impl true
  def run(arguments) do
    {:ok, _started} = Application.ensure_all_started(:logger)

    command =
      case arguments do
        ["--" | command] ->
          command

        [] ->
          nil

        _other ->
          Mix.raise("mix dspex.doctor takes a command after --; see mix help dspex.doctor")
      end

    findings = Doctor.examine(command)

    for {result, text} <- findings,
        do: Mix.shell().info("#{if result == :ok, do: "ok     ", else: "WRONG  "}#{text}")

    if Enum.any?(findings, &match?({:wrong, _text}, &1)), do: exit({:shutdown, 1})
  end
end
