# Reads every frame on stdin into a term and writes the term back: what integration/agreement.py
# compares the two codecs with. A frame that is refused comes back as the byte C1.
port = Port.open({:fd, 0, 1}, [:binary, :eof, packet: 4])

echo = fn echo ->
  receive do
    {^port, {:data, frame}} ->
      answer =
        with {:ok, term} <- DSPex.Protocol.Codec.decode(frame),
             {:ok, iodata} <- DSPex.Protocol.Codec.encode_to_iodata(term) do
          iodata
        else
          {:error, _error} -> <<0xC1>>
        end

      Port.command(port, answer)
      echo.(echo)

    {^port, :eof} ->
      :ok
  end
end

echo.(echo)
