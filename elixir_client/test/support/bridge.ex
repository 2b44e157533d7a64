defmodule DSPex.Test.Bridge do
  @moduledoc false
  # The real bridge: what DSPEX_BRIDGE says, else the one of this checkout.

  import ExUnit.Assertions

  @checkout Path.expand("../../../.venv/bin/dspex", __DIR__)

  def start(options \\ []) do
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    options = Keyword.put_new_lazy(options, :command, &command/0)
    options = Keyword.put_new(options, :name, name)
    ExUnit.Callbacks.start_supervised!({DSPex, options})
    options[:name]
  end

  @doc "The command of the bridge."
  def command do
    refute :integration in ExUnit.configuration()[:exclude],
           "a test that starts the bridge is in test/integration, and tagged :integration"

    cond do
      System.get_env("DSPEX_BRIDGE", "") != "" ->
        {:ok, {executable, args}} = DSPex.Command.find(nil)
        [executable | args]

      File.exists?(@checkout) ->
        [@checkout, "bridge"]

      true ->
        flunk("no bridge: set DSPEX_BRIDGE, or make #{@checkout} with scripts/setup")
    end
  end

  @doc "The bridge's own test of clients: a bridge that is as bad as one may be."
  def conformance_command do
    [executable | _args] = command()
    [executable |> Path.dirname() |> Path.join("dspex"), "conformance", "--serve"]
  end

  def os_pid(name) do
    {:ok, [%{os_pid: os_pid} | _others]} = DSPex.workers(name)
    os_pid
  end

  @doc "A server that takes connections and never answers: an LM that thinks for ever."
  def silent_lm do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)
    lm = [model: "openai/silent", api_base: "http://127.0.0.1:#{port}/v1", api_key: "sk-silent"]
    {listener, lm ++ [num_retries: 0]}
  end

  @doc "Whether a process of the system is there and no zombie."
  def alive?(os_pid) do
    case File.read("/proc/#{os_pid}/stat") do
      {:ok, stat} -> not (stat |> String.split(") ") |> List.last() |> String.starts_with?("Z"))
      {:error, _reason} -> false
    end
  end
end
