defmodule DSPex.Server.ValuesTest do
  use ExUnit.Case, async: true

  alias DSPex.{Binary, Error, Tensor}
  alias DSPex.Server.{JSON, Values}

  doctest Values

  {:ok, tensor} = Tensor.new(:f32, {2, 1}, <<1.0::float-little-32, 2.0::float-little-32>>)
  {:ok, decimal} = DSPex.Decimal.new("12.50")

  @values %{
    "bytes" => Binary.new(<<0, 255>>),
    "big" => 2 ** 70,
    "decimal" => decimal,
    "when" => ~U[2024-02-29 12:00:00.000001Z],
    "floats" => [:nan, :infinity, :neg_infinity, 1.0, -0.5],
    "tensor" => tensor,
    "own" => %{"$bytes" => "AP8="},
    "own of two" => %{"$x" => 1, "y" => %{"$map" => %{}}},
    "plain" => %{"a" => [nil, true, 1, "é"]}
  }

  test "a value that JSON has not comes back as it was" do
    assert {:ok, json} = Values.to_json(@values)
    assert {:ok, read} = json |> JSON.encode() |> IO.iodata_to_binary() |> JSON.decode()
    assert read == json
    assert Values.from_json(read) == {:ok, @values}
  end

  test "the forms are those that the server writes" do
    assert {:ok, json} = Values.to_json(@values)
    assert json["bytes"] == %{"$bytes" => "AP8="}
    assert json["decimal"] == %{"$decimal" => "12.50"}
    assert json["when"] == %{"$datetime" => "2024-02-29T12:00:00.000001Z"}
    assert json["tensor"] == %{"$tensor" => ["f32", [2, 1], "AACAPwAAAEA="]}
    assert json["own"] == %{"$map" => %{"$bytes" => "AP8="}}
    assert hd(json["floats"]) == %{"$float" => "nan"}
  end

  test "what has no form on the wire has none in JSON, and is said where it stands" do
    assert {:error, %Error{code: :encode_error, message: "inputs.a[0]: " <> _}} =
             Values.to_json(%{inputs: %{a: [self()]}})

    assert {:error, %Error{code: :encode_error}} = Values.to_json(%{"text" => <<255>>})
  end

  test "a form that is none is refused" do
    for json <- [
          %{"$bytes" => "?"},
          %{"$bytes" => 1},
          %{"$decimal" => "twelve"},
          %{"$datetime" => "soon"},
          %{"$float" => "1.5"},
          %{"$tensor" => ["f32", [3], "AACAPw=="]},
          %{"$tensor" => ["f128", [1], "AACAPw=="]},
          %{"$tensor" => "f32"},
          %{"$unheard_of" => 1},
          %{"$map" => 1}
        ] do
      answer = Values.from_json([json])
      assert match?({:error, %Error{code: :parse_error}}, answer), inspect({json, answer})
    end
  end

  test "a time of no zone stays text" do
    assert Values.from_json(%{"$datetime" => "2024-02-29T12:00:00"}) ==
             {:ok, "2024-02-29T12:00:00"}
  end
end
