defmodule DSPex.Adapter.Mock.Store do
  @moduledoc false
  # What a mock holds, by owner: programs, files, configuration, and what Elixir alone knows of
  # programs. One table, which the server owns and everybody reads and writes.
  #
  #     {{:owner, pid}, owner}                     who belongs to whom
  #     {{:program | :file, owner, name}, value}
  #     {{:known, owner, program}, {signature, tools}}
  #     {{:configuration, owner}, map}

  alias DSPex.{Signature, Tool}

  @shared :shared

  # What a configuration has by name, and adds to what there is.
  @by_name ["lms", "embedders"]

  # What is kept of an LM or embedder.
  @shown ["model", "fallbacks", "limits"]

  @spec new(atom()) :: :ok
  def new(instance) do
    _name = :ets.new(table(instance), [:named_table, :public, read_concurrency: true])
    :ok
  end

  @doc "The owner that the calling process belongs to: itself, or who it works for."
  @spec owner(atom()) :: pid() | :shared
  def owner(instance) do
    case is_atom(instance) and :ets.whereis(table(instance)) do
      exists when exists in [false, :undefined] ->
        @shared

      _table ->
        Enum.find_value([self() | Process.get(:"$callers", [])], @shared, fn pid ->
          case :ets.lookup(table(instance), {:owner, pid}) do
            [{_key, owner}] -> owner
            [] -> nil
          end
        end)
    end
  end

  @spec put_owner(atom(), pid(), pid() | :shared) :: :ok
  def put_owner(instance, pid, owner) do
    :ets.insert(table(instance), {{:owner, pid}, owner})
    :ok
  end

  @doc "Forgets all that is an owner's, and who belonged to it."
  @spec drop(atom(), pid()) :: :ok
  def drop(instance, owner) do
    table = table(instance)
    for kind <- [:program, :file, :known], do: :ets.match_delete(table, {{kind, owner, :_}, :_})
    :ets.delete(table, {:configuration, owner})
    :ets.match_delete(table, {{:owner, :_}, owner})
    :ok
  end

  @spec put(atom(), :program | :file, pid() | :shared, String.t(), term()) :: :ok
  def put(instance, kind, owner, name, value) do
    :ets.insert(table(instance), {{kind, owner, name}, value})
    :ok
  end

  @doc "The owner's own, or else what all share."
  @spec fetch(atom(), :program | :file | :known, pid() | :shared, String.t()) ::
          {:ok, term()} | :error
  def fetch(instance, kind, owner, name) do
    Enum.find_value([owner, @shared], :error, fn owner ->
      case :ets.lookup(table(instance), {kind, owner, name}) do
        [{_key, value}] -> {:ok, value}
        [] -> nil
      end
    end)
  end

  @spec delete(atom(), :program | :file, pid() | :shared, String.t()) :: boolean()
  def delete(instance, kind, owner, name),
    do: :ets.select_delete(table(instance), [{{{kind, owner, name}, :_}, [], [true]}]) == 1

  @doc "The programs that an owner sees, by name."
  @spec programs(atom(), pid() | :shared) :: [{String.t(), map()}]
  def programs(instance, owner) do
    own = fn owner ->
      pattern = {{:program, owner, :"$1"}, :"$2"}
      Map.new(:ets.select(table(instance), [{pattern, [], [{{:"$1", :"$2"}}]}]))
    end

    @shared |> own.() |> Map.merge(own.(owner)) |> Enum.sort()
  end

  @spec configuration(atom(), pid() | :shared) :: map()
  def configuration(instance, owner) do
    for owner <- [@shared, owner],
        {_key, configuration} <- :ets.lookup(table(instance), {:configuration, owner}),
        reduce: Map.new(["limits" | @by_name], &{&1, %{}}) do
      merged -> merge(merged, configuration)
    end
  end

  @doc "A configuration, and what is changed in it."
  @spec merge(map(), map()) :: map()
  def merge(configuration, changes) do
    Map.merge(configuration, changes, fn
      key, before, now when key in @by_name -> Map.merge(before, now)
      _key, _before, now -> now
    end)
  end

  @doc "A configuration without keys: nothing here needs one."
  @spec without_keys(map()) :: map()
  def without_keys(configuration) do
    Map.new(configuration, fn
      {key, models} when key in @by_name -> {key, Map.new(models, &only_shown/1)}
      other -> other
    end)
  end

  defp only_shown({name, model}), do: {name, Map.take(model, @shown)}

  @spec put_configuration(atom(), pid() | :shared, map()) :: :ok
  def put_configuration(instance, owner, configuration) do
    :ets.insert(table(instance), {{:configuration, owner}, configuration})
    :ok
  end

  @spec known(atom(), pid() | :shared, String.t()) ::
          {Signature.t() | nil, [Tool.t()]} | nil
  def known(instance, owner, program) do
    with true <- is_atom(instance) and :ets.whereis(table(instance)) != :undefined,
         {:ok, known} <- fetch(instance, :known, owner, program) do
      known
    else
      _unknown -> nil
    end
  end

  @doc "What `DSPex.Adapter` calls an entry. The configuration is the bridge's affair here."
  @spec record(atom(), pid() | :shared, DSPex.Adapter.entry()) :: :ok | {:error, DSPex.Error.t()}
  def record(instance, owner, {kind, program, _body, signature, tools}) when kind in [:put, :add],
    do: put_known(instance, owner, program, {signature, tools})

  def record(instance, owner, {:derived, program, signature, tools}),
    do: put_known(instance, owner, program, {signature, tools})

  def record(instance, owner, {:tools, program, tools}) do
    {signature, known} = known(instance, owner, program) || {nil, nil}

    with :ok <- Tool.check_known(tools, program, known && Enum.map(known, & &1.name)) do
      tools = Enum.uniq_by(tools ++ known, & &1.name)
      put_known(instance, owner, program, {signature, tools})
    end
  end

  def record(instance, owner, {:delete, program}) do
    for kind <- [:known, :program], do: :ets.delete(table(instance), {kind, owner, program})
    :ok
  end

  def record(_instance, _owner, {:configure, _configuration}), do: :ok

  defp put_known(instance, owner, program, known) do
    :ets.insert(table(instance), {{:known, owner, program}, known})
    :ok
  end

  defp table(instance), do: Module.concat(instance, "Mock")
end
