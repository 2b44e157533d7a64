"""Fixtures for test suites of programs that run on a bridge; `bridge/PYTEST.md` is their guide.

pytest loads this in every run wherever DSPex is installed, so it imports nothing until a test asks
for a fixture.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from dspex_protocol.client import Client

    from .testing import Bridge, ScriptedLM
    from .testing.pool import BridgePool

__all__ = [
    "dspex",
    "dspex_bridge_command",
    "dspex_client",
    "dspex_lm",
    "dspex_script",
    "pytest_configure",
    "pytest_runtest_makereport",
]

_MARKER = """\
dspex(lm=None, script=None, fresh=False): the LM of a test that uses a bridge (the name of a model \
or a map as configure takes it), or the answers of its scripted LM; fresh: a bridge of its own."""

_BRIDGE = pytest.StashKey["Bridge"]()
_HAS_FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_HAS_FAILED] = True
        bridge = item.stash.get(_BRIDGE, None)
        if bridge is not None:
            report.sections += bridge.report()
    return report


@pytest.fixture(scope="session")
def dspex_bridge_command() -> Sequence[str]:
    """The command that starts a bridge. Override it to test another one."""
    # -P: what lies in the folder that the tests are run in must not be taken for a module.
    return [sys.executable, "-P", "-m", "dspex_bridge"]


@pytest.fixture(scope="session")
def dspex_lm() -> Mapping[str, Any]:
    """The LM of every test that says no other, as `configure` takes it. Override it."""
    return {"model": "demo/knn"}


@pytest.fixture(scope="session")
def _dspex_bridges() -> Iterator[BridgePool]:
    from .testing.pool import BridgePool

    pool = BridgePool()
    yield pool
    pool.close()


@pytest.fixture
def dspex_script(request: pytest.FixtureRequest) -> Iterator[ScriptedLM]:
    """An LM that answers what the test says, and is the LM of the test that asks for it."""
    from .testing import ScriptedLM

    lm = ScriptedLM()
    script = _options(request.node)["script"]
    if isinstance(script, list | tuple):
        lm.answer(*script)
    elif script is not None:
        lm.always(script)
    yield lm
    lm.close()
    # A test that failed has its own tale to tell.
    if lm.errors and not request.node.stash.get(_HAS_FAILED, False):
        pytest.fail("\n".join(lm.errors), pytrace=False)


@pytest.fixture
def dspex(
    request: pytest.FixtureRequest,
    _dspex_bridges: BridgePool,
    dspex_bridge_command: Sequence[str],
    dspex_lm: Mapping[str, Any],
) -> Iterator[Bridge]:
    """A bridge, for tests without a loop of their own. It is as new to every test."""
    options = _options(request.node)
    lm = options["lm"] or dspex_lm
    if options["script"] is not None or "dspex_script" in request.fixturenames:
        if options["lm"] is not None:
            pytest.fail(
                "the marker dspex names an lm, and the test has a scripted one: choose one",
                pytrace=False,
            )
        lm = request.getfixturevalue("dspex_script").lm
    try:
        bridge = _dspex_bridges.take(dspex_bridge_command, fresh=options["fresh"])
    except RuntimeError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    request.node.stash[_BRIDGE] = bridge
    try:
        bridge.begin({"model": lm} if isinstance(lm, str) else lm)
        yield bridge
    finally:
        _dspex_bridges.give_back(bridge, fresh=options["fresh"])


@pytest.fixture
def dspex_client(dspex: Bridge) -> Client:
    """The same bridge as an asyncio client, for async tests of whatever plugin."""
    return dspex.client


def _options(node: pytest.Item) -> dict[str, Any]:
    """What the marker says, with defaults."""
    marker = node.get_closest_marker("dspex")
    options = {"lm": None, "script": None, "fresh": False}
    given = {} if marker is None else marker.kwargs
    if marker is not None and (marker.args or not given.keys() <= options.keys()):
        wrong = [*map(repr, marker.args), *(given.keys() - options.keys())]
        pytest.fail(
            f"the marker dspex takes {', '.join(f'{name}=' for name in options)} "
            f"and was given {', '.join(wrong)}",
            pytrace=False,
        )
    return {**options, **given}
