defmodule DSPex.Error.Codes do
  @moduledoc false
  # The closed table of error codes. Wire text is looked up here and never made into an atom.

  @wire [
    parse_error: "a frame was not one whole MessagePack value",
    invalid_request: "a frame was a value but no message",
    frame_too_large: "a message was longer than one side accepts; `data` has `size` and `limit`",
    method_not_found: "the bridge has no such method",
    invalid_params: "a parameter is unknown, missing or of the wrong type; the message names it",
    unsupported_version: "the bridge speaks another version of the protocol",
    not_found: "there is no such program, LM, tool or file (`data.kind`)",
    already_exists: "the program's id is in use",
    signature_error: "the signature or one of its types cannot be used",
    input_validation: "inputs do not fit the signature; `data.errors` lists every one",
    output_validation: "the LM's outputs do not fit the signature; `data.errors` lists every one",
    lm_error: "the LM failed; `data.kind` says how, `data.tried` which LMs failed before it",
    budget_exceeded:
      "a limit of cost, tokens or calls was reached; `data` has its `scope` (and `name`), " <>
        "`limit`, `allowed` and `spent`",
    tool_error: "a tool failed",
    metric_error: "a metric failed",
    optimizer_error: "an optimizer failed",
    timeout: "the deadline passed",
    cancelled: "the request was cancelled",
    overloaded: "too much is in flight or queued; nothing was done",
    shutting_down: "the bridge is stopping",
    unavailable: "an optional dependency is missing; the message names the install command",
    internal_error: "a defect of the bridge, or a code that this client does not know"
  ]

  @local [
    not_started: "no DSPex instance of that name is running",
    start_failed:
      "Python could not be started or made ready; the message says why, `retryable` whether that may pass",
    connection_lost:
      "Python, or a server, ended before it answered; `retryable` says whether a retry is safe",
    journal_error: "the journal's file is damaged, or cannot be read or written",
    encode_error: "a value has no form on the wire; the message says where it stands"
  ]

  # Of `dspex serve`, beside those of the bridges behind it.
  @server [
    wrong_state: "a resource cannot go from the state that it is in to the one asked for",
    unauthorized: "the server wants a token, which was not shown or is another",
    forbidden: "the server answers no pages of other sites",
    interrupted: "the server that ran an execution ended before it did",
    database_unavailable: "the server's database cannot be reached; a write may be there"
  ]

  @atoms Keyword.keys(@wire) ++ Keyword.keys(@server) ++ Keyword.keys(@local)

  # Local codes are no wire codes: what a bridge calls "not_started" is unknown here.
  @by_text Map.new(@wire ++ @server, fn {code, _text} -> {Atom.to_string(code), code} end)

  @spec wire() :: keyword(String.t())
  def wire, do: @wire

  @spec server() :: keyword(String.t())
  def server, do: @server

  @spec local() :: keyword(String.t())
  def local, do: @local

  @spec atoms() :: [atom(), ...]
  def atoms, do: @atoms

  @spec from_wire(String.t()) :: atom()
  def from_wire(text), do: Map.get(@by_text, text, :internal_error)
end
