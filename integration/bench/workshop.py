"""What measurements are made with: the compiled floor and driver, prepared messages, a CPU."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Workshop", "cache_folder"]

_HERE = Path(__file__).parent

# A quick run shows that everything runs, and no more.
_QUICK_DIVISOR = 20


def cache_folder() -> Path:
    """Where what takes long to make is kept between runs: no part of the checkout."""
    own = os.environ.get("DSPEX_BENCH_CACHE")
    if own:
        return Path(own)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "dspex" / "bench"


class Workshop:
    """For one run. `peers` is the Python that has the peers' packages, None where they are left
    out; `erlport` is erlport's byte code, None likewise; `cpu` is the processor of what runs on
    one."""

    def __init__(
        self, *, quick: bool = False, peers: Path | None = None, erlport: Path | None = None
    ) -> None:
        self.quick = quick
        self.peers = peers
        self.erlport = erlport
        self.cpu = max(os.sched_getaffinity(0))
        self.floor = _compiled("floor")
        self.driver = _compiled("driver")
        self.answerer = _compiled("answerer")
        self._folder = tempfile.TemporaryDirectory(prefix="dspex-bench-")
        self._files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """For files that nobody needs after the run."""
        return Path(self._folder.name)

    def stderr(self) -> Path:
        """A new file for what a process writes to stderr."""
        self._files += 1
        return self.folder / f"stderr-{self._files}"

    def count(self, full: int) -> int:
        """How many there are of something in a round: fewer in a quick run."""
        return max(1, full // _QUICK_DIVISOR) if self.quick else full

    def messages(self, messages: Sequence[bytes]) -> Path:
        """A file of messages, as the driver reads it."""
        self._files += 1
        path = self.folder / f"messages-{self._files}"
        lengths = [len(message) for message in messages]
        with path.open("wb") as file:
            file.write(struct.pack(f"={1 + len(lengths)}I", len(lengths), *lengths))
            file.writelines(messages)
        return path


def _compiled(name: str) -> Path:
    """The program of a C file here, made anew where that has changed."""
    source = _HERE / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    program = cache_folder() / f"{name}-{digest}"
    if not program.exists():
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit("bench: no C compiler (Debian: apt-get install gcc libc6-dev)")
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            made = Path(folder) / name
            subprocess.run([compiler, "-O2", "-o", str(made), str(source)], check=True)
            made.replace(program)  # whole or not at all, whoever else compiles it
    return program
