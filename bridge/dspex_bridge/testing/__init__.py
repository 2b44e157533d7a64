"""What the pytest plugin is made of; `bridge/PYTEST.md` tells how it is used."""

from __future__ import annotations

from .bridge import Bridge
from .scripted_lm import Answer, Failure, Prompt, ScriptedLM

__all__ = ["Answer", "Bridge", "Failure", "Prompt", "ScriptedLM"]
