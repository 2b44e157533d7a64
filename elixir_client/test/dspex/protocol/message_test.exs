defmodule DSPex.Protocol.MessageTest do
  use ExUnit.Case, async: true

  @moduletag :protocol

  alias DSPex.Error
  alias DSPex.Protocol.{Codec, Message}

  doctest DSPex.Protocol.Message
  doctest DSPex.Error

  defp encode!(term) do
    {:ok, bytes} = Codec.encode(term)
    bytes
  end

  test "what request/2, notification/1 and error_response/2 write is read back" do
    {:ok, body} = Message.body("execute", %{program: "qa", inputs: %{n: 1}})
    params = %{"program" => "qa", "inputs" => %{"n" => 1}}

    for id <- [0, 1, 127, 128, 255, 256, 65_536, 0x1_0000_0000, 0x7FFF_FFFF_FFFF_FFFF] do
      frame = IO.iodata_to_binary(Message.request(id, body))
      assert Message.parse(frame) == {:ok, {:request, id, "execute", params}}
      assert Message.peek(frame) == {:request, id, "execute"}
    end

    frame = IO.iodata_to_binary(Message.notification(body))
    assert Message.parse(frame) == {:ok, {:notification, "execute", params}}
    assert Message.peek(frame) == {:notification, "execute", nil}

    error = Error.new(:method_not_found, "no such method", data: %{"method" => "x"})
    frame = Message.error_response(9, error)
    assert Message.parse(frame) == {:ok, {:response, 9, {:error, error}}}
    assert Message.peek(frame) == {:response, 9, :error}
  end

  test "a body's nesting is counted from inside its message" do
    nested = fn depth -> Enum.reduce(2..depth, %{}, fn _, inner -> %{a: inner} end) end
    assert {:ok, body} = Message.body("m", nested.(1023))
    assert {:ok, _message} = Message.parse(IO.iodata_to_binary(Message.request(1, body)))
    assert {:error, %{code: :encode_error}} = Message.body("m", nested.(1024))
  end

  test "an error with a code that is not known becomes internal_error" do
    wire = %{code: "quantum_flux", message: "?", retryable: true, data: %{}}
    frame = encode!([1, 3, wire, nil])
    assert {:ok, {:response, 3, {:error, error}}} = Message.parse(frame)
    assert {error.code, error.message, error.retryable} == {:internal_error, "?", true}
  end

  test "an error may have the id nil" do
    wire = %{code: "parse_error", message: "bad frame", retryable: false, data: %{}}
    frame = encode!([1, nil, wire, nil])
    assert {:ok, {:response, nil, {:error, %{code: :parse_error}}}} = Message.parse(frame)
    assert Message.peek(frame) == {:response, nil, :error}
  end

  @wire_error %{"code" => "timeout", "message" => "late", "retryable" => true, "data" => %{}}

  test "a value that is no message is refused, with the id where there is one" do
    for {value, id} <- [
          {nil, nil},
          {42, nil},
          {%{}, nil},
          {[], nil},
          {[0], nil},
          {[0, 5, "m"], 5},
          {[0, 5, "m", %{}, nil], 5},
          {[0, 5, "m", nil], 5},
          {[0, 5, "m", []], 5},
          {[0, 5, 6, %{}], 5},
          {[0, -1, "m", %{}], nil},
          {[0, 0x8000_0000_0000_0000, "m", %{}], nil},
          {[0, "5", "m", %{}], nil},
          {[0, 5.0, "m", %{}], nil},
          {[3, 5, "m", %{}], nil},
          {[1, 5, "not a map", nil], 5},
          {[1, 5, %{"code" => 1, "message" => "m"}, nil], 5},
          {[1, 5, %{"code" => "timeout"}, nil], 5},
          {[1, 5, %{@wire_error | "retryable" => "yes"}, nil], 5},
          {[1, 5, %{@wire_error | "data" => []}, nil], 5},
          {[1, nil, nil, "result"], nil},
          {[1, -5, nil, "result"], nil},
          {[2, "m"], nil},
          {[2, 5, %{}], nil},
          {[2, "m", []], nil}
        ] do
      assert {:error, %Error{code: :invalid_request}, found} = Message.parse(encode!(value))
      assert {value, found} == {value, id}
    end
  end

  test "the id of a frame that cannot be read is recovered from its first bytes" do
    request = encode!([0, 300, "ping", %{}])
    response = encode!([1, 70_000, nil, %{}])

    for {frame, id} <- [
          {binary_part(request, 0, byte_size(request) - 1), 300},
          {request <> <<0>>, 300},
          {binary_part(request, 0, 5), 300},
          {binary_part(request, 0, 4), nil},
          {<<0x94, 0, 5, 0xC1>>, 5},
          {<<0x94, 0xCC, 0, 0xD3, 5::64, 0xC1>>, 5},
          {<<0xDC, 4::16, 0, 5, 0xC1>>, 5},
          {<<0xDD, 4::32, 0xD0, 0, 0xCD, 5::16, 0xC1>>, 5},
          {<<0x94, 0, 0xD0, -5, 0xC1>>, nil},
          {<<0x94, 0, 0xCF, -5::64, 0xC1>>, nil},
          {<<0x94, 0, 0xA1, ?5, 0xC1>>, nil},
          {response <> <<0>>, 70_000},
          {<<0x93, 2, 0xC1>>, nil},
          {<<0xC1>>, nil},
          {<<>>, nil}
        ] do
      assert {:error, %Error{code: :parse_error}, found} = Message.parse(frame)
      assert {frame, found} == {frame, id}
    end
  end

  test "the text of an error lists every value that does not fit, and says what to do" do
    errors = [
      %{
        "path" => ["inputs", "score"],
        "type" => "float_type",
        "message" => "expected float, got \"high\"",
        "expected" => "float",
        "got" => "high"
      },
      %{"path" => ["inputs", "tags", 3], "message" => "too long"}
    ]

    error = Error.new(:input_validation, "2 inputs do not fit", data: %{"errors" => errors})

    assert Exception.message(error) == """
           input_validation: 2 values do not fit the signature
             - inputs.score: expected float, got "high"
             - inputs.tags.3: too long\
           """

    assert Exception.message(Error.new(:lm_error, "401", data: %{"kind" => "auth"})) ==
             "lm_error: 401\nCheck the key of this LM: `api_key:` in `lms:`, or the provider's " <>
               "environment variable."

    assert Exception.message(Error.new(:already_exists, "program \"qa\" exists")) ==
             "already_exists: program \"qa\" exists\nPass `replace: true` to replace it."
  end

  test "what the bridge says in its own words has the advice in Elixir's" do
    for {code, data, advice} <- [
          {:not_found, %{"kind" => "lm"}, ~s(`lms: [main: "openai/gpt-5-mini"]`)},
          {:not_found, %{"kind" => "lm", "name" => "openai/gpt-5"},
           ~s(`lm: [model: "openai/gpt-5"]`)},
          {:not_found, %{"kind" => "lm", "name" => "fast"}, "in its `lms:`"},
          {:connection_lost, %{}, "`retry: 1`"},
          {:connection_lost, %{"method" => "execute"}, "`retry: 1`"},
          {:connection_lost, %{"method" => "optimize"}, "`checkpoint:`"}
        ] do
      assert Exception.message(Error.new(code, "m", data: data)) =~ advice
    end

    # There is no such option of `DSPex.optimize/4`.
    lost = Error.new(:connection_lost, "m", data: %{"method" => "optimize"})
    refute Exception.message(lost) =~ "retry:"

    # It may simply be made again.
    again = Error.new(:connection_lost, "m", retryable: true)
    assert Exception.message(again) == "connection_lost: m"
  end

  test "an error that the bridge made badly still has a text" do
    for data <- [
          %{"errors" => "no list"},
          %{"kind" => "rate_limit", "retry_after_ms" => "soon"}
        ] do
      error = Error.new(:input_validation, "m", data: data)
      assert Exception.message(error) == "input_validation: m"
    end

    data = %{"errors" => [1, %{}, %{"path" => 5, "message" => %{"a" => 1}}]}

    assert Exception.message(Error.new(:input_validation, "m", data: data)) == """
           input_validation: 2 values do not fit the signature
             - is wrong
             - 5: %{"a" => 1}\
           """
  end
end
