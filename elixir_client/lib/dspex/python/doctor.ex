defmodule DSPex.Python.Doctor do
  @moduledoc false
  # What an instance needs, looked at in the order in which it is needed: what comes after something
  # that is missing cannot be told.

  alias DSPex.{Command, Error}

  # DSPy is imported in the background.
  @bound_ms 60_000

  @type finding :: {:ok | :wrong, String.t()}

  @spec examine([String.t()] | nil) :: [finding()]
  def examine(command) do
    case Command.find(command) do
      {:ok, {executable, args}} ->
        found = {:ok, "the bridge's command is #{Enum.join([executable | args], " ")}"}
        [found | started([executable | args])]

      {:error, error} ->
        [{:wrong, error.message}]
    end
  end

  defp started(command) do
    name = __MODULE__.Instance
    {:ok, pid} = DSPex.start_link(name: name, command: command)

    try do
      case DSPex.ping(name, timeout: @bound_ms) do
        {:ok, _payload} ->
          [{:ok, "it starts, and speaks this client's version of the protocol"} | engine(name)]

        {:error, error} ->
          [{:wrong, Exception.message(error)}]
      end
    after
      Supervisor.stop(pid)
    end
  end

  # Without a key and a network, through all of DSPy.
  defp engine(name) do
    with {:ok, _configuration} <- DSPex.configure(name, lms: [doctor: "demo/knn"]),
         {:ok, _prediction} <-
           DSPex.call(name, "question -> answer", [question: "Is DSPy there?"],
             lm: :doctor,
             timeout: @bound_ms
           ) do
      [{:ok, "DSPy runs a program"}]
    else
      {:error, %Error{} = error} -> [{:wrong, "DSPy: #{Exception.message(error)}"}]
    end
  end
end
