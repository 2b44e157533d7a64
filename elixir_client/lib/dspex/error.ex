defmodule DSPex.Error do
  @moduledoc """
  The one exception of DSPex, returned as `{:error, %DSPex.Error{}}` and raised by the bang forms.

    * `:code` - an atom of the closed table below; a code that a newer bridge sends and this client
      does not know becomes `:internal_error`.
    * `:message` - one sentence for a person. `Exception.message/1` gives it with the details and
      what to do about it.
    * `:retryable` - whether the same call may simply be made again.
    * `:data` - a map with more, with string keys where it came from the bridge.

  ## Codes that the bridge sends

  #{for {code, text} <- DSPex.Error.Codes.wire(), do: "  * `:#{code}` - #{text}\n"}
  ## Codes that a server sends besides

  #{for {code, text} <- DSPex.Error.Codes.server(), do: "  * `:#{code}` - #{text}\n"}
  ## Codes of this client's own

  #{for {code, text} <- DSPex.Error.Codes.local(), do: "  * `:#{code}` - #{text}\n"}
  """

  alias DSPex.Error.Codes

  @type code :: unquote(Enum.reduce(Codes.atoms(), fn code, rest -> {:|, [], [code, rest]} end))

  @type t :: %__MODULE__{
          code: code(),
          message: String.t(),
          retryable: boolean(),
          data: map()
        }

  @a_model "openai/gpt-5-mini"

  @enforce_keys [:code, :message]
  defexception [:code, :message, retryable: false, data: %{}]

  @doc """
  Makes an error. Options: `:retryable` (default `false`) and `:data` (default `%{}`).

      iex> DSPex.Error.new(:timeout, "no answer within 50 ms", retryable: true).retryable
      true
  """
  @spec new(code(), String.t(), retryable: boolean(), data: map()) :: t()
  def new(code, message, opts \\ []) do
    true = code in Codes.atoms()

    %__MODULE__{
      code: code,
      message: message,
      retryable: Keyword.get(opts, :retryable, false),
      data: Keyword.get(opts, :data, %{})
    }
  end

  @doc """
  Reads the error map of a response; `:error` where it is not one.

      iex> {:ok, error} = DSPex.Error.from_wire(%{"code" => "not_found", "message" => "no such program",
      ...>   "retryable" => false, "data" => %{"kind" => "program"}})
      iex> {error.code, error.data}
      {:not_found, %{"kind" => "program"}}
  """
  @spec from_wire(term()) :: {:ok, t()} | :error
  def from_wire(%{"code" => code, "message" => message} = wire)
      when is_binary(code) and is_binary(message) do
    with retryable when is_boolean(retryable) <- Map.get(wire, "retryable", false),
         data when is_map(data) and not is_struct(data) <- Map.get(wire, "data") || %{} do
      {:ok,
       %__MODULE__{
         code: Codes.from_wire(code),
         message: message,
         retryable: retryable,
         data: data
       }}
    else
      _malformed -> :error
    end
  end

  def from_wire(_other), do: :error

  @doc "The error map of a response."
  @spec to_wire(t()) :: map()
  def to_wire(%__MODULE__{} = error) do
    %{
      "code" => Atom.to_string(error.code),
      "message" => error.message,
      "retryable" => error.retryable,
      "data" => error.data
    }
  end

  @impl true
  def message(%__MODULE__{} = error) do
    lines =
      case invalid_values(error) do
        [] -> ["#{error.code}: #{error.message}"]
        # The lines say all that the message does, and of every value.
        values -> ["#{error.code}: #{count(values)} not fit the signature" | values]
      end

    Enum.join(lines ++ List.wrap(hint(error)), "\n")
  end

  defp invalid_values(%{data: %{"errors" => errors}}) when is_list(errors) do
    for error <- errors, is_map(error), do: "  - " <> validation_line(error)
  end

  defp invalid_values(_error), do: []

  defp count([_one]), do: "1 value does"
  defp count(values), do: "#{length(values)} values do"

  # `{path, type, message, expected, got}`; the message has what was expected and got in it.
  defp validation_line(error) do
    path = error |> Map.get("path") |> List.wrap() |> Enum.map_join(".", &text/1)
    message = error |> Map.get("message", "is wrong") |> text()
    if path == "", do: message, else: "#{path}: #{message}"
  end

  defp text(value) when is_binary(value), do: value
  defp text(value), do: inspect(value, limit: 20, printable_limit: 200)

  defp hint(%{code: :lm_error, data: %{"kind" => "auth"}}) do
    "Check the key of this LM: `api_key:` in `lms:`, or the provider's environment variable."
  end

  defp hint(%{code: :lm_error, data: %{"kind" => "rate_limit"} = data}) do
    case data do
      %{"retry_after_ms" => ms} when is_integer(ms) -> "The provider asks to wait #{ms} ms."
      _unknown -> "The provider limits the rate of calls: wait, or raise the limit there."
    end
  end

  defp hint(%{code: :lm_error, data: %{"kind" => "context_window"}}) do
    "The prompt is longer than the model accepts: shorten the inputs or use fewer demonstrations."
  end

  defp hint(%{code: :not_found, data: %{"kind" => "program"}}) do
    "`DSPex.list/1` tells the programs there are; `DSPex.create/3` makes one."
  end

  # The message has what is missing in the words of the protocol.
  defp hint(%{code: :not_found, data: %{"kind" => "lm", "name" => name}}) when is_binary(name) do
    "An LM that the instance was not given is described: `lm: [model: \"#{model(name)}\"]`; one that it " <>
      "is to have is in its `lms:`."
  end

  defp hint(%{code: :not_found, data: %{"kind" => "lm"}}) do
    "Give the instance `lms: [main: \"#{@a_model}\"]`, of several `default_lm:` too, or the call an `lm:`."
  end

  defp hint(%{code: :connection_lost, data: %{"method" => "optimize"}}) do
    "Give `DSPex.optimize/4` a `checkpoint:`: begun again with the same one, it goes on where it was."
  end

  defp hint(%{code: :connection_lost, retryable: false}) do
    "Pass `retry: 1` to `DSPex.execute/4` or `DSPex.call/4` where that may be done twice."
  end

  defp hint(%{code: :already_exists}) do
    "Pass `replace: true` to replace it."
  end

  defp hint(%{code: :timeout}) do
    "Pass a longer `timeout:` (in milliseconds, or `:infinity`) where the work needs it."
  end

  defp hint(_error), do: nil

  # As LiteLLM names it, where that is what was given.
  defp model(name), do: if(String.contains?(name, "/"), do: name, else: @a_model)
end
