"""What is made at random, in a process that was forked."""

from __future__ import annotations

import sys

__all__ = ["reseed"]


def reseed() -> None:
    """Gives this process random numbers of its own. To be called after each fork.

    Python's own generator and OpenSSL's see to that by themselves; NumPy's goes on where its
    parent's was, in every child alike.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
