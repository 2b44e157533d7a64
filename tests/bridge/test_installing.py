"""The command that is told where something is missing."""

from __future__ import annotations

import importlib.util
import shlex
import sys

import pytest
from dspex_bridge.installing import install_command


def test_it_installs_where_the_bridge_runs_whatever_pip_the_shell_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(sys, "executable", "/a b/python")
    command = install_command("dspex[optimize]")
    assert command == "'/a b/python' -m pip install 'dspex[optimize]'"
    assert shlex.split(command)[0] == "/a b/python"


def test_an_environment_without_pip_is_one_that_uv_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(sys, "executable", "/env/bin/python")
    command = install_command("dspex[optimize]")
    assert command == "uv pip install 'dspex[optimize]' --python /env/bin/python"
