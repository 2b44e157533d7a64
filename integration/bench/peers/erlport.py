"""erlport, from a checkout of its repository: the package of that name is for Python 2.

Nothing in the checkout is changed. Its Erlang sources compile as they are; OTP 24 and later warn
that `erlang:get_stacktrace/0` is gone, which erlport asks where Erlang code that Python called has
failed, as none does here. Two of its Python files are in its folder for Python 2 alone, and are
copied to where its own Makefile copies them.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from integration.bench.lines import on_cpu
from integration.bench.workshop import Workshop, cache_folder

__all__ = ["ERLPORT_NEEDED", "erlport_commands", "erlport_ebin", "is_erlport"]

ERLPORT_NEEDED = (
    "erlport is measured from a checkout of its repository:"
    " git clone https://github.com/hdima/erlport ~/erlport, then scripts/bench --erlport ~/erlport"
)

# What both Pythons have in its repository under Python 2's folder alone.
_SHARED = ("__init__.py", "cli.py")

_MODULES = Path(__file__).with_name("erlport_python")

# Of its reads. A short message takes nearly twice as long with the second as with its default; one
# of 16 MB a quarter of the time (with pipes as large), as each read copies what has come so far.
_READ_BYTES = 64 * 1024
_LARGE_READ_BYTES = 1024 * 1024


def is_erlport(checkout: Path) -> bool:
    return (checkout / "src" / "python.erl").is_file() and (
        checkout / "priv" / "python3" / "erlport" / "erlang.py"
    ).is_file()


def erlport_ebin(checkout: Path) -> Path:
    """Its byte code, compiled now or kept from an earlier run, beside which is what its Python
    needs: erlport looks for that by the place of its own."""
    sources = [
        *sorted((checkout / "src").glob("*.[eh]rl")),
        *sorted((checkout / "priv" / "python3" / "erlport").glob("*.py")),
        *(checkout / "priv" / "python2" / "erlport" / name for name in _SHARED),
    ]
    digest = hashlib.sha256(_otp_release().encode())
    for source in sources:
        digest.update(source.name.encode() + source.read_bytes())
    made = cache_folder() / f"erlport-{digest.hexdigest()[:16]}"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            _build(sources, Path(folder) / "made" / "erlport")
            (Path(folder) / "made").replace(made)  # whole or not at all
    return made / "erlport" / "ebin"


def erlport_commands(workshop: Workshop, cpu: int | None) -> dict[str, str]:
    """For the environment of calls.exs: what erlport.ex starts, with a Python that is bound to
    `cpu`, where there is one."""
    assert workshop.erlport is not None
    # erlport asks what it starts for Python's version, and splits its path at spaces.
    python = workshop.folder / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.join([*on_cpu(cpu), sys.executable])} "$@"\n')
    python.chmod(0o700)
    sizes: Mapping[str, int] = {"ERLPORT": _READ_BYTES, "ERLPORT_LARGE": _LARGE_READ_BYTES}
    return {
        f"DSPEX_BENCH_{name}": "\n".join(
            [str(workshop.erlport), str(python), str(_MODULES), str(size)]
        )
        for name, size in sizes.items()
    }


def _build(sources: list[Path], application: Path) -> None:
    ebin, package = application / "ebin", application / "priv" / "python3" / "erlport"
    ebin.mkdir(parents=True)
    package.mkdir(parents=True)
    for source in sources:
        if source.suffix == ".py":
            shutil.copyfile(source, package / source.name)
    modules = [str(source) for source in sources if source.suffix == ".erl"]
    done = subprocess.run(
        ["erlc", "-o", str(ebin), *modules], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"bench: erlport does not compile:\n{done.stdout}{done.stderr}")


def _otp_release() -> str:
    asked = "io:put_chars(erlang:system_info(otp_release)), halt()."
    return subprocess.run(
        ["erl", "-noshell", "-eval", asked], capture_output=True, text=True, check=True
    ).stdout
