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

  # NumPy's limits, so that every tensor can become an array in Python.
  @max_dimensions 64
  @max_bytes 0x7FFF_FFFF_FFFF_FFFF

  @type dtype ::
          :f16 | :f32 | :f64 | :i8 | :i16 | :i32 | :i64 | :u8 | :u16 | :u32 | :u64 | :bool

  @type t :: %__MODULE__{dtype: dtype(), shape: tuple(), data: binary()}

  @enforce_keys [:dtype, :shape, :data]
  defstruct [:dtype, :shape, :data]

  @doc """
  Makes a tensor, or says what does not fit. `shape` is a tuple of at most #{@max_dimensions}
  dimensions, `{}` for a scalar; those other than 0 multiply to less than 2^63 bytes, as NumPy wants
  it. An element of `:bool` is the byte 0 or 1.

      iex> DSPex.Tensor.new(:f32, {2}, <<1.0::float-little-32, 2.0::float-little-32>>)
      {:ok, %DSPex.Tensor{dtype: :f32, shape: {2}, data: <<0, 0, 128, 63, 0, 0, 0, 64>>}}

      iex> DSPex.Tensor.new(:u8, {2, 3}, "abc")
      {:error, "a u8 tensor of shape {2, 3} has 6 bytes, not 3"}
  """
  @spec new(dtype(), tuple(), binary()) :: {:ok, t()} | {:error, String.t()}
  def new(dtype, shape, data) when dtype in @dtypes and is_tuple(shape) and is_binary(data) do
    with dimensions = Tuple.to_list(shape),
         :ok <- check_dimensions(shape, dimensions),
         bytes when is_integer(bytes) <- bytes(dimensions, dimensions, size(dtype)),
         :ok <- check_data(dtype, shape, data, bytes),
         do: {:ok, %__MODULE__{dtype: dtype, shape: shape, data: data}}
  end

  def new(dtype, shape, data) when is_tuple(shape) and is_binary(data) do
    {:error, "a tensor's dtype is one of #{Enum.join(@dtypes, ", ")}, got #{inspect(dtype)}"}
  end

  def new(_dtype, _shape, _data) do
    {:error, "a tensor has a dtype, a tuple of dimensions and its bytes"}
  end

  for {dtype, size} <- @sizes, do: defp(size(unquote(dtype)), do: unquote(size))

  defp check_dimensions(shape, _dimensions) when tuple_size(shape) > @max_dimensions,
    do: {:error, "a tensor has at most #{@max_dimensions} dimensions, not #{tuple_size(shape)}"}

  defp check_dimensions(_shape, []), do: :ok

  defp check_dimensions(shape, [dimension | rest]) when is_integer(dimension) and dimension >= 0,
    do: check_dimensions(shape, rest)

  defp check_dimensions(shape, _dimensions),
    do: {:error, "a tensor's dimensions are integers from 0, got #{inspect(shape, limit: 8)}"}

  # A dimension of 0 makes the tensor empty, but NumPy counts the others all the same. Each step is
  # compared, so that no product of hostile dimensions is ever made.
  defp bytes(_rest, _dimensions, bytes) when bytes > @max_bytes,
    do: {:error, "a tensor's dimensions multiply to 2^63 bytes or more"}

  defp bytes([dimension | rest], dimensions, bytes),
    do: bytes(rest, dimensions, bytes * max(dimension, 1))

  defp bytes([], dimensions, bytes), do: if(0 in dimensions, do: 0, else: bytes)

  defp check_data(dtype, shape, data, bytes) when byte_size(data) != bytes do
    {:error,
     "a #{dtype} tensor of shape #{inspect(shape, limit: 8)} has #{bytes} bytes, " <>
       "not #{byte_size(data)}"}
  end

  defp check_data(:bool, _shape, data, _bytes) do
    if bools?(data), do: :ok, else: {:error, "the bytes of a bool tensor are 0 or 1"}
  end

  defp check_data(_dtype, _shape, _data, _bytes), do: :ok

  defp bools?(<<byte, rest::binary>>) when byte <= 1, do: bools?(rest)
  defp bools?(rest), do: rest == <<>>
end
