from __future__ import annotations

import os
from typing import Any

import pytest
from dspex_bridge.logs import Log
from dspex_bridge.redaction import MASK, Redactor, is_secret_name, mask_url


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


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "aws_secret_access_key", "X-Auth-Token", "password", "api_key"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["max_tokens", "model", "keyboard", "PATH", "monkey_patch"])
def test_other_names_are_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_a_url_is_shown_without_its_password() -> None:
    assert mask_url("https://me:pass@host:1/v1?a@b") == f"https://{MASK}@host:1/v1?{MASK}"
    assert mask_url("https://host/v1/a@b") == "https://host/v1/a@b"


def test_a_stderr_that_nobody_reads_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    read_fd, write_fd = os.pipe()
    kept = os.dup(2)
    os.dup2(write_fd, 2)
    try:
        log = Log(Redactor())
        for _ in range(100):
            log.error("x" * 5000)
        os.read(read_fd, 1 << 20)
        log.error("read again")
        heard = os.read(read_fd, 1 << 20).decode()
    finally:
        os.dup2(kept, 2)
        for fd in (read_fd, write_fd, kept):
            os.close(fd)
    assert "lines were not written: stderr was full" in heard
    assert heard.endswith("dspex: error: read again\n")


def test_a_value_nested_without_end_is_masked_whole() -> None:
    value: object = "x"
    for _ in range(2000):
        value = [value]
    assert MASK in str(Redactor().value(value))
