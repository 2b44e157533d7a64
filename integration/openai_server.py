"""A local OpenAI-compatible server: real HTTP on the loopback, scripted answers and failures.

    with OpenAIServer(answering({"answer": "Paris"})) as server:
        lm = dspy.LM("openai/any-name", api_base=server.url, api_key=server.api_key)

It serves `POST /v1/chat/completions` and `/v1/responses` (whole or streamed, tool calls, usage),
`POST /v1/embeddings` and `GET /v1/models`. As a process (`--help` says more) it prints its URL and
serves until its standard input ends.

Which road a model takes, in DSPy 3.4:

- `dspy.LM` with its native engine calls `/v1/chat/completions` for every `openai/…` name, the
  reasoning models (`gpt-5…`, `o3…`) included, and `/v1/responses` only where the LM was made with
  `model_type="responses"`.
- Through LiteLLM the same holds, except for the names whose `mode` in LiteLLM's price table is
  `responses` (`gpt-5-pro`, `gpt-5.1-codex`, `o3-pro`, …): those call `/v1/responses`. In LiteLLM
  that road, and every request with tools, imports the package `mcp`, which `litellm` alone does
  not bring (`litellm[mcp]` does).
- `dspy.Embedder("openai/…")` is LiteLLM's and calls `/v1/embeddings`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import secrets
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

if not __package__:  # run as a script: the siblings are imported as they are by the tests
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from integration import openai_wire as wire
from integration.openai_script import (
    FAULTS,
    Answer,
    Fault,
    Request,
    Script,
    ScriptError,
    ToolCall,
    answering,
    as_script,
    content_filter,
    context_length_exceeded,
    failure,
    well_formed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = [
    "Answer",
    "Fault",
    "OpenAIServer",
    "Request",
    "Script",
    "ScriptError",
    "ToolCall",
    "answering",
    "content_filter",
    "context_length_exceeded",
    "failure",
    "main",
    "well_formed",
]

HOST = "127.0.0.1"
"""The only address it listens on: scripted answers are nobody else's business."""

BACKLOG = 4096
"""Connections that may wait to be accepted: a load test opens a thousand at once."""

MAX_BODY_BYTES = 64 * 2**20
"""Images travel inside the JSON; the library's own limit is 1 MiB."""

KEEP_ALIVE_S = 3600.0
"""Longer than any test: an idle connection that the server closes races with the next request."""

SHUTDOWN_S = 1.0
"""Handlers are cancelled before the server waits for them, so this is never reached."""

START_S = 10.0
WAIT_S = 10.0

DEFAULT_MODELS = ("gpt-4.1-mini", "gpt-5-mini", "text-embedding-3-small")


