"""`dspex conformance`: whether a bridge, or a client, keeps to the protocol."""

from .command import main

__all__ = ["main"]
