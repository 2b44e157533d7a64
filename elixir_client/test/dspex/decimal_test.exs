defmodule DSPex.DecimalTest do
  use ExUnit.Case, async: true

  # A node of its own, because what it loads would be there for every other test too. The module has
  # the functions of the Decimal library that are called, and their answers.
  @script ~S'''
  defmodule Decimal do
    defstruct [:sign, :coef, :exp]
    def parse("1.50"), do: {%Decimal{sign: 1, coef: 150, exp: -2}, ""}
    def parse("s" <> _), do: :error
    def to_string(%Decimal{sign: 1, coef: 150, exp: -2}), do: "1.50"
  end

  alias DSPex.Protocol.Codec
  alias DSPex.Signature.TypeConverter
  ours = struct(DSPex.Decimal, text: "1.50")
  theirs = struct(Decimal, sign: 1, coef: 150, exp: -2)
  {:ok, bytes} = Codec.encode(ours)
  {:ok, ^bytes} = Codec.encode(theirs)
  {:ok, ^theirs} = Codec.decode(bytes)
  {:ok, ^theirs} = TypeConverter.load(:decimal, "1.50")
  {:ok, ^theirs} = TypeConverter.load(:decimal, theirs)
  %{"1.50" => 1} = TypeConverter.dump({:dict, :decimal, :integer}, %{theirs => 1})

  # What that library cannot hold.
  signaling = struct(DSPex.Decimal, text: "sNaN")
  {:ok, bytes} = Codec.encode(signaling)
  {:ok, ^signaling} = Codec.decode(bytes)
  IO.write("every match held")
  '''

  test "where the application has the Decimal library, decimals are its own" do
    ebin = :dspex |> Application.app_dir("ebin")
    {output, status} = System.cmd("elixir", ["-pa", ebin, "-e", @script], stderr_to_stdout: true)
    assert {status, output} == {0, "every match held"}
  end
end
