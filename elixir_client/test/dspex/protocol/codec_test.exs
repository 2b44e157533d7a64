defmodule DSPex.Protocol.CodecTest do
  use ExUnit.Case, async: true

  @moduletag :protocol

  alias DSPex.{Binary, Tensor}
  alias DSPex.Protocol.Codec
  alias DSPex.Test.Terms

  doctest DSPex.Protocol.Codec
  doctest DSPex.Binary
  doctest DSPex.Tensor
  doctest DSPex.Decimal

  @text_31 String.duplicate("a", 31)
  @text_32 String.duplicate("a", 32)
  @text_255 String.duplicate("a", 255)
  @text_256 String.duplicate("a", 256)
  @text_65535 String.duplicate("a", 65_535)
  @text_65536 String.duplicate("a", 65_536)

  test "a timestamp is the time that DateTime makes of it, on every day of 800 years and at the ends" do
    # From 1600 to 2400, at a second of the day that changes, and the first and last that there are.
    days = for day <- -135_140..157_054, do: day * 86_400 + rem(abs(day) * 7919, 86_400)

    for second <- [-62_135_596_800, 253_402_300_799, -1, 0 | days] do
      {:ok, time} = DateTime.from_unix(second * 1_000_000 + 5, :microsecond)
      assert Codec.decode(<<0xC7, 12, 0xFF, 5999::32, second::64>>) == {:ok, time}
    end
  end

  # Both ways: the shortest form is written, and read back as the same value.
  @forms [
    {nil, <<0xC0>>},
    {false, <<0xC2>>},
    {true, <<0xC3>>},
    {0, <<0x00>>},
    {127, <<0x7F>>},
    {128, <<0xCC, 0x80>>},
    {255, <<0xCC, 0xFF>>},
    {256, <<0xCD, 0x01, 0x00>>},
    {65_535, <<0xCD, 0xFF, 0xFF>>},
    {65_536, <<0xCE, 0x00, 0x01, 0x00, 0x00>>},
    {0xFFFF_FFFF, <<0xCE, 0xFF, 0xFF, 0xFF, 0xFF>>},
    {0x1_0000_0000, <<0xCF, 0, 0, 0, 1, 0, 0, 0, 0>>},
    {0x7FFF_FFFF_FFFF_FFFF, <<0xCF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF>>},
    {0xFFFF_FFFF_FFFF_FFFF, <<0xCF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF>>},
    {-1, <<0xFF>>},
    {-32, <<0xE0>>},
    {-33, <<0xD0, 0xDF>>},
    {-128, <<0xD0, 0x80>>},
    {-129, <<0xD1, 0xFF, 0x7F>>},
    {-32_768, <<0xD1, 0x80, 0x00>>},
    {-32_769, <<0xD2, 0xFF, 0xFF, 0x7F, 0xFF>>},
    {-0x8000_0000, <<0xD2, 0x80, 0, 0, 0>>},
    {-0x8000_0001, <<0xD3, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF>>},
    {-0x8000_0000_0000_0000, <<0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0>>},
    {1.5, <<0xCB, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0>>},
    {-0.0, <<0xCB, 0x80, 0, 0, 0, 0, 0, 0, 0>>},
    {:nan, <<0xCB, 0x7F, 0xF8, 0, 0, 0, 0, 0, 0>>},
    {:infinity, <<0xCB, 0x7F, 0xF0, 0, 0, 0, 0, 0, 0>>},
    {:neg_infinity, <<0xCB, 0xFF, 0xF0, 0, 0, 0, 0, 0, 0>>},
    {"", <<0xA0>>},
    {"héß日😀", <<0xAC, "héß日😀"::binary>>},
    {"nul\0", <<0xA4, "nul", 0>>},
    {@text_31, <<0xBF, @text_31::binary>>},
    {@text_32, <<0xD9, 32, @text_32::binary>>},
    {@text_255, <<0xD9, 0xFF, @text_255::binary>>},
    {@text_256, <<0xDA, 1, 0, @text_256::binary>>},
    {@text_65535, <<0xDA, 0xFF, 0xFF, @text_65535::binary>>},
    {@text_65536, <<0xDB, 0, 1, 0, 0, @text_65536::binary>>},
    {Binary.new(""), <<0xC4, 0>>},
    {Binary.new(<<0xFF, 0>>), <<0xC4, 2, 0xFF, 0>>},
    {Binary.new(@text_256), <<0xC5, 1, 0, @text_256::binary>>},
    {Binary.new(@text_65536), <<0xC6, 0, 1, 0, 0, @text_65536::binary>>},
    {[], <<0x90>>},
    {[1, [2, []]], <<0x92, 1, 0x92, 2, 0x90>>},
    {List.duplicate(1, 15), <<0x9F>> <> String.duplicate(<<1>>, 15)},
    {List.duplicate(1, 16), <<0xDC, 0, 16>> <> String.duplicate(<<1>>, 16)},
    {List.duplicate(1, 65_536), <<0xDD, 0, 1, 0, 0>> <> String.duplicate(<<1>>, 65_536)},
    {%{}, <<0x80>>},
    {%{"a" => %{"b" => 1}}, <<0x81, 0xA1, ?a, 0x81, 0xA1, ?b, 1>>},
    {%{@text_32 => 1}, <<0x81, 0xD9, 32, @text_32::binary, 1>>},
    {%{@text_256 => 1}, <<0x81, 0xDA, 1, 0, @text_256::binary, 1>>},
    {%{@text_65536 => 1}, <<0x81, 0xDB, 0, 1, 0, 0, @text_65536::binary, 1>>},
    # Timestamps: 32, 64 and 96 bits.
    {~U[1970-01-01 00:00:00.000000Z], <<0xD6, 0xFF, 0, 0, 0, 0>>},
    {~U[2106-02-07 06:28:15.000000Z], <<0xD6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF>>},
    {~U[2106-02-07 06:28:16.000000Z], <<0xD7, 0xFF, 0::30, 0x1_0000_0000::34>>},
    {~U[2024-02-29 12:00:00.000001Z], <<0xD7, 0xFF, 1000::30, 1_709_208_000::34>>},
    {~U[2514-05-30 01:53:03.999999Z], <<0xD7, 0xFF, 999_999_000::30, 0x3_FFFF_FFFF::34>>},
    {~U[2514-05-30 01:53:04.000000Z], <<0xC7, 12, 0xFF, 0::32, 0x4_0000_0000::64>>},
    {~U[1969-12-31 23:59:59.500000Z], <<0xC7, 12, 0xFF, 500_000_000::32, -1::64>>},
    {~U[0001-01-01 00:00:00.000000Z], <<0xC7, 12, 0xFF, 0::32, -62_135_596_800::64>>},
    {~U[9999-12-31 23:59:59.999999Z], <<0xC7, 12, 0xFF, 999_999_000::32, 253_402_300_799::64>>},
    # Integers beyond 64 bits.
    {0x1_0000_0000_0000_0000, <<0xC7, 9, 1, 1, 0::64>>},
    {-0x8000_0000_0000_0001, <<0xC7, 9, 1, 0xFF, 0x7FFF_FFFF_FFFF_FFFF::64>>},
    {0x7F_FFFF_FFFF_FFFF_FFFF, <<0xC7, 9, 1, 0x7F, -1::64>>},
    {0x80_0000_0000_0000_0000, <<0xC7, 10, 1, 0, 0x80, 0::64>>},
    {-0x80_0000_0000_0000_0000, <<0xC7, 9, 1, 0x80, 0::64>>},
    {Integer.pow(2, 126), <<0xD8, 1, 0x40, 0::120>>},
    # Tensors.
    {%Tensor{dtype: :u8, shape: {2}, data: <<1, 2>>},
     <<0xC7, 10, 2, 0x93, 0xA2, "u8", 0x91, 2, 0xC4, 2, 1, 2>>},
    {%Tensor{dtype: :bool, shape: {}, data: <<1>>},
     <<0xC7, 10, 2, 0x93, 0xA4, "bool", 0x90, 0xC4, 1, 1>>},
    {%Tensor{dtype: :f64, shape: {0, 3}, data: <<>>},
     <<0xC7, 10, 2, 0x93, 0xA3, "f64", 0x92, 0, 3, 0xC4, 0>>},
    # Decimals.
    {%DSPex.Decimal{text: "1.10"}, <<0xD6, 3, "1.10">>},
    {%DSPex.Decimal{text: "-0"}, <<0xD5, 3, "-0">>},
    {%DSPex.Decimal{text: "1E+5"}, <<0xD6, 3, "1E+5">>},
    {%DSPex.Decimal{text: "NaN"}, <<0xC7, 3, 3, "NaN">>},
    {%DSPex.Decimal{text: "-Infinity"}, <<0xC7, 9, 3, "-Infinity">>}
  ]

  test "every form is written shortest and read back as the same value" do
    for {value, bytes} <- @forms do
      assert {value, Codec.encode(value)} == {value, {:ok, bytes}}
      assert {bytes, Codec.decode(bytes)} === {bytes, {:ok, value}}
    end
  end

  test "maps of every size are written and read" do
    for size <- [1, 15, 16, 17, 31, 32, 33, 65_535, 65_536] do
      map = Map.new(1..size, &{Integer.to_string(&1), &1})
      {:ok, bytes} = Codec.encode(map)
      assert Codec.decode(bytes) == {:ok, map}
    end
  end

  test "a long list of maps and others is written and read" do
    large = %{"text" => @text_65536, "bytes" => %Binary{data: @text_65535}}

    list =
      Enum.map(1..20, &%{"id" => &1, "labels" => ["a", %{"b" => nil}]}) ++ [large, %{}, 1.5, 1]

    for list <- [list, Enum.reverse(list), [large, %Binary{data: "a"} | list]] do
      assert list |> Codec.encode() |> read() == list
    end

    assert {:error, error} = Codec.encode(list ++ [%{"inner" => {}}])
    assert error.message == "[24].inner: a tuple has no form on the wire; use a list"
  end

  test "a large binary in a long list of maps is not copied" do
    {:ok, iodata} = Codec.encode_to_iodata(List.duplicate(%{"text" => @text_65536}, 20))
    assert iodata |> binaries() |> Enum.count(&(&1 == @text_65536)) == 20
  end

  test "the negative zero keeps its sign" do
    {:ok, zero} = Codec.decode(<<0xCB, 0x80, 0, 0, 0, 0, 0, 0, 0>>)
    assert <<1::1, 0::63>> = <<zero::float>>
  end

  @longer [
    {1, <<0xCC, 1>>},
    {1, <<0xCF, 1::64>>},
    {1, <<0xD0, 1>>},
    {1, <<0xD3, 1::64>>},
    {-1, <<0xD3, -1::64>>},
    {"a", <<0xD9, 1, ?a>>},
    {"a", <<0xDA, 0, 1, ?a>>},
    {"a", <<0xDB, 0, 0, 0, 1, ?a>>},
    {Binary.new("a"), <<0xC6, 0, 0, 0, 1, ?a>>},
    {[], <<0xDC, 0, 0>>},
    {[], <<0xDD, 0, 0, 0, 0>>},
    {[1], <<0xDD, 0, 0, 0, 1, 1>>},
    {%{}, <<0xDE, 0, 0>>},
    {%{}, <<0xDF, 0, 0, 0, 0>>},
    {%{"a" => 1}, <<0xDF, 0, 0, 0, 1, 0xDA, 0, 1, ?a, 1>>},
    {%DSPex.Decimal{text: "7"}, <<0xC9, 0, 0, 0, 1, 3, ?7>>},
    {%DSPex.Decimal{text: "7"}, <<0xC8, 0, 1, 3, ?7>>},
    {%DSPex.Decimal{text: "7"}, <<0xD4, 3, ?7>>},
    {~U[1970-01-01 00:00:01.000000Z], <<0xC7, 12, 0xFF, 0::32, 1::64>>},
    {~U[1970-01-01 00:00:01.000000Z], <<0xC7, 4, 0xFF, 1::32>>},
    {1.5, <<0xCA, 0x3F, 0xC0, 0, 0>>},
    {:infinity, <<0xCA, 0x7F, 0x80, 0, 0>>},
    {:neg_infinity, <<0xCA, 0xFF, 0x80, 0, 0>>},
    {:nan, <<0xCA, 0x7F, 0xC0, 0, 0>>},
    {:nan, <<0xCA, 0xFF, 0x80, 0, 1>>},
    {:nan, <<0xCB, 0xFF, 0xF8, 0, 0, 0, 0, 0, 0>>},
    {:nan, <<0xCB, 0x7F, 0xF0, 0, 0, 0, 0, 0, 1>>}
  ]

  test "longer forms of the same values are read" do
    for {value, bytes} <- @longer do
      assert {bytes, Codec.decode(bytes)} === {bytes, {:ok, value}}
    end
  end

  test "of a repeated key the last value wins" do
    assert Codec.decode(<<0x83, 0xA1, ?a, 1, 0xA1, ?b, 2, 0xA1, ?a, 3>>) ==
             {:ok, %{"a" => 3, "b" => 2}}
  end

  test "a timestamp finer than a microsecond is cut, before 1970 as well" do
    assert Codec.decode(<<0xD7, 0xFF, 1_999::30, 0::34>>) ==
             {:ok, ~U[1970-01-01 00:00:00.000001Z]}

    assert Codec.decode(<<0xC7, 12, 0xFF, 999_999_999::32, -1::64>>) ==
             {:ok, ~U[1969-12-31 23:59:59.999999Z]}
  end

  describe "what has another form on the wire than in Elixir" do
    test "atoms are written as their names, as values and as keys" do
      assert Codec.encode(:hello) == Codec.encode("hello")
      assert Codec.encode(%{nan: :hello}) == Codec.encode(%{"nan" => "hello"})
      assert Codec.encode(%{"a" => 1, b: 2}) |> read() == %{"a" => 1, "b" => 2}
    end

    test "dates, times and naive datetimes are written as ISO 8601 text" do
      assert Codec.encode(~D[2024-02-29]) == Codec.encode("2024-02-29")
      assert Codec.encode(~T[12:30:00.5]) == Codec.encode("12:30:00.5")
      assert Codec.encode(~N[2024-02-29 12:30:00]) == Codec.encode("2024-02-29T12:30:00")
    end

    test "a datetime of another zone is written as the same instant" do
      vienna = %{
        ~U[2024-07-01 14:00:00.000000Z]
        | utc_offset: 3600,
          std_offset: 3600,
          time_zone: "Europe/Vienna",
          zone_abbr: "CEST"
      }

      assert Codec.encode(vienna) |> read() == ~U[2024-07-01 12:00:00.000000Z]
    end
  end

  @refused [
    {<<>>, "byte 0: the value ends too early"},
    {<<0xC1>>, "byte 0: 0xC1 is no MessagePack type"},
    {<<0x92, 1, 0xC1>>, "byte 2: 0xC1 is no MessagePack type"},
    {<<1, 2>>, "byte 1: 1 bytes follow the value"},
    {<<0xA2, 0xC3, 0x28>>, "byte 1: a str is not valid UTF-8"},
    # A lone surrogate, an overlong form, a code point that is none.
    {<<0x91, 0xA3, 0xED, 0xA0, 0x80>>, "byte 2: a str is not valid UTF-8"},
    {<<0xA2, 0xC0, 0x80>>, "byte 1: a str is not valid UTF-8"},
    {<<0xA4, 0xF4, 0x90, 0x80, 0x80>>, "byte 1: a str is not valid UTF-8"},
    {<<0xD9, 1, 0xFF>>, "byte 2: a str is not valid UTF-8"},
    {<<0x81, 0xA1, 0xFF, 1>>, "byte 2: a map's key is not valid UTF-8"},
    {<<0x81, 1, 1>>, "byte 1: a map's key is a str, not what begins with 0x01"},
    {<<0x81, 0xC4, 1, ?a, 1>>, "byte 1: a map's key is a str, not what begins with 0xC4"},
    {<<0x81, 0xC0, 1>>, "byte 1: a map's key is a str, not what begins with 0xC0"},
    {<<0x81>>, "byte 1: a map ends too early"},
    {<<0x81, 0xA5, ?a>>, "byte 1: a map's key is cut off"},
    {<<0xDC, 0xFF, 0xFF, 1>>,
     "byte 0: an array of 65535 items does not fit into the 1 bytes that follow"},
    {<<0xDD, 0xFF, 0xFF, 0xFF, 0xFF>>,
     "byte 0: an array of 4294967295 items does not fit into the 0 bytes that follow"},
    {<<0xDE, 0, 16, 0>>, "byte 0: a map of 16 pairs does not fit into the 1 bytes that follow"},
    {<<0xDF, 0xFF, 0xFF, 0xFF, 0xFF, 0>>,
     "byte 0: a map of 4294967295 pairs does not fit into the 1 bytes that follow"},
    {<<0xDB, 0xFF, 0xFF, 0xFF, 0xFF, ?a>>, "byte 0: the value that begins with 0xDB is cut off"},
    {<<0xC6, 0xFF, 0xFF, 0xFF, 0xFF>>, "byte 0: the value that begins with 0xC6 is cut off"},
    {<<0xC9, 0xFF, 0xFF, 0xFF, 0xFF, 1>>, "byte 0: the value that begins with 0xC9 is cut off"},
    {<<0xD4, 5, 0>>, "byte 2: ext type 5 is not in use"},
    {<<0xD4, 0x80, 0>>, "byte 2: ext type -128 is not in use"},
    {<<0xD5, 0xFF, 0, 0>>, "byte 2: a timestamp has 4, 8 or 12 bytes, not 2"},
    {<<0xD7, 0xFF, 1_000_000_000::30, 0::34>>,
     "byte 2: a timestamp has at most 999999999 nanoseconds, not 1000000000"},
    {<<0xC7, 12, 0xFF, 1_000_000_000::32, 0::64>>,
     "byte 3: a timestamp has at most 999999999 nanoseconds, not 1000000000"},
    {<<0xC7, 12, 0xFF, 0::32, 253_402_300_800::64>>,
     "byte 3: a timestamp's year is from 1 to 9999"},
    {<<0xC7, 12, 0xFF, 999_999_999::32, -62_135_596_801::64>>,
     "byte 3: a timestamp's year is from 1 to 9999"},
    {<<0xC7, 0, 1>>, "byte 3: ext 1 is for integers beyond 64 bits; 0 is not"},
    {<<0xD4, 1, 5>>, "byte 2: ext 1 is for integers beyond 64 bits; 5 is not"},
    {<<0xC7, 9, 1, 0, -1::64>>,
     "byte 3: ext 1 is for integers beyond 64 bits; 18446744073709551615 is not"},
    {<<0xD7, 1, 0x80, 0::56>>,
     "byte 2: ext 1 is for integers beyond 64 bits; -9223372036854775808 is not"},
    {<<0xC7, 10, 1, 0, 1, 0::64>>, "byte 3: an ext 1 integer is not in its shortest form"},
    {<<0xC7, 10, 1, -1::16, 0::64>>, "byte 3: an ext 1 integer is not in its shortest form"},
    {<<0xC7, 9, 2, 0x93, 0xA2, "u8", 0x91, 2, 0xC4, 1, 1>>,
     "byte 3: a u8 tensor of shape {2} has 2 bytes, not 1"},
    {<<0xC7, 9, 2, 0x93, 0xA2, "c8", 0x91, 1, 0xC4, 1, 1>>,
     "byte 3: a tensor's dtype is one of f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64, bool, got \"c8\""},
    {<<0xC7, 9, 2, 0x93, 0xA2, "u8", 0x91, -1, 0xC4, 1, 1>>,
     "byte 3: a tensor's dimensions are integers from 0, got {-1}"},
    {<<0xC7, 6, 2, 0x92, 0xA2, "u8", 0x91, 1>>,
     "byte 3: a tensor is an array of dtype, shape and bytes"},
    {<<0xD4, 2, 0xC1>>, "byte 2: inside a tensor: byte 0: 0xC1 is no MessagePack type"},
    {<<0xC7, 0, 3>>, "byte 3: a decimal is digits with an optional sign, point and exponent"}
  ]

  test "what section 5 of the protocol refuses is refused, with the place and the reason" do
    for {bytes, message} <- @refused do
      assert {bytes, {:error, %DSPex.Error{code: :parse_error} = error}} =
               {bytes, Codec.decode(bytes)}

      assert {bytes, error.message} == {bytes, message}
    end
  end

  test "texts that are no decimal are refused, however long" do
    hostile = String.duplicate("1", 4095) <> "x"

    for text <- ~w(. + - 1e 1e+ e5 1.2.3 0x1F inf Nan ١ 1_000 --1 #{hostile}) ++ [" 1", "1\n"] do
      size = byte_size(text)
      assert {:error, error} = Codec.decode(<<0xC9, size::32, 3, text::binary>>)
      assert error.message =~ "a decimal is digits"
    end
  end

  # Which once asked the file system for the Decimal library, decimal by decimal.
  test "a frame full of decimals is read in no time" do
    frame = <<0xDD, 50_000::32, String.duplicate(<<0xD4, 3, ?7>>, 50_000)::binary>>
    {microseconds, {:ok, decimals}} = :timer.tc(fn -> Codec.decode(frame) end)
    assert length(decimals) == 50_000
    assert microseconds < 5_000_000
  end

  test "a decimal longer than the limit is refused in both directions" do
    text = String.duplicate("1", 4097)
    assert {:error, error} = Codec.decode(<<0xC8, 4097::16, 3, text::binary>>)
    assert error.message == "byte 4: a decimal of 4097 characters; the limit is 4096"

    assert {:error, error} = Codec.encode(%DSPex.Decimal{text: text})
    assert error.message == "a decimal of 4097 characters; the limit is 4096"
  end

  for {count, reason} <- [
        {50_000, "a tensor has at most 64 dimensions, not 50000"},
        {64, "a tensor's dimensions multiply to 2^63 bytes or more"}
      ] do
    test "#{count} dimensions that multiply to a huge number are refused in no time" do
      dimensions = String.duplicate(<<0xCF, -1::64>>, unquote(count))
      payload = <<0x93, 0xA2, "u8", 0xDC, unquote(count)::16, dimensions::binary, 0xC4, 1, 1>>

      {microseconds, result} =
        :timer.tc(fn -> Codec.decode(<<0xC9, byte_size(payload)::32, 2, payload::binary>>) end)

      assert {:error, %{message: message}} = result
      assert message == "byte 6: " <> unquote(reason)
      assert microseconds < 1_000_000
    end
  end

  test "a tensor that cannot become an array in Python is not written either" do
    for {tensor, message} <- [
          {%Tensor{dtype: :u8, shape: Tuple.duplicate(1, 65), data: "a"},
           "a tensor has at most 64 dimensions, not 65"},
          {%Tensor{dtype: :f32, shape: {0, 0x2000_0000_0000_0000}, data: ""},
           "a tensor's dimensions multiply to 2^63 bytes or more"},
          {%Tensor{dtype: :bool, shape: {2}, data: <<1, 2>>},
           "the bytes of a bool tensor are 0 or 1"}
        ] do
      assert {:error, error} = Codec.encode(tensor)
      assert error.message == message
    end
  end

  test "an integer longer than the limit is refused in both directions" do
    assert {:error, error} = Codec.decode(<<0xC9, 262_145::32, 1, 1, 0::262_144*8>>)
    assert error.message == "byte 6: an integer of 262145 bytes; the limit is 262144"

    assert {:error, error} = Codec.encode(Integer.pow(2, 262_144 * 8))
    assert error.message == "an integer of 262145 bytes; the limit is 262144"
  end

  test "a sample of every form is refused when cut anywhere" do
    for {_value, bytes} <- @forms, byte_size(bytes) <= 300, size <- 0..(byte_size(bytes) - 1) do
      cut = binary_part(bytes, 0, size)
      assert {^cut, {:error, %{code: :parse_error}}} = {cut, Codec.decode(cut)}
    end
  end

  test "a sample of every form is refused with a byte behind it" do
    for {_value, bytes} <- @forms do
      assert {:error, error} = Codec.decode(bytes <> <<0xC0>>)
      assert error.message == "byte #{byte_size(bytes)}: 1 bytes follow the value"
    end
  end

  describe "nesting" do
    test "of 512 and of the limit, 1,024, is accepted in both directions" do
      for depth <- [512, 1024] do
        assert {:ok, list} = Codec.decode(arrays(depth))
        assert {:ok, bytes} = Codec.encode(list)
        assert bytes == arrays(depth)

        assert {:ok, map} = Codec.decode(maps(depth))
        assert {:ok, bytes} = Codec.encode(map)
        assert bytes == maps(depth)
      end
    end

    test "beyond the limit is refused in both directions" do
      for bytes <- [arrays(1025), maps(1025), arrays(1024, <<0x80>>), arrays(5_000_000)] do
        assert {:error, error} = Codec.decode(bytes)
        assert error.message =~ ~r/^byte \d+: containers are nested deeper than 1024$/
      end

      list = Enum.reduce(1..1025, 1, fn _, inner -> [inner] end)
      map = Enum.reduce(1..1025, 1, fn _, inner -> %{a: inner} end)

      for term <- [list, map], depth <- [0, 1] do
        assert {:error, %{code: :encode_error} = error} = Codec.encode(term, depth)
        assert error.message =~ "containers are nested deeper than 1024"
      end
    end

    test "counts the containers that the value will stand inside of" do
      assert {:ok, _bytes} = Codec.encode([], 1023)
      assert {:error, _error} = Codec.encode([], 1024)
      assert {:ok, _bytes} = Codec.encode("", 1024)
    end
  end

  @no_form [
    {{:a, 1}, "a tuple has no form on the wire; use a list"},
    {[1 | 2], "an improper list has no form on the wire"},
    {<<1::3>>, "a bitstring has no form on the wire"},
    {<<0xFF>>, "text that is not valid UTF-8; wrap bytes in DSPex.Binary.new/1"},
    {<<0xED, 0xA0, 0x80>>, "text that is not valid UTF-8; wrap bytes in DSPex.Binary.new/1"},
    {%{1 => 2}, "a map's key is a string or an atom, not an integer"},
    {%{"a" => 1, 1 => 2}, "a map's key is a string or an atom, not an integer"},
    {%{:a => 1, {} => 2}, "a map's key is a string or an atom, not a tuple"},
    {%{<<0xFF>> => 1}, "text that is not valid UTF-8; wrap bytes in DSPex.Binary.new/1"},
    {%{:a => 1, "a" => 2}, "a map has the key a both as an atom and as a string"},
    {1..2, "a %Range{} struct has no form on the wire; convert it, for instance to a map"},
    {MapSet.new(),
     "a %MapSet{} struct has no form on the wire; convert it, for instance to a map"},
    {~U[0000-12-31 23:59:59Z], "a timestamp's year is from 1 to 9999"},
    {%{~U[2000-01-01 00:00:00Z] | year: -1}, "a timestamp's year is from 1 to 9999"},
    {%{~U[9999-12-31 23:59:59Z] | utc_offset: -3600}, "a timestamp's year is from 1 to 9999"},
    {%DSPex.Decimal{text: "ten"}, "a DSPex.Decimal whose text is no decimal number"},
    {%DSPex.Decimal{text: 10}, "a DSPex.Decimal whose text is no decimal number"},
    {%Tensor{dtype: :u8, shape: {2}, data: "abc"}, "a u8 tensor of shape {2} has 2 bytes, not 3"}
  ]

  test "text is looked at to its last byte" do
    for size <- 1..13, at <- 0..(size - 1) do
      text = String.duplicate("a", at) <> <<0xC3>> <> String.duplicate("a", size - at - 1)
      assert {^text, {:error, %{code: :encode_error}}} = {text, Codec.encode(text)}

      for bytes <- [<<0xA0 + size, text::binary>>, <<0x81, 0xA0 + size, text::binary, 1>>] do
        assert {^bytes, {:error, %{code: :parse_error}}} = {bytes, Codec.decode(bytes)}
      end

      text = String.duplicate("a", at) <> "é" <> String.duplicate("a", size - at - 1)
      assert Codec.encode(text) |> read() == text
    end
  end

  test "what has no form on the wire is refused, with the reason" do
    for {value, message} <- @no_form ++ [{self(), "a pid has no form on the wire"}] do
      assert {^value, {:error, error}} = {value, Codec.encode(value)}
      assert {value, error.code, error.message} == {value, :encode_error, message}
    end
  end

  test "a refusal says where the value stands and does not show it" do
    secret = {"sk-secret"}
    term = %{"lms" => %{main: %{fallbacks: ["a", secret]}}, other: [1, 2, 3]}
    assert {:error, error} = Codec.encode(term)
    assert error.message =~ "lms.main.fallbacks[1]: a tuple has no form"
    refute inspect(error) =~ "sk-secret"
  end

  test "random values come back as themselves" do
    Terms.seed()

    for _ <- 1..500 do
      value = Terms.random()
      assert {:ok, bytes} = Codec.encode(value)
      assert Codec.decode(bytes) === {:ok, value}
    end
  end

  test "random bytes are read or refused, never a crash" do
    Terms.seed()

    for _ <- 1..20_000 do
      bytes = :rand.bytes(:rand.uniform(40))
      assert {^bytes, {outcome, _}} = {bytes, Codec.decode(bytes)}
      assert outcome in [:ok, :error]
    end
  end

  test "samples with one byte changed are read or refused, never a crash" do
    Terms.seed()

    for {_value, bytes} <- @forms, byte_size(bytes) < 300, _ <- 1..100 do
      at = :rand.uniform(byte_size(bytes)) - 1
      <<before::binary-size(at), _byte, rest::binary>> = bytes
      changed = <<before::binary, :rand.uniform(256) - 1, rest::binary>>
      assert {^changed, {outcome, _}} = {changed, Codec.decode(changed)}
      assert outcome in [:ok, :error]
    end
  end

  describe "memory" do
    test "a short text out of a long frame does not keep the frame alive" do
      short = for size <- [1, 64, 65, 1000], do: String.duplicate("s", size)
      long = String.duplicate("x", 100_000)
      keys = Map.new(short, &{&1, Binary.new(&1)})
      {:ok, bytes} = Codec.encode([short, keys, long])
      {:ok, [copies, keys, long]} = Codec.decode(bytes)
      # Not by a pin: what is equal to `short` could then be taken from there.
      assert copies == short

      for text <- copies ++ Map.keys(keys) ++ Enum.map(Map.values(keys), & &1.data),
          # OTP 27 tells small binaries in bits.
          do: assert(:binary.referenced_byte_size(text) <= 8 * byte_size(text))

      # The long one is most of the frame: copying it would double it.
      assert :binary.referenced_byte_size(long) == byte_size(bytes)
    end

    test "a frame cut out of a longer chunk does not keep the chunk alive" do
      text = String.duplicate("s", 100)
      {:ok, bytes} = Codec.encode([text])
      chunk = bytes <> :binary.copy(<<0>>, 100_000)
      {:ok, [copy]} = chunk |> binary_part(0, byte_size(bytes)) |> Codec.decode()
      assert copy == text
      assert :binary.referenced_byte_size(copy) == 100
    end
  end

  defp arrays(depth, inner \\ <<1>>), do: String.duplicate(<<0x91>>, depth) <> inner
  defp maps(depth), do: String.duplicate(<<0x81, 0xA1, ?a>>, depth) <> <<1>>

  defp binaries([head | tail]), do: binaries(head) ++ binaries(tail)
  defp binaries(part), do: if(is_binary(part), do: [part], else: [])

  defp read({:ok, bytes}) do
    {:ok, value} = Codec.decode(bytes)
    value
  end
end
