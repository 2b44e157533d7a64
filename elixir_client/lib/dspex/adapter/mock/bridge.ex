defmodule DSPex.Adapter.Mock.Bridge do
  @moduledoc false
  # The methods of the protocol as a mock answers them, in the task of one request.

  alias DSPex.Adapter.Mock.{Exchange, Fallbacks, Optimizer, Run, Store}
  alias DSPex.{Error, Signature}
  alias DSPex.Protocol.Codec

  # What a state has, of what a program was made of.
  @of_state ~w(module options lm adapter config demos tools limits variables instructions)

  @state_defaults %{
    "module" => "predict",
    "options" => %{},
    "lm" => nil,
    "adapter" => nil,
    "config" => %{},
    "demos" => [],
    "tools" => [],
    "limits" => %{},
    "variables" => %{}
  }

  @doc "The result of a request, after the wire."
  @spec answer(atom(), map()) :: DSPex.Adapter.result()
  def answer(instance, request) do
    with {:ok, result} <-
           method(request.method, request.params, Map.put(request, :instance, instance)),
         do: Exchange.through_wire(result)
  end

  defp method("ping", params, _request), do: {:ok, %{"payload" => params["payload"]}}

  defp method("configure", params, request) do
    known = Store.configuration(request.instance, request.owner)
    changes = params |> Map.delete("timeout_ms") |> Store.without_keys()
    configuration = Store.merge(known, changes)
    lms = configuration["lms"]

    with :ok <- default_lm(configuration["default_lm"], lms),
         :ok <- Fallbacks.check(lms, Map.keys(changes["lms"] || %{})) do
      Store.put_configuration(request.instance, request.owner, configuration)
      {:ok, configuration}
    end
  end

  defp method("create", params, request) do
    with {:ok, signature} <- Signature.fetch(params["signature"]),
         do: register(params["program"], Map.put(params, "signature", signature), request)
  end

  defp method("load", %{"path" => path} = params, request) do
    case Store.fetch(request.instance, :file, request.owner, path) do
      {:ok, state} -> load(state, params, request)
      :error -> not_found("file", path)
    end
  end

  defp method("load", params, request), do: load(params["state"], params, request)

  defp method("dump", %{"program" => id}, request) do
    with {:ok, program} <- program(id, request), do: {:ok, %{"state" => state(program)}}
  end

  defp method("save", %{"program" => id, "path" => path}, request) do
    with {:ok, program} <- program(id, request),
         {:ok, bytes} <- Codec.encode(state(program)) do
      Store.put(request.instance, :file, request.owner, path, state(program))
      {:ok, %{"path" => path, "bytes" => byte_size(bytes)}}
    end
  end

  defp method("describe", %{"program" => id}, request) do
    with {:ok, program} <- program(id, request) do
      about = Map.drop(state(program), ["format_version", "predictors"])
      {:ok, about |> Map.merge(registered(id, program)) |> Map.put("lineage", program.lineage)}
    end
  end

  defp method("delete", %{"program" => id}, request) do
    if Store.delete(request.instance, :program, request.owner, id),
      do: {:ok, %{"deleted" => true}},
      else: not_found("program", id)
  end

  defp method("list", params, request) do
    programs =
      for {id, program} <- Store.programs(request.instance, request.owner),
          String.starts_with?(id, Map.get(params, "prefix", "")) do
        id |> registered(program) |> Map.take(~w(program module signature revision))
      end

    {:ok, %{"programs" => Enum.map(programs, &Map.put(&1, "executions", 0))}}
  end

  defp method("execute", params, request) do
    with {:ok, program} <- runnable(params["program"], request),
         do: Run.execute(program, params["inputs"], params, request)
  end

  defp method("batch", params, request) do
    with {:ok, program} <- runnable(params["program"], request),
         do: Run.batch(program, params, request)
  end

  defp method("evaluate", params, request) do
    with {:ok, program} <- runnable(params["program"], request),
         do: Run.evaluate(program, params, request)
  end

  defp method("optimize", params, request) do
    with {:ok, program} <- program(params["program"], request),
         :ok <- free(params["save_as"], false, request),
         {:ok, program, result} <- Optimizer.run(program, params, request) do
      Store.put(request.instance, :program, request.owner, params["save_as"], program)
      {:ok, Map.merge(result, %{"program" => params["save_as"], "state" => state(program)})}
    end
  end

  defp method("stats", _params, request) do
    programs = Store.programs(request.instance, request.owner)

    {:ok,
     %{"uptime_ms" => 0.0, "requests" => %{}, "in_flight" => 0, "programs" => length(programs)}}
  end

  defp method(other, _params, _request),
    do: {:error, Error.new(:method_not_found, "a mock has no method #{other}")}

  # --- programs ---

  defp load(%{"signature" => signature, "module" => _module} = state, params, request) do
    with {:ok, signature} <- Signature.fetch(signature) do
      made_of =
        state |> Map.put("signature", signature) |> Map.merge(Map.take(params, ["replace"]))

      register(params["program"], made_of, request)
    end
  end

  defp load(_other, _params, _request),
    do:
      {:error,
       Error.new(:invalid_params, "params.state: expected a state, with signature and module")}

  defp register(id, made_of, request) do
    with :ok <- free(id, made_of["replace"], request) do
      revision =
        case Store.fetch(request.instance, :program, request.owner, id) do
          {:ok, before} -> before.revision + 1
          :error -> 1
        end

      program = %{
        id: id,
        signature: made_of["signature"],
        made_of: Map.merge(@state_defaults, Map.take(made_of, @of_state)),
        lineage: Map.get(made_of, "lineage", %{}),
        revision: revision
      }

      Store.put(request.instance, :program, request.owner, id, program)
      {:ok, registered(id, program)}
    end
  end

  defp free(id, replace, request) do
    case Store.fetch(request.instance, :program, request.owner, id) do
      {:ok, _program} when replace != true ->
        {:error,
         Error.new(:already_exists, "there is a program #{inspect(id)}", data: %{"program" => id})}

      _free ->
        :ok
    end
  end

  defp registered(id, program) do
    %{
      "program" => id,
      "module" => program.made_of["module"],
      "signature" => Signature.to_wire(program.signature),
      "revision" => program.revision,
      "input_schema" => schema(program.signature.inputs),
      "output_schema" => schema(program.signature.outputs)
    }
  end

  defp schema(fields) do
    names = Enum.map(fields, &to_string(&1.name))
    %{"type" => "object", "properties" => Map.new(names, &{&1, %{}}), "required" => names}
  end

  defp state(program) do
    demos = program.made_of["demos"]
    instructions = program.made_of["instructions"] || program.signature.instructions

    Map.merge(program.made_of, %{
      "format_version" => 1,
      "signature" => Signature.to_wire(program.signature),
      "lineage" => program.lineage,
      "predictors" => %{"self" => %{"instructions" => instructions, "demos" => demos}}
    })
  end

  defp program(id, request) do
    case Store.fetch(request.instance, :program, request.owner, id) do
      {:ok, program} -> {:ok, program}
      :error -> not_found("program", id)
    end
  end

  defp default_lm(name, lms) when name == nil or is_map_key(lms, name), do: :ok
  defp default_lm(name, _lms), do: not_found("lm", name)

  # A program that is sent along is registered nowhere.
  defp runnable(%{} = made_of, _request) do
    with {:ok, signature} <- Signature.fetch(made_of["signature"]) do
      made_of = Map.merge(@state_defaults, Map.take(made_of, @of_state))
      {:ok, %{id: "(inline)", signature: signature, made_of: made_of, lineage: %{}, revision: 1}}
    end
  end

  defp runnable(id, request), do: program(id, request)

  defp not_found(kind, name) do
    text = "there is no #{kind} #{inspect(name)}"
    {:error, Error.new(:not_found, text, data: %{"kind" => kind, "name" => name})}
  end
end
