"""Breaks one guarantee at a time, in a copy of this checkout, and sees the test for it go red.

    python -m integration.mutants               all of them
    python -m integration.mutants NAME ...      these

A mutant is a patch in integration/mutants.d. The lines before its first `diff` say what it breaks
and which tests must notice:

    Breaks: exactly one response to a request
    Test: tests/protocol/test_connection.py -k second_answer

First every named test is run on the copy as it is, and must be green; then each patch is applied,
its test must be red (failing, not broken: a test that cannot be collected proves nothing), and the
patch is taken back. A test in elixir_client is one of `mix test`, with its options.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["APPLY", "PATCHES", "ROOT", "load", "main"]

ROOT = Path(__file__).resolve().parent.parent
PATCHES = Path(__file__).resolve().parent / "mutants.d"

# The exit statuses for "some tests failed", of pytest and of `mix test`; others are errors of
# another kind.
RED = 1
RED_MIX = 2

BOUND_S = 300

# One line around the change has to be as it was: what is changed beyond it does not matter.
APPLY = ("git", "apply", "-C1")


@dataclass(frozen=True)
class Mutant:
    name: str
    breaks: str
    test: tuple[str, ...]
    patch: Path


def load(path: Path) -> Mutant:
    head: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("diff "):
            break
        key, separator, value = line.partition(": ")
        if separator:
            head[key] = value
    if set(head) != {"Breaks", "Test"}:
        raise SystemExit(f"{path}: expected the lines 'Breaks: …' and 'Test: …' before the patch")
    return Mutant(path.stem, head["Breaks"], tuple(shlex.split(head["Test"])), path)


def copy_checkout(into: Path) -> None:
    """The tracked files as they are in the working tree, uncommitted changes included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_file():
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)


def is_elixir(test: tuple[str, ...]) -> bool:
    return test[0].startswith("elixir_client/")


def run_test(copy: Path, test: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    # The copy's own packages, before those that .venv points at.
    paths = os.pathsep.join(str(copy / name) for name in ("protocol", "bridge", "server"))
    command: tuple[str, ...] = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
    )
    folder, arguments = copy, test
    if is_elixir(test):
        folder = copy / "elixir_client"
        command = ("mix", "test")
        arguments = (str(Path(test[0]).relative_to("elixir_client")), *test[1:])
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": paths,
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "DSPEX_PYTHON": sys.executable,
            "DSPEX_BRIDGE": f"{sys.executable} -m dspex_bridge",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def apply(copy: Path, patch: Path, *, reverse: bool) -> None:
    done = subprocess.run(
        [*APPLY, *(["--reverse"] if reverse else []), str(patch)],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{patch.name} does not apply any more: renew it\n{done.stderr}")


def main() -> int:
    parser = argparse.ArgumentParser(
        "integration.mutants", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    parser.add_argument("names", nargs="*", help="the mutants to try (default: all)")
    names = parser.parse_args().names
    mutants = [load(path) for path in sorted(PATCHES.glob("*.patch"))]
    unknown = set(names) - {mutant.name for mutant in mutants}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in mutants if not names or mutant.name in names]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="dspex-mutants-") as folder:
        copy = Path(folder)
        copy_checkout(copy)
        # `git apply` outside a repository would look for one above.
        subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
        for mutant in chosen:
            green = run_test(copy, mutant.test)
            if green.returncode:
                sys.stdout.write(f"{green.stdout[-3000:]}\n")
                raise SystemExit(f"{mutant.name}: its test is not green without the patch")
            started = time.monotonic()
            apply(copy, mutant.patch, reverse=False)
            red = run_test(copy, mutant.test)
            apply(copy, mutant.patch, reverse=True)
            is_killed = red.returncode == (RED_MIX if is_elixir(mutant.test) else RED)
            survivors += not is_killed
            verdict = "killed  " if is_killed else f"SURVIVED (status {red.returncode})"
            seconds = time.monotonic() - started
            sys.stdout.write(f"{verdict} {mutant.name}: {mutant.breaks} ({seconds:.1f} s)\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - survivors} killed, {survivors} survived\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
