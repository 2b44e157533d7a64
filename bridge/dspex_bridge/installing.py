"""How what is missing is installed where the bridge runs."""

from __future__ import annotations

__all__ = ["install_command"]


def install_command(requirement: str) -> str:
    """For a shell. A `pip` of its own may be of another Python, and an environment made by uv has
    none."""
    import shlex
    import sys
    from importlib.util import find_spec

    python = sys.executable or "python"
    if find_spec("pip") is None:
        return shlex.join(["uv", "pip", "install", requirement, "--python", python])
    return shlex.join([python, "-m", "pip", "install", requirement])
