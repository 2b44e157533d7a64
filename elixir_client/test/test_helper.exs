# A skipped test says nothing and looks like a passed one.
ExUnit.after_suite(fn %{skipped: skipped} ->
  if skipped > 0 do
    IO.puts(:stderr, "#{skipped} skipped tests: a test either runs or goes")
    System.at_exit(fn _status -> exit({:shutdown, 1}) end)
  end
end)

# What is to come does, however busy the machine is; what is not to come is waited for as briefly as ever.
ExUnit.start(assert_receive_timeout: DSPex.Test.Scripted.patience_ms())
