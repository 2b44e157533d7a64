from __future__ import annotations

from typing import Any

import pytest
from dspex_bridge.logs import Log
from dspex_bridge.redaction import MASK, Redactor


@pytest.fixture
def events() -> list[tuple[Any, ...]]:
    return []


def test_lines_go_to_stderr_from_the_level_on(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(Redactor(), stderr_level="warning")
    log.info("not this")
    log.warning("this", 7)
    log.error("and this")
    assert capfd.readouterr().err == ("dspex: warning [request 7]: this\ndspex: error: and this\n")


def test_events_go_to_the_client_only_where_it_asked(
    capfd: pytest.CaptureFixture[str], events: list[tuple[Any, ...]]
) -> None:
    log = Log(Redactor(), stderr_level="error")
    log.warning("before")
    log.forward("info", lambda *event: events.append(event))
    log.debug("not this")
    log.info("this", 7)
    assert events == [("info", "dspex", "this", 7)]
    assert capfd.readouterr().err == ""


def test_no_secret_is_logged(
    capfd: pytest.CaptureFixture[str],
    events: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-from-environment")
    redactor = Redactor()
    redactor.add("sk-configured")
    redactor.add("sk-configured-and-longer")
    log = Log(redactor)
    log.forward("debug", lambda *event: events.append(event))
    log.error("sk-from-environment sk-configured-and-longer sk-configured")
    assert events[0][2] == f"{MASK} {MASK} {MASK}"
    assert "sk-" not in capfd.readouterr().err


def test_a_long_message_is_cut(events: list[tuple[Any, ...]]) -> None:
    log = Log(Redactor())
    log.forward("debug", lambda *event: events.append(event))
    log.debug("x" * 1_000_000)
    assert len(events[0][2]) < 11_000
    assert "990000 more characters" in events[0][2]


def test_secrets_are_masked_inside_values() -> None:
    redactor = Redactor()
    redactor.add("sk-configured")
    value = {"errors": [{"got": "key sk-configured", "count": 1}]}
    assert redactor.value(value) == {"errors": [{"got": f"key {MASK}", "count": 1}]}
