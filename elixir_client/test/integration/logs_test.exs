defmodule DSPex.Integration.LogsTest do
  # What a real Python prints and logs while it runs a program: the bridge's own, with an LM that talks.
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias DSPex.Test.{Bridge, Peer}

  require Logger

  @moduletag :integration
  @moduletag timeout: 120_000

  @talking Path.expand("../../../integration/talking_bridge.py", __DIR__)

  test "comes to Logger with its request, its logger, and the metadata of the call" do
    log =
      capture_log(
        [
          metadata: [:request_id, :dspex_request, :dspex_server, :dspex_logger],
          format: "$level $metadata$message\n"
        ],
        fn ->
          name =
            Bridge.start(
              command: [Peer.python(), @talking],
              log_level: :info,
              lms: [m: "demo/knn"]
            )

          send(self(), {:instance, inspect(name)})

          for word <- ["first", "second"] do
            Logger.metadata(request_id: "phoenix-#{word}")
            assert {:ok, _prediction} = DSPex.call(name, "word -> answer", word: word)
          end
        end
      )

    assert_received {:instance, name}

    [first, second] =
      for word <- ["first", "second"] do
        about = "request_id=phoenix-#{word} dspex_request=(\\d+) dspex_server=#{name}"
        said = ~r/^info #{about} dspex_logger=stdout Python \(pid \d+\): printed #{word}$/m
        assert [_line, request] = Regex.run(said, log)

        assert log =~
                 ~r/^warn(ing)? #{about} dspex_logger=talker Python \(pid \d+\): logged #{word}$/m

        request
      end

    assert first != second
  end
end
