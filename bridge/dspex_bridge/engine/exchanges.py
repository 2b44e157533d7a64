"""LM exchanges in a file: written by a bridge that records, given again by `replay/FILE`.

A line is one exchange, as JSON: `{key, lm, model, request, response, cost_usd}`. The request is
what was asked, without keys, addresses and what an LM was configured with; the key is its hash, by
which an exchange is found again.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import InvalidParamsError
from dspy._vendor.lm15.serde import (  # as DSPy's own cache does: nothing re-exports them
    request_to_dict,
    response_from_dict,
    response_to_dict,
)
from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.clients.legacy_outputs import plain
from dspy.lm15 import (
    LM15Error,
    Request,
    Response,
    Usage,
    request_from_openai_chat,
    response_from_openai_chat,
)

from .file_names import without_file_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dspex_bridge.redaction import Redactor

__all__ = ["RECORD_HINT", "Exchange", "Exchanges", "Writer", "canonical"]

# Of DSPy's parameters of a call: what is no part of the question, or is asked of each LM in a way
# of its own.
_NOT_ASKED = CLIENT_KEYS | {"n", "rollout_id", "num_generations", "prompt_cache", "cache"}
_NOT_ASKED |= {"response_format"}

_HINT_CHARS = 120

_ADAPTERS_END = re.compile(
    r"\s*Respond with (?:the corresponding output fields|a JSON object)[^\n]*\Z"
)


RECORD_HINT = "Record it: dspex record --file FILE -- COMMAND"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answer of an LM, what it cost in dollars, and whose it was."""

    response: Response
    cost_usd: float | None
    model: str


class Exchanges:
    """The exchanges of a file, by what was asked."""

    def __init__(self, data: bytes, where: str) -> None:
        """`where` names the file in errors. Raises InvalidParamsError for a line that is none."""
        self._where = where
        self._by_key: dict[str, list[Exchange]] = {}
        self._given: Counter[str] = Counter()
        self.model: str | None = None
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                key, exchange = _read(line, f"{where}, line {number}")
                self._by_key.setdefault(key, []).append(exchange)
                self.model = self.model or exchange.model

    def next(self, request: Request) -> Exchange | None:
        """The answer that was given the n-th time, at the n-th time; from then on the last."""
        key = _key(canonical(request))
        known = self._by_key.get(key)
        if known is None:
            return None
        index = min(self._given[key], len(known) - 1)
        self._given[key] += 1
        return known[index]

    def missing(self, request: Request) -> str:
        """That there is no answer, in words: to what, and what to do about it."""
        asked = canonical(request)
        users = [message for message in asked["messages"] if message.get("role") == "user"]
        text = _texts((users or asked["messages"])[-1:])
        # The inputs come before what an adapter says at the end, which is the same in every prompt.
        text = " ".join(_ADAPTERS_END.split(text)[0].split()) or text
        shown = f"…{text[-_HINT_CHARS:]}" if len(text) > _HINT_CHARS else text
        count = sum(map(len, self._by_key.values()))
        return (
            f"{self._where} has no answer to this request, whose last inputs are {shown!r} "
            f"(key {_key(asked)[:12]}; exchanges in the file: {count}). {RECORD_HINT}"
        )


class Writer:
    """Appends exchanges to a file. Bridges that share one do not disturb each other."""

    def __init__(self, path: str, redactor: Redactor) -> None:
        """Raises OSError."""
        # Each line is one write, and appended as a whole.
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._redactor = redactor

    def write(
        self,
        lm: str,
        own: Mapping[str, Any],
        changed: Mapping[str, Any],
        entry: Mapping[str, Any],
    ) -> None:
        """A call, as DSPy's history tells it, of an LM with parameters of its `own` that were
        `changed` for it. What cannot be written is told in the log: it was answered all the same.
        """
        try:
            self._write(lm, own, changed, entry)
        except (OSError, LM15Error, ValueError, TypeError) as error:
            logging.getLogger("dspex").warning("an LM exchange is not recorded: %s", error)

    def _write(
        self,
        lm: str,
        own: Mapping[str, Any],
        changed: Mapping[str, Any],
        entry: Mapping[str, Any],
    ) -> None:
        kwargs = {**changed, **entry["kwargs"]}
        request = entry.get("request") or _request(entry["messages"], entry["prompt"], kwargs)
        asked = canonical(request, own)
        for index, response in enumerate(_responses(entry["response"], entry["model"])):
            line = {
                "key": _key(asked),
                "lm": lm,
                "model": entry["model"],
                "request": asked,
                # The usage and the cost are those of the whole call.
                "response": response_to_dict(response if not index else _for_nothing(response)),
                "cost_usd": 0.0 if index else entry["cost"],
            }
            # The key is of what was asked; what is shown of it has no secret.
            told: Any = self._redactor.value(line)
            shown = {**told, "key": line["key"]}
            os.write(self._fd, json.dumps(shown, ensure_ascii=False).encode() + b"\n")


def canonical(request: Request, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a request asks, without the parameters that are its LM's own."""
    asked: dict[str, Any] = request_to_dict(request)
    config = dict(asked.get("config") or {})
    usual = _config(own or {})
    kept = {
        key: value
        for key, value in config.items()
        if key != "response_format" and usual.get(key, ...) != value
    }
    return {
        **{key: asked[key] for key in ("system", "messages", "tools") if asked.get(key)},
        **({"config": kept} if kept else {}),
    }


def _config(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    request = _request(None, "", kwargs)
    config: dict[str, Any] = request_to_dict(request).get("config") or {}
    return config


def _request(messages: Any, prompt: Any, kwargs: Mapping[str, Any]) -> Request:
    known = {key: value for key, value in kwargs.items() if key not in _NOT_ASKED}
    body = {key: value for key, value in known.items() if value is not None}
    messages = messages or [{"role": "user", "content": prompt}]
    return request_from_openai_chat(
        {**body, "model": "any", "messages": without_file_names(messages)}
    )


def _responses(told: Any, model: str) -> Sequence[Response]:
    """DSPy's own responses, or LiteLLM's as these."""
    if isinstance(told, Response):
        return (told,)
    if isinstance(told, tuple):
        return told
    body = plain(told)
    choices = range(len(body["choices"]))
    return [response_from_openai_chat(body, model=model, choice=choice) for choice in choices]


def _for_nothing(response: Response) -> Response:
    return replace(response, usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0))


def _key(asked: Mapping[str, Any]) -> str:
    text = json.dumps(asked, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def _read(line: bytes, where: str) -> tuple[str, Exchange]:
    try:
        item = json.loads(line)
        response = response_from_dict(item["response"])
        key, cost, model = item["key"], item["cost_usd"], item["model"]
        if not isinstance(key, str) or not isinstance(model, str) or not model.strip():
            raise TypeError("key and model are texts")
        if cost is not None and not _is_amount(cost):
            raise ValueError(f"cost_usd is {cost!r:.80}, not null or dollars of 0 or more")
        usage = (response.usage.input_tokens, response.usage.output_tokens)
        if not all(count is None or _is_amount(count) for count in usage):
            raise ValueError("its usage has numbers that are none of tokens")
        return key, Exchange(response, None if cost is None else float(cost), model)
    except Exception as error:
        raise InvalidParamsError(
            f"{where} is no recorded exchange ({type(error).__name__}: {error}): "
            "record the file again with dspex record",
            data={"param": "model"},
        ) from error


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _texts(messages: Sequence[Mapping[str, Any]]) -> str:
    parts = [part for message in messages for part in message.get("parts") or ()]
    return "\n".join(part["text"] for part in parts if part.get("type") == "text")
