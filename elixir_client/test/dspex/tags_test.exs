defmodule DSPex.TagsTest do
  # `mix test.fast` and `mix test.protocol` choose tests by their tags. Not async: by then every file of
  # the run has been loaded.
  use ExUnit.Case, async: false

  @integration Path.expand("../integration", __DIR__)

  defp tests do
    for {module, _file} <- :code.all_loaded(),
        function_exported?(module, :__ex_unit__, 0),
        test <- module.__ex_unit__().tests,
        do: test
  end

  test "every test that needs the bridge is tagged so, and no other" do
    tests = tests()
    assert Enum.any?(tests, &(&1.module == __MODULE__))

    for test <- tests do
      needs_bridge = Path.dirname(test.tags.file) == @integration

      # The tests of a shared suite are of the file that it is in, and their module's name says whose.
      needs_bridge = needs_bridge or inspect(test.module) =~ ~r/^DSPex\.Integration\./

      assert Map.get(test.tags, :integration, false) == needs_bridge,
             "#{inspect(test.module)}: #{test.name}"
    end
  end
end
