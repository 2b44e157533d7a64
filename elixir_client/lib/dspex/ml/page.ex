defmodule DSPex.ML.Page do
  @moduledoc """
  A part of a list.

    * `:entries` - the resources.
    * `:total` - how many fit the filter, on all pages.
    * `:next` - what `:after` takes to give the page behind it; `nil` where there is none.
  """

  @type t(resource) :: %__MODULE__{
          entries: [resource],
          total: non_neg_integer(),
          next: String.t() | nil
        }

  @type t :: t(term())

  @enforce_keys [:entries, :total, :next]
  defstruct @enforce_keys
end
