defmodule DSPex.StartOptions do
  @moduledoc false
  # What an instance is started with.

  alias DSPex.{Adapter, Config, Options}

  @default_max_frame_bytes 16 * 1024 * 1024

  # What the bridge demands of a client: it could not send an error to one that takes less.
  @min_max_frame_bytes 4096

  # Room for one of the largest requests, and for thousands of usual ones. What was refused may take as
  # much again until the connection's garbage is collected, and all of it is to stay below 64 MiB.
  @default_max_queued_bytes 16 * 1024 * 1024

  # More tools and metrics at one time than an LM's provider answers requests, and a small part of
  # the processes that a node has by default.
  @default_max_callbacks 1000

  @schema [
            name: {:atom, "what the functions of this module call the instance.", DSPex}
          ] ++
            Config.schema() ++
            [
              command:
                {:command,
                 "how the bridge is started: a list of the executable and its arguments. " <>
                   "Without it the environment variable `DSPEX_BRIDGE` says so (a command " <>
                   "line), without that it is `.venv/bin/dspex bridge` where that is " <>
                   "(`mix dspex.install` makes it), else `dspex bridge`, looked up in `PATH`. An " <>
                   "application that may be started in others' folders gives it."},
              max_frame_bytes:
                {{:integer, @min_max_frame_bytes, :infinity},
                 "the longest answer that is accepted, in bytes, from " <>
                   "#{@min_max_frame_bytes}.", @default_max_frame_bytes},
              max_queued_bytes:
                {{:integer, 1, :infinity},
                 "how many bytes of requests may wait to be written; a call beyond them is " <>
                   "answered with `:overloaded` at once.", @default_max_queued_bytes},
              max_callbacks:
                {{:integer, 1, :infinity},
                 "how many tools and metrics of the application may run at one time; one " <>
                   "beyond them fails with `:overloaded`, which its program observes.",
                 @default_max_callbacks},
              log_level:
                {{:is, &__MODULE__.log_level/1},
                 "from which level on what Python logs comes to `Logger`: `:debug`, `:info` " <>
                   "(what it prints, too), `:warning`, `:error` or `:none`.", "warning"},
              backend:
                {{:is, &Adapter.option/1},
                 "what runs the programs: a `DSPex.Adapter`, or `{adapter, options}`. In " <>
                   "tests it may be `DSPex.Adapter.Mock`; `DSPex.Adapter.Server` has those " <>
                   "of a server.", Adapter.PythonPort},
              start_timeout:
                {:timeout, "how long Python may take until it is ready, in milliseconds.", 60_000},
              pool_size:
                {{:integer, 1, 1024},
                 "how many workers there are, each with a Python of its own.", 1},
              fork:
                {:boolean,
                 "whether the Pythons of all workers are forked from one that has imported DSPy " <>
                   "(see \"Forked workers\").", false},
              cluster:
                {:boolean,
                 "whether the instances of this name on connected nodes are one pool (see " <>
                   "\"Several nodes\").", false},
              heartbeat_interval:
                {:timeout,
                 "how long a worker may be silent, in milliseconds, until it is asked for a " <>
                   "sign of life; with `:infinity` it never is.", 300},
              heartbeat_timeout:
                {:timeout, "how long a worker that does nothing may take to answer that.", 1500},
              busy_timeout:
                {:timeout, "how long one may take whose process computes all the time.", 30_000},
              drain_timeout:
                {:timeout,
                 "how long calls may take on a worker that is unhealthy, until it is replaced " <>
                   "all the same.", 60_000},
              journal:
                {{:is, &__MODULE__.journal/1},
                 "`:memory`, or `{:file, path}`: programs and configurations that were made " <>
                   "are then there after a restart of the node too (see \"The journal\").",
                 :memory}
            ]

  @doc "The options as documentation."
  @spec docs() :: String.t()
  def docs, do: Options.docs(@schema)

  @doc "The options, with what is not given; raises `ArgumentError` for wrong ones."
  @spec check!(keyword()) :: keyword()
  def check!(options) do
    with {:ok, options} <- Options.validate(options, @schema),
         :ok <- check_default_lm(options[:default_lm], options[:lms]) do
      options
    else
      {:error, message} -> raise ArgumentError, "DSPex: " <> message
    end
  end

  defp check_default_lm(nil, _lms), do: :ok

  defp check_default_lm(default, lms) do
    names = Map.keys(lms || %{})

    if default in names,
      do: :ok,
      else:
        {:error, "option :default_lm: #{inspect(default)} is none of the LMs #{inspect(names)}"}
  end

  # Checks of `DSPex.Options`, each of its own result too.
  @doc false
  @spec journal(term()) :: {:ok, term()} | {:error, String.t()}
  def journal(:memory), do: {:ok, :memory}
  def journal({:file, path}) when is_binary(path) and path != "", do: {:ok, {:file, path}}
  def journal(_other), do: {:error, "expected :memory or {:file, path}"}

  @doc false
  @spec log_level(term()) :: {:ok, String.t() | nil} | {:error, String.t()}
  def log_level(level) when level in [:debug, :info, :warning, :error],
    do: {:ok, Atom.to_string(level)}

  def log_level(level) when level in ["debug", "info", "warning", "error", nil], do: {:ok, level}
  def log_level(:none), do: {:ok, nil}

  def log_level(_other),
    do: {:error, "expected :debug, :info, :warning, :error or :none"}
end
