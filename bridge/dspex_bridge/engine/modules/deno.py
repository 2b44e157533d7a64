"""Whether Deno is here: the only place where code that an LM wrote may run."""

from __future__ import annotations

from functools import cache

from dspex_protocol.errors import UnavailableError
from dspy.primitives.python_interpreter import (
    MAX_DENO_VERSION,
    MIN_DENO_VERSION,
    _find_deno_executable,
    _get_deno_version,
)

from dspex_bridge.installing import install_command

__all__ = ["require_deno"]


def require_deno(module: str) -> None:
    """Raises UnavailableError where there is no Deno that DSPy's interpreter takes."""
    path = _find_deno_executable()
    version = _version(path)
    if version is not None and MIN_DENO_VERSION <= version < MAX_DENO_VERSION:
        return
    _version.cache_clear()  # so that an installation is seen without a restart
    found = "none was found" if version is None else f"{'.'.join(map(str, version))} was found"
    wanted = f"{MIN_DENO_VERSION[0]}.x"
    raise UnavailableError(
        f"the module {module} runs code, which is done in Deno {wanted} only, and {found}: "
        f"{install_command('dspy[deno]')}"
    )


# Asking takes a process and some tens of milliseconds.
@cache
def _version(path: str) -> tuple[int, int, int] | None:
    version: tuple[int, int, int] | None = _get_deno_version(path)
    return version
