defmodule DSPex.Test.JSON do
  @moduledoc false
  # Reads JSON, such as the conformance vectors, with what the machine has: OTP's own reader from 27, else jiffy.

  @vectors Path.expand("../../../protocol/vectors", __DIR__)

  def vectors(name), do: @vectors |> Path.join(name) |> read()

  def read(path), do: path |> File.read!() |> decode()

  @doc "The value of a text, with `nil` for null."
  def decode(text) do
    # Looked up, because a compiler would miss the one that is not here.
    case Enum.find([:json, :jiffy], &Code.ensure_loaded?/1) do
      :json ->
        {value, :ok, ""} = apply(:json, :decode, [text, :ok, %{null: nil}])
        value

      :jiffy ->
        apply(:jiffy, :decode, [text, [:return_maps, :use_nil]])
    end
  end
end
