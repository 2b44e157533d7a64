"""Other ways to reach Python, which the bench's own environment has packages for (`venv.py`)."""

from __future__ import annotations

__all__: list[str] = []
