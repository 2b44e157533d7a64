defmodule DSPex.Adapter.Mock.Run do
  @moduledoc false
  # Executions of a mock: one, many, and scored ones.

  alias DSPex.Adapter.Mock.{Answer, Exchange, MadeUp, Score, Server, Store}
  alias DSPex.{Error, ModuleOutputs, Signature, Telemetry, Tool}

  @doc "One execution: what `execute` answers."
  @spec execute(map(), map(), map(), map()) :: DSPex.Adapter.result()
  def execute(program, inputs, params, request) do
    began = System.monotonic_time()

    with {:ok, checked} <- Signature.validate_inputs(prompt(program.signature), inputs),
         {:ok, scripted} <- scripted(take(program, request), inputs, program, request),
         {:ok, outputs} <- outputs(program, scripted, checked) do
      if stream = params["stream"], do: stream(outputs, program.signature, stream, request)
      result(program, inputs, outputs, params, began, request)
    end
  end

  # Variables are the program's and no inputs of an execution.
  defp prompt(signature), do: %{signature | inputs: Signature.prompt_inputs(signature)}

  defp take(program, request),
    do: Server.call(request.instance, {:take, request.owner, program.id})

  defp scripted(:none, _inputs, _program, _request), do: {:ok, %{}}

  defp scripted({:ok, answer}, inputs, program, request),
    do: resolve(answer, inputs, program, request)

  # What a function gives is known only now.
  defp resolve(answer, inputs, program, request) do
    case Answer.check(answer) do
      :ok -> given(answer, inputs, program, request)
      {:error, message} -> {:error, Error.new(:invalid_params, message)}
    end
  end

  defp given({:error, %Error{} = error}, _inputs, _program, _request), do: {:error, error}

  defp given({:error, code}, _inputs, _program, _request),
    do: {:error, Error.new(code, "the answer was scripted to be this error")}

  defp given(:hang, _inputs, _program, _request) do
    receive do
      :never -> :never
    end
  end

  defp given(answer, inputs, program, request) when is_function(answer, 1),
    do: resolve(answer.(inputs), inputs, program, request)

  defp given(answer, inputs, program, request) when is_function(answer, 2) do
    call = fn name, args -> call_tool(to_string(name), args, program, request) end
    resolve(answer.(inputs, call), inputs, program, request)
  end

  defp given(outputs, _inputs, _program, _request),
    do: {:ok, Map.new(outputs, fn {name, value} -> {to_string(name), value} end)}

  defp call_tool(name, args, program, request) do
    about = %{server: request.instance, kind: :tool, name: name, program: program.id, request: 0}
    Telemetry.callback(about, fn -> run_tool(name, args, program, request) end)
  end

  defp run_tool(name, args, program, request) do
    with {:ok, tool} <- tool(name, program, request),
         {:ok, args} <- Exchange.through_wire(args),
         {:ok, args} <- Tool.load_args(tool, args) do
      context = %{
        server: request.instance,
        program: program.id,
        request: 0,
        tool: name,
        meta: Map.get(request.params, "meta", %{})
      }

      case Tool.call(tool, args, context) do
        {:ok, value} -> {:ok, value}
        {:error, %Error{} = error} -> {:error, error}
        {:error, reason} -> {:error, Error.new(:tool_error, text(reason))}
        value -> {:ok, value}
      end
    end
  rescue
    error -> {:error, Error.new(:tool_error, Exception.message(error))}
  end

  defp tool(name, program, request) do
    known =
      case Store.known(request.instance, request.owner, program.id) do
        {_signature, tools} -> Map.new(tools, &{&1.name, &1})
        nil -> %{}
      end

    case Map.fetch(Map.merge(known, request.tools), name) do
      {:ok, tool} -> {:ok, tool}
      :error -> {:error, Error.new(:not_found, "the program has no tool #{inspect(name)}")}
    end
  end

  defp outputs(program, scripted, inputs) do
    fields = program.signature.outputs
    made_up = for field <- fields, not is_map_key(scripted, to_string(field.name)), do: field
    made_of = program.made_of

    added =
      for {name, kind} <- ModuleOutputs.of(made_of["module"], made_of["options"]),
          do: {Atom.to_string(name), kind}

    with {:ok, rest} <- MadeUp.outputs(made_up, inputs),
         {own, scripted} = Map.split(scripted, Enum.map(added, &elem(&1, 0))),
         {:ok, outputs} <-
           Signature.validate_outputs(program.signature, Map.merge(rest, scripted)) do
      own = Map.new(added, fn {name, kind} -> {name, own[name] || added(kind, name, inputs)} end)
      {:ok, Map.merge(own, Signature.dump(fields, outputs))}
    end
  end

  defp added(:string, name, inputs), do: MadeUp.text(name, inputs)
  defp added(:map, _name, _inputs), do: %{}
  defp added(:list, _name, _inputs), do: []

  defp result(program, inputs, outputs, params, began, request) do
    usage = usage(words(inputs), words(outputs))
    configuration = Store.configuration(request.instance, request.owner)
    lm = if is_binary(params["lm"]), do: params["lm"], else: program.made_of["lm"]

    {:ok,
     %{
       "outputs" => Map.new(outputs, fn {name, value} -> {to_string(name), value} end),
       "program" => program.id,
       "lm" => lm || configuration["default_lm"] || "mock",
       "usage" => usage,
       "cost_usd" => 0.0,
       "duration_ms" => since(began),
       "cached" => false
     }}
  end

  # --- streams ---

  defp stream(outputs, signature, %{"fields" => wanted, "window" => window}, request) do
    for field <- signature.outputs,
        name = to_string(field.name),
        wanted == [] or name in wanted,
        reduce: window do
      granted ->
        pieces = pieces(outputs[name] || outputs[field.name])

        for {piece, at} <- Enum.with_index(pieces, 1), reduce: granted do
          granted ->
            granted = if granted == 0, do: wait_for_grant(), else: granted

            notify(request, "chunk", %{
              "field" => name,
              "text" => piece,
              "attempt" => 1,
              "done" => at == length(pieces)
            })

            granted - 1
        end
    end
  end

  defp wait_for_grant do
    receive do
      {:grant, n} -> n
    end
  end

  # Words with the space behind them: joined, they are the text.
  defp pieces(text) when is_binary(text) and text != "",
    do: Regex.scan(~r/\s*\S+\s*/u, text) |> List.flatten() |> rest_of(text)

  defp pieces(other) when other in [nil, ""], do: [""]
  defp pieces(value), do: [inspect(value, limit: :infinity, printable_limit: :infinity)]

  defp rest_of([], text), do: [text]
  defp rest_of(pieces, _text), do: pieces

  @doc "Tells whoever listens."
  @spec notify(map(), String.t(), map()) :: :ok
  def notify(%{listens?: false}, _method, _params), do: :ok

  def notify(request, method, params) do
    {:ok, params} = Exchange.through_wire(params)
    send(request.ref, {request.ref, {:notification, method, params}})
    :ok
  end

  # --- many ---

  @doc "What `batch` answers, each item told as it is done."
  @spec batch(map(), map(), map()) :: DSPex.Adapter.result()
  def batch(program, params, request) do
    began = System.monotonic_time()
    total = length(params["inputs"])

    {results, _halted?} =
      params["inputs"]
      |> Enum.with_index()
      |> Enum.map_reduce(false, fn {inputs, at}, halted? ->
        result =
          if halted?,
            do: {:error, Error.new(:cancelled, "not begun: another input failed")},
            else: execute(program, inputs, Map.delete(params, "stream"), request)

        notify(request, "item", Map.put(wire(result), "index", at))
        notify(request, "progress", %{"step" => at + 1, "total" => total})
        {result, halted? or (params["on_error"] == "halt" and match?({:error, _}, result))}
      end)

    wire = if params["results"] == false, do: [], else: Enum.map(results, &wire/1)
    {:ok, Map.merge(spent(results, began), %{"results" => wire})}
  end

  defp wire({:ok, result}), do: %{"ok" => result}
  defp wire({:error, error}), do: %{"error" => Error.to_wire(error)}

  @doc "What `evaluate` answers."
  @spec evaluate(map(), map(), map()) :: DSPex.Adapter.result()
  def evaluate(program, params, request) do
    began = System.monotonic_time()
    total = length(params["devset"])

    scored =
      for {example, at} <- Enum.with_index(params["devset"], 1) do
        result = execute(program, example["inputs"], %{}, request)
        scored = scored(result, example, program, params["metric"], request)
        notify(request, "progress", %{"step" => at, "total" => total})
        {result, scored}
      end

    {results, scored} = Enum.unzip(scored)
    sum = scored |> Enum.map(& &1["score"]) |> Enum.sum()
    wire = if params["results"] == false, do: [], else: scored

    {:ok,
     Map.merge(spent(results, began), %{
       "score" => if(total == 0, do: 0.0, else: sum / total),
       "results" => wire
     })}
  end

  defp scored({:error, error}, _example, _program, _metric, _request),
    do: %{"score" => 0.0, "error" => Error.to_wire(error)}

  defp scored({:ok, %{"outputs" => outputs}}, example, program, metric, request) do
    {:ok, outputs} = Exchange.through_wire(outputs)

    case Score.of(metric, example, outputs, program, request) do
      {:ok, score, nil} -> %{"score" => score, "outputs" => outputs}
      {:ok, score, feedback} -> %{"score" => score, "outputs" => outputs, "feedback" => feedback}
      {:error, error} -> %{"score" => 0.0, "error" => Error.to_wire(error)}
    end
  end

  defp spent(results, began) do
    usages = for {:ok, %{"usage" => usage}} <- results, do: usage
    sum = fn key -> usages |> Enum.map(& &1[key]) |> Enum.sum() end

    %{
      "usage" => usage(sum.("prompt_tokens"), sum.("completion_tokens")),
      "cost_usd" => 0.0,
      "duration_ms" => since(began)
    }
  end

  defp usage(prompt, completion) do
    %{
      "prompt_tokens" => prompt,
      "completion_tokens" => completion,
      "total_tokens" => prompt + completion
    }
  end

  defp words(values) do
    values
    |> Enum.map(fn {_name, value} -> if is_binary(value), do: value, else: inspect(value) end)
    |> Enum.map(&length(String.split(&1)))
    |> Enum.sum()
  end

  defp since(began) do
    us = System.convert_time_unit(System.monotonic_time() - began, :native, :microsecond)
    us / 1000
  end

  defp text(reason) when is_binary(reason), do: reason
  defp text(reason), do: inspect(reason, limit: 20, printable_limit: 200)
end
