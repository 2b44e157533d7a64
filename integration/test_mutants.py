"""The mutants stay usable: each applies to the code as it is, and names tests that are there.

That each turns its test red is what `scripts/mutants` shows.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from integration import mutants

PATCHES = sorted(mutants.PATCHES.glob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_a_mutant_applies_to_the_code_as_it_is(patch: Path) -> None:
    mutant = mutants.load(patch)
    assert (mutants.ROOT / mutant.test[0]).is_file()
    done = subprocess.run(
        [*mutants.APPLY, "--check", str(patch)],
        cwd=mutants.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"renew {patch.name}: {done.stderr}"
