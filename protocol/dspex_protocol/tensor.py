"""Tensors on the wire: a dtype, a shape and little-endian bytes."""

from __future__ import annotations

from math import prod

__all__ = ["DTYPES", "MAX_DIMENSIONS", "Tensor"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Wire name -> (bytes an element, NumPy's name).
DTYPES: dict[str, tuple[int, str]] = {
    "f16": (2, "<f2"),
    "f32": (4, "<f4"),
    "f64": (8, "<f8"),
    "i8": (1, "i1"),
    "i16": (2, "<i2"),
    "i32": (4, "<i4"),
    "i64": (8, "<i8"),
    "u8": (1, "u1"),
    "u16": (2, "<u2"),
    "u32": (4, "<u4"),
    "u64": (8, "<u8"),
    "bool": (1, "?"),
}

# NumPy's own limits, which hold whether it is there or not: a tensor that was taken once can become
# an array everywhere. They also keep hostile shapes from being multiplied into huge numbers.
MAX_DIMENSIONS = 64
_MAX_BYTES = 2**63 - 1

# Another byte would be a true that equals no other true.
_BOOLS = b"\0\1"


class Tensor:
    """A dense tensor: `data` holds `prod(shape)` elements of `dtype`, row by row, little-endian.

    Of `bool` an element is the byte 0 or 1. Raises ValueError where the three do not agree, or
    NumPy could not hold them.
    """

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], data: bytes) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"unknown tensor dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
        if len(shape) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor has at most {MAX_DIMENSIONS} dimensions, got {len(shape)}")
        for size in shape:
            if type(size) is not int or size < 0:
                got = size if type(size) is int else type(size).__name__
                raise ValueError(f"the sizes in a tensor's shape are integers from 0, got {got}")
        item_bytes = DTYPES[dtype][0]
        # NumPy counts the other sizes even where one is 0.
        if item_bytes * prod(size or 1 for size in shape) > _MAX_BYTES:
            raise ValueError("the sizes in a tensor's shape multiply to 2^63 bytes or more")
        expected = item_bytes * prod(shape)
        if len(data) != expected:
            raise ValueError(
                f"a {dtype} tensor of shape {list(shape)} has {expected} bytes, got {len(data)}"
            )
        if dtype == "bool" and data.translate(None, _BOOLS):
            raise ValueError("the bytes of a bool tensor are 0 or 1")
        self.dtype = dtype
        self.shape = shape
        self.data = data

    def numpy(self) -> Any:
        """A read-only NumPy view of the bytes (no copy). Raises ImportError without NumPy."""
        import numpy as np

        return np.frombuffer(self.data, dtype=DTYPES[self.dtype][1]).reshape(self.shape)

    @classmethod
    def from_numpy(cls, array: Any) -> Tensor:
        """The tensor of a NumPy array; ValueError for a dtype that has no wire form."""
        import numpy as np

        kind = np.dtype(array.dtype).newbyteorder("<")
        for name, (_size, numpy_name) in DTYPES.items():
            if np.dtype(numpy_name) == kind:
                # ascontiguousarray makes a shape of () into (1,), hence the shape of the original.
                data = np.ascontiguousarray(array, dtype=numpy_name).tobytes()
                return cls(name, tuple(array.shape), data)
        raise ValueError(
            f"a NumPy array of dtype {array.dtype} has no wire form: use one of {', '.join(DTYPES)}"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and (self.dtype, self.shape, self.data) == (
            other.dtype,
            other.shape,
            other.data,
        )

    def __hash__(self) -> int:
        return hash((self.dtype, self.shape, self.data))

    def __repr__(self) -> str:
        return f"Tensor({self.dtype}, {list(self.shape)}, {len(self.data)} bytes)"
