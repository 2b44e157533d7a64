defmodule DSPex.Protocol.Codec.Utf8 do
  @moduledoc false
  # Whether bytes are UTF-8. Nearly all text is ASCII, which is told several times faster.

  @spec valid?(binary()) :: boolean()
  def valid?(text), do: ascii?(text) or is_binary(:unicode.characters_to_binary(text, :utf8))

  # In native code where it works. OTP 27's says no of every text, and there a loop is faster than
  # that and than going on.
  if :unicode.bin_is_7bit("a") do
    defp ascii?(text), do: :unicode.bin_is_7bit(text)
  else
    defp ascii?(<<four::32, rest::bits>>) when Bitwise.band(four, 0x8080_8080) == 0,
      do: ascii?(rest)

    defp ascii?(<<three::24>>) when Bitwise.band(three, 0x80_8080) == 0, do: true
    defp ascii?(<<two::16>>) when Bitwise.band(two, 0x8080) == 0, do: true
    defp ascii?(<<one>>) when one < 0x80, do: true
    defp ascii?(<<>>), do: true
    defp ascii?(_other), do: false
  end
end
