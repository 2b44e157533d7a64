defmodule DSPex.Server.JSONTest do
  use ExUnit.Case, async: true

  alias DSPex.Server.JSON
  doctest JSON

  @vectors Path.expand("../../../../protocol/vectors", __DIR__)

  # After the cases of JSONTestSuite (Nicolas Seriot, "Parsing JSON is a Minefield").
  @good [
    {"[]", []},
    {"[[]   ]", [[]]},
    {~s([""]), [""]},
    {"[false]", [false]},
    {"[null, 1, \"1\", {}]", [nil, 1, "1", %{}]},
    {" [1\n,\t2\r] ", [1, 2]},
    {"[-0]", [0]},
    {"[0]", [0]},
    {"[20e1]", [200.0]},
    {"[0e+1]", [0.0]},
    {"[1E-2]", [0.01]},
    {"[123.456e78]", [123.456e78]},
    {"[-123123123123123123123123123123]", [-123_123_123_123_123_123_123_123_123_123]},
    {"[1.5e-400]", [0.0]},
    {~s({"a":"b","a":"c"}), %{"a" => "c"}},
    {~s({"":0}), %{"" => 0}},
    {~S({"a\u0000b": 42}), %{<<"a", 0, "b">> => 42}},
    {~S(["\u0060\u012a\u12AB"]), ["`Īካ"]},
    {~S(["\ud801\udc37"]), ["𐐷"]},
    {~S(["\uD83D\uDE39\uD83D\uDC8D"]), ["😹💍"]},
    {~S(["\"\\\/\b\f\n\r\t"]), ["\"\\/\b\f\n\r\t"]},
    {~S(["\\u0000"]), ["\\u0000"]},
    {~s(["a/*b*/c"]), ["a/*b*/c"]},
    {<<"[\"", 0x7F, "\"]">>, [<<0x7F>>]},
    {"[\"\u2028\u{10FFFF}\"]", ["\u2028\u{10FFFF}"]},
    {~s("one value"), "one value"},
    {"-1", -1},
    {"null", nil}
  ]

  @bad [
    "",
    " ",
    "[",
    "]",
    "[1",
    "[1,]",
    "[,1]",
    "[1,,2]",
    "[1 2]",
    "[1:2]",
    "[a",
    "[x]",
    "[][]",
    "1]",
    "[1]x",
    "[1],",
    "[nul]",
    "[True]",
    "[tru]",
    "[NaN]",
    "[-Infinity]",
    "[Inf]",
    "[+1]",
    "[++1]",
    "[-]",
    "[--1]",
    "[-01]",
    "[012]",
    "[.5]",
    "[-.5]",
    "[1.]",
    "[1.e1]",
    "[0.e1]",
    "[1e]",
    "[1e+]",
    "[1.0e-]",
    "[1e1.5]",
    "[0x42]",
    "[1eE2]",
    "[1 000]",
    "[１]",
    "[1e400]",
    "[-1e400]",
    "[1a]",
    ~s(["a]),
    ~s(["a"),
    ~s(["),
    ~s(["\\),
    ~S(["\x00"]),
    ~S(["\u00A"]),
    ~S(["\u00g0"]),
    ~S(["\uD800"]),
    ~S(["\uD800\u"]),
    ~S(["\uD800\u1"]),
    ~S(["\uD800\n"]),
    ~S(["\uD800\uD800"]),
    ~S(["\uDC00"]),
    ~S(["\a"]),
    ~S(["\'"]),
    "['a']",
    "[\"a\tb\"]",
    "[\"a\nb\"]",
    <<"[\"", 0, "\"]">>,
    <<"[\"", 0xFF, "\"]">>,
    <<"[\"", 0xC0, 0xAF, "\"]">>,
    <<"[\"", 0xED, 0xA0, 0x80, "\"]">>,
    <<"[\"", 0xE0, "\"]">>,
    <<"[", 0xFF, "]">>,
    "\uFEFF[]",
    "[\f]",
    "[\u00A0]",
    "[1]\u2060",
    "{",
    "{}}",
    ~s({"a"}),
    ~s({"a" "b"}),
    ~s({"a":}),
    ~s({:"b"}),
    ~s({"a":1,}),
    ~s({"a":1,,"b":2}),
    ~s({,}),
    ~s({a: 1}),
    ~s({'a': 1}),
    ~s({1:1}),
    ~s({null:null}),
    ~s({"a":"b"}#),
    ~s({"a":"b"}/**/),
    ~s({"a":"b"}//),
    "/**/[]",
    "<null>"
  ]

  test "what is JSON is read" do
    for {text, value} <- @good, do: assert({text, JSON.decode(text)} == {text, {:ok, value}})
  end

  test "what is none is refused, with the byte where it went wrong" do
    for text <- @bad do
      answer = JSON.decode(text)
      assert match?({:error, %DSPex.Error{code: :parse_error}}, answer), inspect({text, answer})
      assert {:error, %{message: "byte " <> _}} = answer
    end
  end

  test "no prefix of a text is JSON" do
    text = ~S({"a": [1, -2.5e-3, "é\u00e9\n", true, null], "b": {}})
    assert {:ok, _value} = JSON.decode(text)

    for size <- 0..(byte_size(text) - 1),
        do: assert({:error, _error} = JSON.decode(binary_part(text, 0, size)))
  end

  test "what is nested too deep, or has too many digits, is refused and not waited for" do
    deep = String.duplicate("[", 1024) <> String.duplicate("]", 1024)
    assert {:ok, _value} = JSON.decode(deep)
    assert {:error, error} = JSON.decode(String.duplicate("[", 2_000_000))
    assert error.message =~ "nested deeper than 1024"
    assert {:error, error} = JSON.decode(String.duplicate("9", 2_000_000))
    assert error.message =~ "more than 4300 digits"
    assert {:error, _error} = JSON.decode("1." <> String.duplicate("9", 5000))
  end

  test "another reader reads the same of the conformance vectors" do
    files = Path.wildcard(@vectors <> "/**/*.json")
    assert length(files) > 3

    for file <- files do
      assert {file, JSON.decode(File.read!(file))} == {file, {:ok, DSPex.Test.JSON.read(file)}}
    end
  end

  test "what was written is read back" do
    seed = :rand.seed(:exsss, {ExUnit.configuration()[:seed], 1, 2})
    assert seed

    for _round <- 1..500 do
      value = json(4)
      text = IO.iodata_to_binary(JSON.encode(value))
      assert {text, JSON.decode(text)} == {text, {:ok, value}}
      refute text =~ ~r/[\x00-\x1f]/
    end
  end

  defp json(0), do: scalar(:rand.uniform(6))

  defp json(depth) do
    case :rand.uniform(3) do
      1 -> scalar(:rand.uniform(6))
      2 -> for _item <- count(), do: json(depth - 1)
      3 -> for _item <- count(), into: %{}, do: {text(), json(depth - 1)}
    end
  end

  defp count, do: Enum.take([1, 2, 3, 4], :rand.uniform(5) - 1)
  defp scalar(1), do: Enum.random([nil, true, false])
  defp scalar(2), do: :rand.uniform(1000) - 500
  defp scalar(3), do: Enum.random([-1, 1]) * Integer.pow(:rand.uniform(1000), 20)
  defp scalar(4), do: (:rand.uniform() - 0.5) * :math.pow(10, :rand.uniform(600) - 300)
  defp scalar(_other), do: text()

  defp text do
    characters = [?a, ?", ?\\, ?/, 0, 0x1F, ?\n, 0x7F, ?é, 0x2028, 0xFFFD, 0x1F600]
    for _character <- count(), into: "", do: <<Enum.random(characters)::utf8>>
  end
end
