"""The command line of `dspex serve` and `dspex worker`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dspex_server.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DSPEX_MODEL", "OPENAI_API_KEY", "DSPEX_DATABASE_URL", "DSPEX_SERVER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def serve(*arguments: str) -> Settings:
    return read_settings("serve", arguments)


def test_without_any_it_is_sqlite_in_the_users_data_folder_and_the_demo_lm(tmp_path: Path) -> None:
    settings = serve()
    assert settings.database_url == f"sqlite:///{tmp_path}/dspex/dspex.sqlite"
    assert settings.host == "127.0.0.1"
    assert (settings.default_lm, settings.lms) == ("main", {"main": {"model": "demo/knn"}})
    assert settings.notice is not None
    assert "no language model" in settings.notice


def test_a_key_in_the_environment_means_that_providers_lm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert serve().lms == {"main": {"model": "openai/gpt-5-mini"}}
    assert serve().notice is None
    monkeypatch.setenv("DSPEX_MODEL", "anthropic/claude")
    assert serve().lms == {"main": {"model": "anthropic/claude"}}


def test_lms_are_named_and_the_first_is_the_default(tmp_path: Path) -> None:
    settings = serve("--lm", "fast=openai/a", "--lm", "good=openai/b")
    assert settings.lms == {"fast": {"model": "openai/a"}, "good": {"model": "openai/b"}}
    assert settings.default_lm == "fast"
    assert serve("--lm", "openai/a").lms == {"main": {"model": "openai/a"}}
    file = tmp_path / "lms.toml"
    file.write_text('[main]\nmodel = "openai/c"\ntemperature = 0\n')
    assert serve("--lms", str(file)).lms == {"main": {"model": "openai/c", "temperature": 0}}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--port", "70000"), "from 0 to 65535"),
        (("--bridges", "0"), "from 1 to 256"),
        (("--database-url", "mysql://u:secret@h/d"), "sqlite:///FILE or postgresql://"),
        (("--lms", "/nowhere.toml"), "No such file"),
    ],
)
def test_what_is_wrong_is_told_with_status_2(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        serve(*arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert text in said.replace("\n", " ")
    assert "secret" not in said


def test_a_host_that_others_reach_needs_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        assert serve("--host", host).token is None
    for host in ("0.0.0.0", "::", "", "192.0.2.1"):  # noqa: S104 - it is refused
        with pytest.raises(SystemExit) as ended:
            serve("--host", host)
        assert ended.value.code == 2
        assert "--token-file or DSPEX_SERVER_TOKEN" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setenv("DSPEX_SERVER_TOKEN", "from-the-environment")
    settings = serve("--host", "0.0.0.0")  # noqa: S104 - with a token
    assert settings.token == "from-the-environment"  # noqa: S105 - a test's
    assert "from-the-environment" not in repr(settings)
    file = tmp_path / "token"
    file.write_text("from-the-file-here\n")
    assert serve("--token-file", str(file)).token == "from-the-file-here"  # noqa: S105


@pytest.mark.parametrize("token", ["", "short-secret", "a-secret with spaces", "le-sécret-de-moi"])
def test_a_token_that_is_none_is_refused_and_not_repeated(
    token: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(SystemExit):
        serve("--token-file", str(file))
    said = capsys.readouterr().err
    assert "16 characters" in said
    assert "secret" not in said


def test_a_file_of_lms_with_an_unknown_key_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lms.toml"
    file.write_text('[main]\nmodle = "openai/c"\n')
    with pytest.raises(SystemExit):
        serve("--lms", str(file))
    assert "unknown parameter 'modle'" in capsys.readouterr().err


def test_a_worker_needs_a_database_that_can_be_shared(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings("worker", ())
    assert "--database-url postgresql://" in capsys.readouterr().err


def test_without_the_extra_the_install_command_is_told() -> None:
    script = (
        "import sys\n"
        "sys.modules['uvicorn'] = None\n"
        "sys.argv = ['dspex', 'serve']\n"
        "from dspex_bridge.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert b"uvicorn is missing: pip install 'dspex[server]'" in done.stderr
    assert b"Traceback" not in done.stderr
