defmodule DSPex.Server.AddressTest do
  # Not async: it gives names to the whole node.
  use ExUnit.Case, async: false

  alias DSPex.Server.Address

  @loopback {0, 0, 0, 0, 0, 0, 0, 1}
  @listen [:inet6, ip: @loopback, active: false]

  # A machine may have no IPv6 at all.
  case :gen_tcp.listen(0, @listen) do
    {:ok, listener} -> :gen_tcp.close(listener)
    {:error, reason} -> @tag skip: "no IPv6 here: #{reason}"
  end

  test "a name is of a server that listens on IPv6 alone, too" do
    lookup = :inet_db.res_option(:lookup)
    :ok = :inet_db.set_lookup([:file])
    :ok = :inet_db.add_host(@loopback, [~c"six.dspex.test"])

    on_exit(fn ->
      :ok = :inet_db.del_host(@loopback)
      :ok = :inet_db.set_lookup(lookup)
    end)

    {:ok, listener} = :gen_tcp.listen(0, @listen)
    {:ok, port} = :inet.port(listener)
    {:ok, address} = Address.new("http://six.dspex.test:#{port}")
    assert {:ok, _socket} = Address.connect(address, [], fn -> 30_000 end)
    :gen_tcp.close(listener)
    assert {:error, :econnrefused} = Address.connect(address, [], fn -> 30_000 end)
  end

  test "an error says that no server runs there where that is so, and else what is" do
    for {reason, runs?} <- [
          econnrefused: true,
          emfile: false,
          nxdomain: false,
          enetunreach: false
        ] do
      {:ok, address} = Address.new("http://[::1]:9")
      error = Address.unreachable(address, reason)
      assert error.message =~ "[::1]:9: #{:inet.format_error(reason)}"
      assert {reason, error.message =~ "dspex serve"} == {reason, runs?}
    end
  end
end
