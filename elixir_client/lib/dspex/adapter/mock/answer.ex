defmodule DSPex.Adapter.Mock.Answer do
  @moduledoc false
  # What an execution may be scripted to be answered with.

  alias DSPex.{Error, Options}
  alias DSPex.Error.Codes

  @doc "Whether it can be one; an error that says why not."
  @spec check(term()) :: :ok | {:error, String.t()}
  def check(answer) when is_map(answer) and not is_struct(answer), do: :ok
  def check(:hang), do: :ok
  def check({:error, %Error{}}), do: :ok
  def check(answer) when is_function(answer, 1) or is_function(answer, 2), do: :ok

  def check({:error, code} = answer) do
    if code in Codes.atoms(),
      do: :ok,
      else: wrong(answer, ", which is no code#{Options.did_you_mean(code, Codes.atoms())}")
  end

  def check(answer), do: if(Keyword.keyword?(answer), do: :ok, else: wrong(answer, ""))

  defp wrong(answer, why) do
    {:error,
     "a scripted answer is outputs (a map or keyword list), {:error, code}, :hang or a function, " <>
       "not #{inspect(answer, limit: 5)}#{why}"}
  end
end
