defmodule DSPex.OptionsTest do
  use ExUnit.Case, async: true

  alias DSPex.Options

  test "a wrong name is told the likeliest of the valid ones, one that is no text is told none" do
    assert Options.did_you_mean("paylod", [:payload, :timeout]) == " (did you mean :payload?)"
    assert Options.did_you_mean("else", [:payload, :timeout]) == ""
    assert Options.did_you_mean(<<255>>, [:payload, :timeout]) == ""
  end
end
