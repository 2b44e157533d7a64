"""Who is let in: by a token over HTTP and WebSocket, and no page of another site."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from integration.server_process import ServerProcess
from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "a-token-of-this-test-alone"  # noqa: S105
SHOWN = {"authorization": f"Bearer {TOKEN}"}
QUERY = {"query": "{ __typename }"}
BAD_REQUEST = 4400
FORBIDDEN = 4403


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("access")
    file = folder / "token"
    file.write_text(f"{TOKEN}\n")
    process = ServerProcess("--data-dir", str(folder / "data"), "--token-file", str(file))
    yield process
    process.close()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer another-token-of-this-test"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": "Bearer"},
        {"cookie": f"authorization=Bearer {TOKEN}"},
    ],
)
def test_without_the_token_nothing_is_answered(
    server: ServerProcess, headers: dict[str, str]
) -> None:
    for answer in (
        server.http.post("/graphql", json=QUERY, headers=headers),
        server.http.get("/v1/programs", headers=headers),
        server.http.get("/v1/openapi.json", headers=headers),
        server.http.get("/nowhere", headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "unauthorized"
    assert server.http.get("/healthz", headers=headers).json() == {"status": "ok"}


def test_with_the_token_everything_is(server: ServerProcess) -> None:
    answer = server.http.post("/graphql", json=QUERY, headers=SHOWN)
    assert answer.json() == {"data": {"__typename": "Query"}}
    assert server.http.get("/v1/programs", headers=SHOWN).json() == {"programs": []}
    assert server.http.get("/v1/programs?token=" + TOKEN).status_code == 401


@pytest.mark.parametrize(
    ("headers", "payload"),
    [(SHOWN, None), ({}, SHOWN), ({}, {"authorization": f"bearer {TOKEN}", "more": 1})],
)
@on_a_loop
async def test_a_websocket_shows_the_token_in_its_header_or_in_connection_init(
    server: ServerProcess, headers: dict[str, str], payload: dict[str, Any] | None
) -> None:
    async with _connect(server, headers) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": payload or {}}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"


@pytest.mark.parametrize(
    "payload", [None, {}, {"authorization": "Bearer é"}, {"authorization": [TOKEN]}]
)
@on_a_loop
async def test_a_websocket_that_shows_none_is_closed(
    server: ServerProcess, payload: dict[str, Any] | None
) -> None:
    async with _connect(server, {}) as socket:
        said = {"type": "connection_init"} | ({} if payload is None else {"payload": payload})
        await socket.send(json.dumps(said))
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        assert socket.close_code == FORBIDDEN


@pytest.mark.parametrize("said", ['{"a": 1e999}', '{"a": "\\ud800"}', "[" * 100_000, "{"])
@on_a_loop
async def test_a_websocket_that_is_sent_what_is_no_json_is_closed(
    server: ServerProcess, said: str
) -> None:
    async with _connect(server, SHOWN) as socket:
        await socket.send(said)
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        assert socket.close_code == BAD_REQUEST


@on_a_loop
async def test_a_websocket_with_a_wrong_header_is_not_opened(server: ServerProcess) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        async with _connect(server, {"authorization": "Bearer another-token-of-this-test"}):
            pass


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "null", "x", "http://["]
)
@on_a_loop
async def test_a_page_of_another_origin_is_not_let_in_even_with_the_token(
    server: ServerProcess, origin: str
) -> None:
    headers = {**SHOWN, "origin": origin}
    # What a page may send without asking first: a text, and no JSON.
    for path in ("/graphql", "/v1/programs"):
        answer = server.http.post(
            path, content=json.dumps(QUERY), headers={**headers, "content-type": "text/plain"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    with pytest.raises(InvalidStatus, match="403"):
        async with _connect(server, headers):
            pass


@on_a_loop
async def test_a_page_of_its_own_origin_is_let_in(server: ServerProcess) -> None:
    headers = {**SHOWN, "origin": server.url}
    assert server.http.get("/v1/programs", headers=headers).status_code == 200
    async with _connect(server, headers) as socket:
        await socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"


@pytest.mark.skipif(sys.platform != "linux", reason="environments are read from /proc")
def test_a_bridge_has_neither_the_token_nor_the_database_in_its_environment(
    tmp_path: Path,
) -> None:
    database = f"sqlite:///{tmp_path / 'own.sqlite'}"
    own = {"DSPEX_SERVER_TOKEN": TOKEN, "DSPEX_DATABASE_URL": database, "PGPASSWORD": "sesame"}
    arguments = ("--data-dir", str(tmp_path / "data"), "--lm", "demo/knn", "--bridges", "1")
    server = ServerProcess(*arguments, variables={**own, "OF_A_PROVIDER": "key"})
    try:
        demo = {"inputs": {"q": "?"}, "outputs": {"a": "!"}}
        made = {"name": "asked", "signature": "q -> a", "demos": [demo]}
        assert server.http.post("/v1/programs", json=made, headers=SHOWN).status_code == 201
        path, inputs = "/v1/programs/asked/execute", {"inputs": {"q": "?"}}
        done = server.http.post(path, json=inputs, headers=SHOWN).json()
        assert done["state"] == "completed", done
        bridges = _children(server.process.pid)
        assert bridges
        for pid in bridges:
            said = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert b"OF_A_PROVIDER=key" in said
            assert not {item.partition(b"=")[0].decode() for item in said} & set(own)
    finally:
        server.close()


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def test_the_token_is_in_nothing_that_was_written(server: ServerProcess) -> None:
    assert TOKEN not in "".join(server.output)


def _connect(server: ServerProcess, headers: dict[str, str]) -> connect:
    url = server.url.replace("http:", "ws:") + "/graphql"
    protocols: Any = ["graphql-transport-ws"]
    return connect(url, subprotocols=protocols, additional_headers=headers, proxy=None)
