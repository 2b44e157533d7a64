"""What everything costs, beside the floor and the peers in the same run: see README.md."""

from __future__ import annotations

__all__: list[str] = []
