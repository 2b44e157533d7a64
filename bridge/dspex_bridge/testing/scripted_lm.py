"""A language model whose answers the test gives: an OpenAI-compatible endpoint on the loopback.

The bridge reaches it as it would any provider, so that nothing between a program and its LM is
left out of the test: adapter, parsing, retries, streaming, deadlines.
"""

from __future__ import annotations

import json
import re
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from .forms import asked_for, in_form

__all__ = ["Answer", "Failure", "Prompt", "ScriptedLM"]

# Nobody but this machine is served.
_HOST = "127.0.0.1"

# A provider's client wants to send one. Nobody is kept out by it.
_KEY = "sk-not-a-secret"

# An answer is there at once, or the test wants to see what happens when it is not.
_TIMEOUT_MS = 10_000

# A prompt of a megabyte is a long one; this is where a test has lost its way.
_MAX_BODY_BYTES = 64 * 1024 * 1024

# How often the server looks whether it should end, which is how long the end of a test waits.
_POLL_S = 0.01

# Any instant will do, if it is always the same.
_CREATED = 1_700_000_000


@dataclass(frozen=True)
class Failure:
    """An answer that is an HTTP error, as the provider's own would be."""

    status: int
    message: str = "The scripted LM fails here."
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError(f"the status of a failure is from 400 to 599, not {self.status}")


@dataclass(frozen=True)
class Prompt:
    """What the LM was asked."""

    messages: list[tuple[str, str]]
    """(role, text) in order; images and other media are in `body` alone."""
    fields: list[str]
    """The output fields asked for; none where no adapter of DSPy's wrote the prompt."""
    body: Mapping[str, Any]
    """The whole request, temperature and all."""

    @property
    def text(self) -> str:
        """The text of all messages."""
        return "\n\n".join(text for _, text in self.messages)


#: Fields by name, a raw completion, a failure, or a function that gives one of these. Functions
#: run on threads of the server, each request on its own, and may block.
Answer: TypeAlias = (
    Mapping[str, Any] | str | Failure | Callable[[Prompt], Mapping[str, Any] | str | Failure]
)


class ScriptedLM:
    """The endpoint. It serves from its making to `close`."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        """Everything that was asked, in order."""
        self.errors: list[str] = []
        """Where the script had no answer: these fail the test."""
        self._answers: list[Answer] = []
        self._always: Answer | None = None
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="scripted-lm", daemon=True
        )
        self._thread.start()

    @property
    def lm(self) -> dict[str, Any]:
        """The LM as `configure` takes it. Without retries: a failure is seen at once."""
        return {
            "model": "openai/scripted",
            "api_base": f"http://{_HOST}:{self._server.server_port}/v1",
            "api_key": _KEY,
            "num_retries": 0,
            "timeout_ms": _TIMEOUT_MS,
        }

    def answer(self, *answers: Answer) -> None:
        """These are given next, one a prompt."""
        with self._lock:
            self._answers.extend(answers)

    def always(self, answer: Answer) -> None:
        """This is given whenever nothing else is left to give."""
        self._always = answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, body: Mapping[str, Any]) -> str | Failure:
        """The completion for one request."""
        messages = [(one["role"], _text(one.get("content"))) for one in body["messages"]]
        instruction = next((text for role, text in reversed(messages) if role == "user"), "")
        prompt = Prompt(messages, asked_for(instruction), body)
        try:
            answer = self._next(prompt)
            if callable(answer):
                answer = answer(prompt)
            if isinstance(answer, Mapping):
                return in_form(instruction, answer)
            if isinstance(answer, str | Failure):
                return answer
            raise ValueError(
                "an answer is a map of fields, a text or a Failure, "
                f"not {type(answer).__name__}: {answer!r}"
            )
        except Exception as error:  # noqa: BLE001 - whatever the script did, the test is told
            problem = f"scripted LM, prompt {len(self.prompts)}: {type(error).__name__}: {error}"
            self.errors.append(problem)
            return Failure(400, problem)

    def _next(self, prompt: Prompt) -> Answer:
        with self._lock:
            self.prompts.append(prompt)
            if self._answers:
                return self._answers.pop(0)
        if self._always is not None:
            return self._always
        raise LookupError(
            f"no answer is left for a prompt that asks for {', '.join(prompt.fields) or 'text'}: "
            "give one more to answer(…), or one for all to always(…)"
        )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


class _Server(ThreadingHTTPServer):
    # Hundreds of executes may call at once.
    request_queue_size = 1024

    def __init__(self, lm: ScriptedLM) -> None:
        self.lm = lm
        super().__init__((_HOST, 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which takes seconds where DNS is slow.
        socketserver.TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        error = sys.exception()
        # One that went away, by a cancel or a deadline, is what the test wanted to see.
        if not isinstance(error, ConnectionError):
            self.lm.errors.append(f"scripted LM: {type(error).__name__}: {error}")


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self._body()
        reply: str | Failure = Failure(404, f"the scripted LM serves no {self.path}")
        if self.path.endswith("/chat/completions") and isinstance(body.get("messages"), list):
            reply = self.server.lm.reply(body)
        if isinstance(reply, Failure):
            error = {"message": reply.message, "type": "scripted", "param": None, "code": None}
            headers = (
                {} if reply.retry_after_s is None else {"Retry-After": f"{reply.retry_after_s:g}"}
            )
            self._send(reply.status, "application/json", [_dumps({"error": error})], headers)
        elif body.get("stream"):
            self._send(200, "text/event-stream", _events(body, reply))
        else:
            self._send(200, "application/json", [_dumps(_completion(body, reply))])

    def _body(self) -> dict[str, Any]:
        size = min(int(self.headers.get("Content-Length") or 0), _MAX_BODY_BYTES)
        try:
            body = json.loads(self.rfile.read(size))
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    def _send(
        self,
        status: int,
        content_type: str,
        parts: Iterator[bytes] | list[bytes],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        # HTTP/1.0: the end of the connection is the end of the body.
        for part in parts:
            self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: `prompts` tells what was asked."""


def _completion(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {**_head(body, "chat.completion"), "choices": [choice], "usage": _usage(body, text)}


def _events(body: Mapping[str, Any], text: str) -> Iterator[bytes]:
    """The text a word at a time."""
    head = _head(body, "chat.completion.chunk")
    for piece in re.findall(r"\s*\S+|\s+", text):
        yield _event({**head, "choices": [{"index": 0, "delta": {"content": piece}}]})
    yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield _event({**head, "choices": [], "usage": _usage(body, text)})
    yield b"data: [DONE]\n\n"


def _head(body: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "scripted", "object": kind, "created": _CREATED, "model": body.get("model")}


def _usage(body: Mapping[str, Any], text: str) -> dict[str, int]:
    """A word is a token."""
    prompt = sum(len(_text(one.get("content")).split()) for one in body["messages"])
    completion = len(text.split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _event(value: Any) -> bytes:
    return b"data: " + _dumps(value) + b"\n\n"
