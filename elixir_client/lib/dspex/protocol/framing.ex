defmodule DSPex.Protocol.Framing do
  @moduledoc """
  Frames: an unsigned 32-bit big-endian length, then that many bytes.

  A port opened with `{:packet, 4}` would do this too, but it has no limit: four stray bytes on
  Python's stdout are a length of a gigabyte or more, and the BEAM reserves it. So the port is
  opened with `:stream`, and this decoder is fed what comes. It holds no more than one frame of the
  limit, skips a longer one without keeping it, and takes time linear in the bytes however they are
  cut.

      iex> alias DSPex.Protocol.Framing
      iex> {events, decoder} = Framing.feed(Framing.new(100), <<0, 0, 0, 2, "hi", 0, 0>>)
      iex> events
      [frame: "hi"]
      iex> {events, _decoder} = Framing.feed(decoder, <<0, 1, "!">>)
      iex> events
      [frame: "!"]
  """

  # Enough of a frame that was skipped to read its message's kind and id.
  @head_bytes 64

  # Up to this size the BEAM copies a binary into a message, else it counts who has the bytes that it
  # was cut from: for short frames, of which thousands come in one piece, that costs more.
  @copied_bytes 64

  # Small pieces of a frame are joined when there are this many: a peer that writes one byte at a
  # time would otherwise cost 40 bytes for each.
  @max_pieces 1024

  @enforce_keys [:limit]
  defstruct [:limit, state: {:length, <<>>}]

  @opaque t :: %__MODULE__{limit: pos_integer(), state: tuple()}

  @typedoc """
    * `{:frame, bytes}` - a whole frame.
    * `{:too_large, size, head}` - a frame over the limit, which is being skipped. `head` has its
      first bytes: 64, or fewer where those already cannot be a message.
  """
  @type event :: {:frame, binary()} | {:too_large, pos_integer(), binary()}

  @doc "A decoder of frames of at most `limit` bytes."
  @spec new(pos_integer()) :: t()
  def new(limit) when is_integer(limit) and limit > 0, do: %__MODULE__{limit: limit}

  @doc "Takes the bytes that came next; gives what they complete, in order."
  @spec feed(t(), binary()) :: {[event()], t()}
  def feed(%__MODULE__{} = decoder, bytes) when is_binary(bytes) do
    {events, state} = step(decoder.state, bytes, decoder.limit, [])
    {Enum.reverse(events), %{decoder | state: state}}
  end

  @doc "The four bytes that go before a frame of `size` bytes."
  @spec prefix(non_neg_integer()) :: binary()
  def prefix(size) when size in 0..0xFFFF_FFFF, do: <<size::32>>

  # The states:
  #   {:length, start}                         up to three bytes of a length
  #   {:frame, missing, pieces, count, blocks} a frame; pieces and blocks last first
  #   {:head, size, head}                      a frame over the limit, its head not yet told
  #   {:skip, missing}                         the rest of it

  defp step({:length, <<>>}, <<size::32, rest::binary>>, limit, events),
    do: body(size, rest, limit, events)

  defp step({:length, start}, bytes, limit, events) do
    case start <> bytes do
      <<size::32, rest::binary>> -> body(size, rest, limit, events)
      start -> {events, {:length, start}}
    end
  end

  defp step({:frame, missing, pieces, count, blocks}, bytes, limit, events) do
    case bytes do
      <<last::binary-size(missing), rest::binary>> ->
        frame = IO.iodata_to_binary([Enum.reverse(blocks), Enum.reverse(pieces), last])
        step({:length, <<>>}, rest, limit, [{:frame, frame} | events])

      _part when count == @max_pieces ->
        block = IO.iodata_to_binary([Enum.reverse(pieces), bytes])
        {events, {:frame, missing - byte_size(bytes), [], 0, [block | blocks]}}

      _part ->
        {events, {:frame, missing - byte_size(bytes), [bytes | pieces], count + 1, blocks}}
    end
  end

  defp step({:head, size, head}, bytes, limit, events) do
    wanted = min(@head_bytes, size) - byte_size(head)
    more = binary_part(bytes, 0, min(wanted, byte_size(bytes)))
    rest = binary_part(bytes, byte_size(more), byte_size(bytes) - byte_size(more))
    head = head <> more

    if byte_size(more) == wanted or not message?(head),
      do: step({:skip, size - byte_size(head)}, rest, limit, [{:too_large, size, head} | events]),
      else: {events, {:head, size, head}}
  end

  defp step({:skip, missing}, bytes, limit, events) do
    case bytes do
      <<_end::binary-size(missing), rest::binary>> -> step({:length, <<>>}, rest, limit, events)
      _part -> {events, {:skip, missing - byte_size(bytes)}}
    end
  end

  defp body(size, bytes, limit, events) when size <= limit do
    case bytes do
      <<frame::binary-size(size), rest::binary>> ->
        frame = if size <= @copied_bytes, do: :binary.copy(frame), else: frame
        step({:length, <<>>}, rest, limit, [{:frame, frame} | events])

      _part ->
        {events, {:frame, size - byte_size(bytes), [bytes], 1, []}}
    end
  end

  defp body(size, bytes, limit, events), do: step({:head, size, <<>>}, bytes, limit, events)

  # A message is an array. What begins otherwise is told at once: more of it may never come.
  defp message?(<<byte, _rest::binary>>), do: byte in 0x90..0x9F or byte in 0xDC..0xDD
  defp message?(<<>>), do: true
end
