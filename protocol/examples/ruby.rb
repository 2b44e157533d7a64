# A client of the bridge in Ruby, one request at a time: requests, a stream, an error, the end.
#     ruby ruby.rb [COMMAND ...]      COMMAND starts a bridge: `dspex bridge` by default
require "msgpack"

class BridgeError < StandardError
  attr_reader :details # {"code", "message", "retryable", "data"}
  def initialize(details)
    super(details["message"])
    @details = details
  end
end

class Bridge
  def initialize(command)
    @pipe = IO.popen(command, "r+b")
    @last_id = 0
  end

  # The result of a request; the notifications about it are yielded as they come.
  def request(method, params = {})
    id = @last_id += 1
    write([0, id, method, params])
    loop do
      case read
      in [1, ^id, nil, result] then return result
      in [1, ^id | nil, error, _] then raise BridgeError.new(error) # nil: a frame it cannot read
      in [2, name, about] then yield name, about if block_given? && about["id"] == id
      end # [0, …] would be a call of a tool or metric: we have offered none
    end
  end

  def write(message)
    payload = MessagePack.pack(message)
    @pipe.write([payload.bytesize].pack("N"), payload)
  rescue Errno::EPIPE
    nil # the bridge is gone: `read` tells how
  end

  # The exit status of the bridge, once it has ended.
  def close
    @pipe.close
    $?.exitstatus
  end

  private

  def read
    length = @pipe.read(4) or raise EOFError, "the bridge exited: status #{close}"
    MessagePack.unpack(@pipe.read(length.unpack1("N")))
  end
end

bridge = Bridge.new(ARGV.empty? ? %w[dspex bridge] : ARGV)
greeting = bridge.request("initialize", { protocol_version: 1 })
puts "connected: protocol #{greeting["protocol_version"]}"
bridge.request("configure", { lms: { main: { model: "demo/knn" } } })
bridge.request("create", { program: "triage", signature: "letter -> summary, urgent: bool" })

letter = "The database has been down since nine and nobody can log in. It is urgent."
outputs = bridge.request("execute", { program: "triage", inputs: { letter: } })["outputs"]
puts "answer: #{outputs["summary"]} (urgent: #{outputs["urgent"]})"

text, attempt = "", 0
stream = { fields: ["summary"], window: 1 } # each chunk has to be granted
bridge.request("execute", { program: "triage", inputs: { letter: }, stream: }) do |_, chunk|
  text = chunk["attempt"] == attempt ? text + chunk["text"] : chunk["text"] # a retry begins again
  attempt = chunk["attempt"]
  bridge.write([2, "grant", { id: chunk["id"], n: 1 }])
end
puts "streamed: #{text}"

begin
  bridge.request("execute", { program: "triage", inputs: { leter: "Hello" } })
rescue BridgeError => error
  puts "error: #{error.details["code"]}, #{error.details["retryable"] ? "worth a retry" : "final"}"
  error.details["data"]["errors"].each { |e| puts "  #{e["path"].join(".")}: #{e["message"]}" }
end
bridge.request("shutdown")
puts "ended: status #{bridge.close}"
