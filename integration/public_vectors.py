"""The public MessagePack vectors: `msgpack-test-suite` of the npm registry (MIT), fetched by name
and version and kept outside the repository.

`python -m integration.public_vectors` prints where the file is, fetching it where it is not there
yet: the Elixir tests read the same one, by DSPEX_MSGPACK_SUITE.
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

__all__ = ["PACKAGE", "SUITE_VARIABLE", "load_suite", "suite_path"]

PACKAGE = "msgpack-test-suite@1.0.0"

#: Where the file is, for those who have it already.
SUITE_VARIABLE = "DSPEX_MSGPACK_SUITE"

_MEMBER = "package/dist/msgpack-test-suite.json"
_SHA256 = "8ea4d7aea19f7cf447ffe1031a4818bf5fd8b99dc28baf2b4a33fe9d8e5a5874"

_FETCH_TIMEOUT_S = 100


def suite_path() -> Path:
    """The path of the suite. Raises CalledProcessError, TimeoutExpired or OSError where npm cannot
    fetch it, ValueError where what it fetched is another."""
    named = os.environ.get(SUITE_VARIABLE)
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(cache, "dspex", f"{PACKAGE.replace('@', '-')}.json")
    if not path.is_file():
        data = _fetch()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two may fetch at once; each finds a whole file.
        whole = path.with_suffix(f".{os.getpid()}")
        whole.write_bytes(data)
        whole.replace(path)
    return path


def load_suite() -> dict[str, list[dict[str, Any]]]:
    """The vectors by the name of their group. Raises as `suite_path`."""
    data = suite_path().read_bytes()
    _check(data)
    suite: dict[str, list[dict[str, Any]]] = json.loads(data)
    return suite


def _fetch() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", PACKAGE, "--pack-destination", folder]
        subprocess.run(command, check=True, capture_output=True, timeout=_FETCH_TIMEOUT_S)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            member = packed.extractfile(_MEMBER)
            data = b"" if member is None else member.read()
    _check(data)
    return data


def _check(data: bytes) -> None:
    if sha256(data).hexdigest() != _SHA256:
        raise ValueError(f"this is not the file of {PACKAGE}")


if __name__ == "__main__":
    sys.stdout.write(f"{suite_path()}\n")
