defmodule DSPex.Binary do
  @moduledoc """
  Bytes that are not text.

  An Elixir binary goes out as text, which must be UTF-8; wrap bytes in this struct to send them as
  bytes. Values of a field whose type is `:binary` are wrapped and unwrapped for you.

      iex> DSPex.Binary.new(<<0xFF, 0xD8>>)
      %DSPex.Binary{data: <<0xFF, 0xD8>>}
  """

  @type t :: %__MODULE__{data: binary()}

  @enforce_keys [:data]
  defstruct [:data]

  @doc "Wraps `data`."
  @spec new(binary()) :: t()
  def new(data) when is_binary(data), do: %__MODULE__{data: data}
end
