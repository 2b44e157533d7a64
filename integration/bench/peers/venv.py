"""The environment with the peers' packages, made once for a list of versions."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from integration.bench.workshop import cache_folder

__all__ = ["peers_python"]

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def peers_python() -> Path:
    """Its Python, from the cache or installed now, which takes a minute or two."""
    version = ".".join(map(str, sys.version_info[:3]))
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes() + version.encode()).hexdigest()[:16]
    folder = cache_folder() / f"peers-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print("installing the peers' packages, which takes a minute or two", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [str(python), "-m", "pip", "install", "--quiet", "-r", str(_REQUIREMENTS)],
                stdout=said,
                stderr=subprocess.STDOUT,
                check=False,
            )
            said.seek(0)
            if done.returncode:
                raise SystemExit(
                    "bench: the peers cannot be installed (without them: --no-peers):\n"
                    + said.read().decode(errors="replace")[-2000:]
                )
        (folder / "complete").touch()
    return python
