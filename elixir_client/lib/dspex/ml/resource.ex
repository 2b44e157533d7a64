defmodule DSPex.ML.Resource do
  @moduledoc false
  # A resource's struct and the fields of the schema: of each its name and its kind,
  #
  #   * `:plain` - as JSON has it.
  #   * `:values` - with values that JSON does not have.
  #   * `:time`, `:state`, `:error`
  #
  # and what all resources have in common.

  alias DSPex.{Error, Options}
  alias DSPex.ML.{GraphQL, Page}
  alias DSPex.Server.Values

  @states ~w(draft active deprecated ready optimized deployed error archived pending queued running
             completed failed cancelled)a
  @by_text Map.new(@states, &{&1 |> Atom.to_string() |> String.upcase(), &1})

  @typedoc "Of the functions that take nothing else."
  @type option :: {:timeout, timeout()}

  @type fields :: [{atom(), :plain | :values | :time | :state | :error}]

  @timeout_schema [
    timeout:
      {:timeout, "milliseconds until the answer is waited for no longer, or `:infinity`.",
       GraphQL.default_timeout()}
  ]

  @page_schema [
                 first: {{:integer, 1, 500}, "how many at most."},
                 after: {:string, "`next` of the page before."}
               ] ++ @timeout_schema

  @doc "What every function takes."
  @spec timeout_schema() :: Options.schema()
  def timeout_schema, do: @timeout_schema

  @doc "What every list takes."
  @spec page_schema() :: Options.schema()
  def page_schema, do: @page_schema

  @doc "The timeout of a function that takes nothing else."
  @spec timeout(term()) :: {:ok, timeout()} | {:error, Error.t()}
  def timeout(options) do
    with {:ok, options} <- DSPex.Arguments.check(options, @timeout_schema),
         do: {:ok, options[:timeout]}
  end

  @doc "What a document asks for to get these fields."
  @spec selection(fields()) :: String.t()
  def selection(fields) do
    Enum.map_join(fields, " ", fn
      {name, :error} -> camel(name) <> " { code message retryable data }"
      {name, _kind} -> camel(name)
    end)
  end

  @doc "A name as the schema has it."
  @spec camel(atom()) :: String.t()
  def camel(name) do
    [first | rest] = name |> Atom.to_string() |> String.split("_")
    Enum.join([first | Enum.map(rest, &String.capitalize/1)])
  end

  @doc "The struct that the schema's map is."
  @spec load(module(), fields(), map()) :: {:ok, struct()} | {:error, Error.t()}
  def load(module, fields, map) do
    Enum.reduce_while(fields, {:ok, struct(module)}, fn {name, kind}, {:ok, resource} ->
      case value(kind, map[camel(name)]) do
        {:ok, value} -> {:cont, {:ok, Map.put(resource, name, value)}}
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
  end

  defp value(_kind, nil), do: {:ok, nil}
  defp value(:plain, value), do: {:ok, value}
  defp value(:values, value), do: Values.from_json(value)

  defp value(:state, text) when is_map_key(@by_text, text), do: {:ok, @by_text[text]}

  defp value(:time, text) when is_binary(text) do
    case DateTime.from_iso8601(text) do
      {:ok, time, _offset} -> {:ok, time}
      {:error, _reason} -> wrong("time")
    end
  end

  defp value(:error, error) do
    with :error <- Error.from_wire(error), do: wrong("error")
  end

  defp value(kind, _other), do: wrong(Atom.to_string(kind))

  defp wrong(kind),
    do: {:error, Error.new(:parse_error, "the server sent a #{kind} that is none")}

  @doc "The resource of an id or a name. `not_found` where there is none."
  @spec get(module(), fields(), field :: String.t(), term(), timeout()) ::
          {:ok, struct()} | {:error, Error.t()}
  def get(module, fields, field, resource, timeout) do
    with {:ok, id} <- id(resource, module),
         {:ok, found} <- GraphQL.query(field, [{"id", "ID!", id}], selection(fields), timeout) do
      if found == nil, do: not_found(module, id), else: load(module, fields, found)
    end
  end

  defp not_found(module, id) do
    kind = module |> Module.split() |> List.last()

    {:error, Error.new(:not_found, "there is no #{kind} #{inspect(id)}", data: %{"name" => id})}
  end

  @doc "A page of a list. `arguments` are those beside the page."
  @spec list(module(), fields(), String.t(), [GraphQL.argument()], keyword()) ::
          {:ok, Page.t()} | {:error, Error.t()}
  def list(module, fields, field, arguments, options) do
    page =
      for name <- [:first, :after],
          value = options[name],
          into: %{},
          do: {Atom.to_string(name), value}

    page = if page == %{}, do: nil, else: page

    asked = "totalCount pageInfo { hasNextPage endCursor } nodes { #{selection(fields)} }"

    arguments = [{"page", "Page", page} | arguments]

    with {:ok, found} <- GraphQL.query(field, arguments, asked, options[:timeout]),
         %{"nodes" => nodes, "totalCount" => total, "pageInfo" => info} <- found,
         {:ok, entries} <- load_all(module, fields, nodes) do
      {:ok,
       %Page{entries: entries, total: total, next: if(info["hasNextPage"], do: info["endCursor"])}}
    else
      {:error, error} -> {:error, error}
      _other -> {:error, Error.new(:parse_error, "the server's answer to #{field} is none")}
    end
  end

  @spec load_all(module(), fields(), [map()]) :: {:ok, [struct()]} | {:error, Error.t()}
  defp load_all(module, fields, nodes) do
    Enum.reduce_while(nodes, {:ok, []}, fn node, {:ok, done} ->
      case load(module, fields, node) do
        {:ok, resource} -> {:cont, {:ok, [resource | done]}}
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, Enum.reverse(done)}
      error -> error
    end
  end

  @doc "Makes or changes a resource: of the union's member `type`."
  @spec change(module(), fields(), String.t(), [GraphQL.argument()], timeout()) ::
          {:ok, struct()} | {:error, Error.t()}
  def change(module, fields, field, arguments, timeout) do
    type = module |> Module.split() |> List.last()
    member = "... on #{type} { #{selection(fields)} }"

    with {:ok, made} <- GraphQL.mutate(field, arguments, member, timeout),
         do: load(module, fields, made)
  end

  @doc "The id, or the name, of what stands for a resource."
  @spec id(term(), module()) :: {:ok, String.t()} | {:error, Error.t()}
  def id(%module{id: id}, module), do: {:ok, id}
  def id(id, _module) when is_binary(id) and id != "", do: {:ok, id}

  def id(_other, module),
    do: DSPex.Arguments.invalid("expected a #{inspect(module)}, or an id of one")

  @doc "What stands for a resource or is `nil`."
  @spec optional_id(term(), module()) :: {:ok, String.t() | nil} | {:error, Error.t()}
  def optional_id(nil, _module), do: {:ok, nil}
  def optional_id(resource, module), do: id(resource, module)

  @doc "The states of a filter: one, or a list."
  @spec states(term()) :: {:ok, [String.t()]} | {:error, String.t()}
  def states(states) do
    case Enum.reject(List.wrap(states), &(&1 in @states)) do
      [] ->
        {:ok, for(state <- List.wrap(states), do: state |> Atom.to_string() |> String.upcase())}

      [wrong | _others] ->
        {:error, "#{inspect(wrong, limit: 5)} is no state"}
    end
  end

  @doc "A filter's map, `nil` where nothing is asked for."
  @spec filter(keyword(), [atom()]) :: map() | nil
  def filter(options, names) do
    given =
      for name <- names,
          Keyword.has_key?(options, name),
          into: %{},
          do: {camel(name), json(options[name])}

    if given == %{}, do: nil, else: given
  end

  defp json(%DateTime{} = time), do: DateTime.to_iso8601(time)
  defp json(value), do: value

  @spec bang!({:ok, result} | {:error, Error.t()}) :: result when result: term()
  def bang!({:ok, result}), do: result
  def bang!({:error, error}), do: raise(error)
end