class OpenAIServer:
    """The server, on a thread and an event loop of its own, for `with` and for `async with`.

    A client under test can therefore block its own loop without stopping the server. Both share
    one interpreter: to measure a client, run the server as a process.

    `script` is an `Answer` for every request, a list of them in turn, or a function of the
    `Request`. On leaving, what still hangs is cut off, and an error of the script is raised.
    """

    url: str
    """What clients take as `api_base`; set when the server is entered."""

    def __init__(
        self,
        script: Answer | Sequence[Answer] | Script,
        *,
        api_key: str | None = None,
        port: int = 0,
        models: Sequence[str] = DEFAULT_MODELS,
    ) -> None:
        self.api_key = api_key or f"sk-local-{secrets.token_hex(16)}"
        self.requests: list[Request] = []
        self.left: list[Request] = []
        """Requests whose client went away before it had the whole answer."""
        self._script = as_script(script)
        self._port = port
        self._models = models
        self._changed = threading.Condition()
        self._script_error: Exception | None = None
        self._handlers: set[asyncio.Task[Any]] = set()
        self._stopping = False

    # What a test does

    def expect(self, count: int, *, timeout_s: float = WAIT_S) -> list[Request]:
        """Wait until `count` requests have arrived; TimeoutError where they do not in time.

        It blocks: a coroutine that shares its loop with the client waits by `asyncio.to_thread`.
        """
        return self._wait("requests", self.requests, count, timeout_s)

    def expect_left(self, count: int, *, timeout_s: float = WAIT_S) -> list[Request]:
        """Wait, as `expect` does, until `count` clients have gone away before they had it all."""
        return self._wait("clients that leave", self.left, count, timeout_s)

    def release(self) -> None:
        """Let every answer go on that hangs or has stalled, now and from now on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def _wait(self, what: str, seen: list[Request], count: int, timeout_s: float) -> list[Request]:
        with self._changed:
            if not self._changed.wait_for(lambda: len(seen) >= count, timeout_s):
                raise TimeoutError(
                    f"expected {count} {what} within {timeout_s:g} s and saw {len(seen)}"
                )
            return list(seen)

    # Its life

    def __enter__(self) -> OpenAIServer:
        started: Future[None] = Future()
        # A daemon, so that a test run that is interrupted can end.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="openai-server", daemon=True
        )
        self._thread.start()
        started.result(START_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)
        if self._thread.is_alive():
            raise RuntimeError(f"the server at {self.url} did not stop within {START_S:g} s")
        if self._script_error is not None and error is None:
            raise self._script_error

    async def __aenter__(self) -> OpenAIServer:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    async def _serve(self, started: Future[None]) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_route("*", "/{path:.*}", self._unknown)
        runner = web.AppRunner(
            app,
            access_log=None,
            # A client that goes away cancels its handler: that is how a test sees it leave.
            handler_cancellation=True,
            keepalive_timeout=KEEP_ALIVE_S,
            shutdown_timeout=SHUTDOWN_S,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, self._port, backlog=BACKLOG)
            await site.start()
        except OSError as error:
            started.set_exception(error)
            await runner.cleanup()
            return
        self._loop = asyncio.get_running_loop()
        self._released = asyncio.Event()
        self._stop = asyncio.Event()
        self.url = f"http://{HOST}:{runner.addresses[0][1]}/v1"
        started.set_result(None)
        await self._stop.wait()
        self._stopping = True
        for handler in self._handlers:
            handler.cancel()
        await runner.cleanup()

    # The routes

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        return await self._complete(http, wire.chat_body, wire.chat_events)

    async def _responses(self, http: web.Request) -> web.StreamResponse:
        return await self._complete(http, wire.responses_body, wire.responses_events)

    async def _embeddings(self, http: web.Request) -> web.StreamResponse:
        return _json(200, wire.embeddings_body(await self._receive(http)))

    async def _list_models(self, http: web.Request) -> web.StreamResponse:
        self._authorize(http)
        return _json(200, wire.models_body(self._models))

    async def _unknown(self, http: web.Request) -> web.StreamResponse:
        message = f"Unknown request URL: {http.method} {http.path}."
        return _json(404, _error(failure(404, code="unknown_url", message=message)))

    async def _complete(
        self,
        http: web.Request,
        body: Callable[[Request, Answer], wire.Json],
        events: Callable[[Request, Answer], Iterator[bytes]],
    ) -> web.StreamResponse:
        request = await self._receive(http)
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            answer = self._scripted(request)
            await asyncio.sleep(answer.delay_s)
            if answer.fault == "disconnect":
                return await self._close(http)
            if answer.fault == "hang":
                await self._released.wait()
            if answer.status == 200 and request.streamed:
                return await self._send(http, answer, list(events(request, answer)))
            result = body(request, answer) if answer.status == 200 else _error(answer)
            whole = wire.dumps(result)
            return await self._send(http, answer, _halves(whole), length=len(whole))
        except (asyncio.CancelledError, ConnectionError):
            self._note_left(http, request)
            raise
        finally:
            self._handlers.discard(task)

    async def _receive(self, http: web.Request) -> Request:
        """The request, recorded; a bad body or key is answered before any script is asked."""
        try:
            body = json.loads(await http.read())
            wire.check(http.path, body)
        except (wire.BadRequest, ValueError) as error:
            raise _refusal(web.HTTPBadRequest, failure(400, message=str(error))) from error
        with self._changed:
            request = Request(len(self.requests), http.path, _masked(http.headers), body)
            self.requests.append(request)
            self._changed.notify_all()
        self._authorize(http)
        return request

    def _authorize(self, http: web.Request) -> None:
        given = http.headers.get("Authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {self.api_key}".encode()):
            raise _refusal(web.HTTPUnauthorized, failure(401))

    def _scripted(self, request: Request) -> Answer:
        try:
            answer = self._script(request)
            if not isinstance(answer, Answer):
                raise ScriptError(f"a script gives an Answer, not {answer!r}")
        except Exception as error:  # noqa: BLE001 - whatever a script raises is told to the test
            self._script_error = self._script_error or error
            return failure(500, code="script_error", message=f"{type(error).__name__}: {error}")
        return answer

    def _note_left(self, http: web.Request, request: Request) -> None:
        if self._stopping or http.get(_CLOSED_BY_US):
            return
        with self._changed:
            self.left.append(request)
            self._changed.notify_all()

    # The bytes

    async def _send(
        self,
        http: web.Request,
        answer: Answer,
        parts: Sequence[bytes],
        *,
        length: int | None = None,
    ) -> web.StreamResponse:
        """Send `parts`; a fault strikes after the first half of them. No length is a stream."""
        kind = "text/event-stream" if length is None else "application/json"
        headers = {"Content-Type": kind, **answer.headers}
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = length
        if answer.fault == "malformed_json":
            parts = [_broken(part) for part in parts]
        await response.prepare(http)
        half = len(parts) // 2
        for index, part in enumerate(parts):
            if index == half and answer.fault == "half_body":
                return await self._close(http)
            if index == half and answer.fault == "stall":
                await self._released.wait()
            await response.write(part)
        await response.write_eof()
        return response

    async def _close(self, http: web.Request) -> web.StreamResponse:
        """Close the connection, what is written before it being sent; the handler ends by it."""
        http[_CLOSED_BY_US] = True
        assert http.transport is not None
        http.transport.close()
        await asyncio.Event().wait()
        raise AssertionError("the handler of a closed connection was not cancelled")


_CLOSED_BY_US = web.RequestKey("closed_by_us", bool)


def _halves(body: bytes) -> list[bytes]:
    return [body[: len(body) // 2], body[len(body) // 2 :]]


def _broken(part: bytes) -> bytes:
    """The same number of bytes, and no JSON: every brace is turned around."""
    return part.translate(bytes.maketrans(b"{}", b"}{"))


def _json(status: int, body: Any) -> web.Response:
    return web.Response(status=status, body=wire.dumps(body), content_type="application/json")


def _error(answer: Answer) -> wire.Json:
    return {"error": answer.error}


def _refusal(kind: type[web.HTTPError], answer: Answer) -> web.HTTPError:
    return kind(text=wire.dumps(_error(answer)).decode(), content_type="application/json")


_SECRET = ("authorization", "key", "cookie")


def _masked(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name.lower(): "***" if any(word in name.lower() for word in _SECRET) else value
        for name, value in headers.items()
    }


# As a process


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until standard input ends; the URL is the first line of standard output."""
    options = _parser().parse_args(arguments)
    shared: dict[str, Any] = {"delay_s": options.delay_ms / 1000, "fault": options.fault}
    script: Script
    if options.status != 200:
        script = as_script(failure(options.status, retry_after=options.retry_after))
    elif options.answer:
        script = answering(dict(options.answer), **shared)
    else:
        script = as_script(Answer(options.text, **shared))
    server = OpenAIServer(script, api_key=options.api_key, port=options.port)
    # Each connection is a descriptor, and the usual limit of 1,024 is less than a load test opens.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        with server:
            print(server.url, flush=True)
            while sys.stdin.buffer.read(65536):
                pass
    except OSError as error:
        print(f"openai_server.py: cannot listen on {HOST}:{options.port}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form field=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openai_server.py",
        description="A local OpenAI-compatible server with scripted answers. Prints its URL on "
        "the first line and serves on 127.0.0.1 until standard input ends.",
    )
    parser.add_argument("--port", type=int, default=0, help="port; 0 (default) takes a free one")
    parser.add_argument(
        "--api-key", default="sk-local", help="the bearer key that clients need (default: sk-local)"
    )
    parser.add_argument(
        "--answer",
        type=_field,
        action="append",
        metavar="FIELD=VALUE",
        help="an output field of every DSPy prompt; the value is JSON, or else a text; repeat it",
    )
    parser.add_argument("--text", default="Paris", help="the text of every answer, as it is")
    parser.add_argument("--status", type=int, default=200, help="fail every request with this")
    parser.add_argument("--retry-after", type=float, help="seconds, with --status")
    parser.add_argument("--delay-ms", type=float, default=0, help="time before every answer")
    parser.add_argument("--fault", choices=FAULTS, help="how every answer goes wrong on the wire")
    return parser


if __name__ == "__main__":
    sys.exit(main())
