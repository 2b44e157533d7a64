# A skipped test says nothing and looks like a passed one.
ExUnit.after_suite(fn %{skipped: skipped} ->
  if skipped > 0 do
    IO.puts(:stderr, "#{skipped} skipped tests: a test either runs or goes")
    System.at_exit(fn _status -> exit({:shutdown, 1}) end)
  end
end)

ExUnit.start()
