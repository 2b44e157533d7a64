defmodule DSPex.Tensor do
  @moduledoc """
  An array of numbers of one type: a shape, and its bytes in row-major, little-endian order.

  `dtype` and `shape` are Nx's own forms, so that `Nx.from_binary(t.data, t.dtype) |>
  Nx.reshape(t.shape)` makes an Nx tensor of it (but for `:bool`, a byte an element, which Nx calls
  `:u8`). In Python it is a NumPy array.
  """

  @sizes [
    f16: 2,
    f32: 4,
    f64: 8,
    i8: 1,
    i16: 2,
    i32: 4,
    i64: 8,
    u8: 1,
    u16: 2,
    u32: 4,
    u64: 8,
    bool: 1
  ]
  @dtypes Keyword.keys(@sizes)

  @type dtype ::
          :f16 | :f32 | :f64 | :i8 | :i16 | :i32 | :i64 | :u8 | :u16 | :u32 | :u64 | :bool

  @type t :: %__MODULE__{dtype: dtype(), shape: tuple(), data: binary()}

  @enforce_keys [:dtype, :shape, :data]
  defstruct [:dtype, :shape, :data]

  @doc """
  Makes a tensor, or says what does not fit. `shape` is a tuple of dimensions, `{}` for a scalar.

      iex> DSPex.Tensor.new(:f32, {2}, <<1.0::float-little-32, 2.0::float-little-32>>)
      {:ok, %DSPex.Tensor{dtype: :f32, shape: {2}, data: <<0, 0, 128, 63, 0, 0, 0, 64>>}}

      iex> DSPex.Tensor.new(:u8, {2, 3}, "abc")
      {:error, "a u8 tensor of shape {2, 3} has 6 bytes, not 3"}
  """
  @spec new(dtype(), tuple(), binary()) :: {:ok, t()} | {:error, String.t()}
  def new(dtype, shape, data) when dtype in @dtypes and is_tuple(shape) and is_binary(data) do
    dimensions = Tuple.to_list(shape)

    if Enum.all?(dimensions, &(is_integer(&1) and &1 >= 0)) do
      size = @sizes[dtype]

      # Dividing the bytes up, not multiplying the dimensions: hostile ones would make a huge
      # number of their product.
      if fits?(dimensions, byte_size(data), size) do
        {:ok, %__MODULE__{dtype: dtype, shape: shape, data: data}}
      else
        {:error, wrong_size(dtype, shape, dimensions, size, byte_size(data))}
      end
    else
      {:error, "a tensor's dimensions are integers from 0, got #{inspect(shape, limit: 8)}"}
    end
  end

  def new(dtype, shape, data) when is_tuple(shape) and is_binary(data) do
    {:error, "a tensor's dtype is one of #{Enum.join(@dtypes, ", ")}, got #{inspect(dtype)}"}
  end

  def new(_dtype, _shape, _data) do
    {:error, "a tensor has a dtype, a tuple of dimensions and its bytes"}
  end

  defp fits?(dimensions, bytes, size) do
    if 0 in dimensions do
      bytes == 0
    else
      rem(bytes, size) == 0 and divide(dimensions, div(bytes, size)) == 1
    end
  end

  defp divide([], left), do: left

  defp divide([dimension | rest], left) when rem(left, dimension) == 0 and left > 0,
    do: divide(rest, div(left, dimension))

  defp divide(_dimensions, _left), do: 0

  defp wrong_size(dtype, shape, dimensions, size, got) do
    # The product of a few small dimensions is worth telling.
    if length(dimensions) <= 8 and Enum.all?(dimensions, &(&1 < 1_000_000)) do
      expected = Enum.product(dimensions) * size
      "a #{dtype} tensor of shape #{inspect(shape)} has #{expected} bytes, not #{got}"
    else
      "a #{dtype} tensor of shape #{inspect(shape, limit: 8)} does not have #{got} bytes"
    end
  end
end
