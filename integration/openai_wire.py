"""OpenAI's bodies: the JSON of completions, responses, embeddings, models and stream events.

Everything but the caller's own text is a function of the request, so two runs give the same
bytes: ids count the requests and the time of creation is fixed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from integration.openai_script import Answer, Request

__all__ = [
    "BadRequest",
    "chat_body",
    "chat_events",
    "check",
    "dumps",
    "embeddings_body",
    "models_body",
    "responses_body",
    "responses_events",
]

Json = dict[str, Any]

CREATED = 1_700_000_000
"""Seconds since 1970: any instant does, if it is always the same."""

DIMENSIONS = 64
"""Length of an embedding where the request does not say: enough that words seldom share a place."""


class BadRequest(Exception):
    """The body is not what OpenAI's API takes."""


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def check(path: str, body: Any) -> None:
    """Refuse a body that OpenAI would refuse, so that a broken client is found out.

    Raises `BadRequest` with the parameter's name and what was expected.
    """
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    if not isinstance(body.get("model"), str):
        raise BadRequest("model must be a string")
    if path.endswith("/chat/completions"):
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest("messages must be a list of at least one message")
        if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
            raise BadRequest("each of messages must be an object with a role")
        n = body.get("n")
        if n is not None and (type(n) is not int or n < 1):
            raise BadRequest("n must be an integer of at least 1")
    elif not isinstance(body.get("input"), str | list):
        raise BadRequest("input must be a string or a list")


def _usage(request: Request, answer: Answer, choices: int) -> tuple[int, int]:
    if answer.usage is not None:
        return answer.usage
    prompt = sum(len(text.split()) for _, text in request.turns)
    return prompt, sum(len(answer.choice(i).split()) for i in range(choices))


def _pieces(text: str) -> list[str]:
    """The text a word at a time; joined, they are the text."""
    return re.findall(r"\s*\S+\s*|\s+", text)


# Chat completions


def _finish_reason(answer: Answer) -> str:
    return answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")


def _tool_calls(request: Request, answer: Answer) -> list[Json]:
    return [
        {
            "id": f"call_{request.number}_{i}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for i, call in enumerate(answer.tool_calls)
    ]


def _chat_usage(request: Request, answer: Answer, choices: int) -> Json:
    prompt, completion = _usage(request, answer, choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _chat_head(request: Request, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{request.number}",
        "object": kind,
        "created": CREATED,
        "model": request.model,
        "system_fingerprint": None,
    }


def chat_body(request: Request, answer: Answer) -> Json:
    """The `chat.completion` object."""
    calls = _tool_calls(request, answer)
    choices = []
    for index in range(request.body.get("n") or 1):
        content = answer.choice(index)
        message: Json = {"role": "assistant", "content": content or None, "refusal": None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if calls:
            message["tool_calls"] = calls
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": None,
                "finish_reason": _finish_reason(answer),
            }
        )
    head = _chat_head(request, "chat.completion")
    return {**head, "choices": choices, "usage": _chat_usage(request, answer, len(choices))}


def chat_events(request: Request, answer: Answer) -> Iterator[bytes]:
    """The server-sent events of a streamed chat completion, a word each, then `[DONE]`."""
    head = _chat_head(request, "chat.completion.chunk")
    with_usage = bool((request.body.get("stream_options") or {}).get("include_usage"))
    choices = request.body.get("n") or 1

    def event(delta: Json, index: int, finish_reason: str | None = None) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        # OpenAI sends a null usage in every chunk but the last where usage was asked for.
        usage = {"usage": None} if with_usage else {}
        return _event({**head, "choices": [choice], **usage})

    for index in range(choices):
        yield event({"role": "assistant", "content": ""}, index)
        for piece in _pieces(answer.reasoning):
            yield event({"reasoning_content": piece}, index)
        for piece in _pieces(answer.choice(index)):
            yield event({"content": piece}, index)
        for position, call in enumerate(_tool_calls(request, answer)):
            arguments = call["function"]["arguments"]
            opening = {**call, "function": {**call["function"], "arguments": ""}}
            yield event({"tool_calls": [{"index": position, **opening}]}, index)
            for piece in _pieces(arguments):
                delta = {"index": position, "function": {"arguments": piece}}
                yield event({"tool_calls": [delta]}, index)
        yield event({}, index, _finish_reason(answer))
    if with_usage:
        yield _event({**head, "choices": [], "usage": _chat_usage(request, answer, choices)})
    yield b"data: [DONE]\n\n"


def _event(payload: Json, name: str | None = None) -> bytes:
    prefix = b"" if name is None else b"event: %b\n" % name.encode()
    return prefix + b"data: %b\n\n" % dumps(payload)


# Responses


def _output(request: Request, answer: Answer) -> list[Json]:
    items: list[Json] = []
    if answer.choice(0):
        text = {"type": "output_text", "text": answer.choice(0), "annotations": []}
        items.append(
            {
                "id": f"msg_{request.number}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [text],
            }
        )
    for i, call in enumerate(answer.tool_calls):
        items.append(
            {
                "id": f"fc_{request.number}_{i}",
                "type": "function_call",
                "status": "completed",
                "call_id": f"call_{request.number}_{i}",
                "name": call.name,
                "arguments": json.dumps(dict(call.arguments)),
            }
        )
    return items


_INCOMPLETE: Mapping[str, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


def responses_body(request: Request, answer: Answer) -> Json:
    """The `response` object."""
    prompt, completion = _usage(request, answer, 1)
    reason = _INCOMPLETE.get(_finish_reason(answer))
    return {
        **_response_head(request, "completed" if reason is None else "incomplete"),
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": _output(request, answer),
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + completion,
        },
    }


def _response_head(request: Request, status: str) -> Json:
    return {
        "id": f"resp_{request.number}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": request.body.get("instructions"),
        "metadata": {},
        "model": request.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": request.body.get("temperature"),
        "tool_choice": request.body.get("tool_choice", "auto"),
        "tools": request.body.get("tools", []),
        "top_p": request.body.get("top_p"),
        "usage": None,
    }


def responses_events(request: Request, answer: Answer) -> Iterator[bytes]:
    """The server-sent events of a streamed response, a word each."""
    number = 0

    def event(name: str, **payload: Any) -> bytes:
        nonlocal number
        number += 1
        return _event({"type": name, "sequence_number": number - 1, **payload}, name)

    head = _response_head(request, "in_progress")
    yield event("response.created", response=head)
    yield event("response.in_progress", response=head)
    for index, item in enumerate(_output(request, answer)):
        at = {"output_index": index, "item_id": item["id"]}
        opening = {**item, "status": "in_progress"}
        if item["type"] == "message":
            opening["content"] = []
            part = item["content"][0]
            inside = {**at, "content_index": 0}
            yield event("response.output_item.added", output_index=index, item=opening)
            yield event("response.content_part.added", **inside, part={**part, "text": ""})
            for piece in _pieces(part["text"]):
                yield event("response.output_text.delta", **inside, delta=piece)
            yield event("response.output_text.done", **inside, text=part["text"])
            yield event("response.content_part.done", **inside, part=part)
        else:
            opening["arguments"] = ""
            arguments = item["arguments"]
            yield event("response.output_item.added", output_index=index, item=opening)
            for piece in _pieces(arguments):
                yield event("response.function_call_arguments.delta", **at, delta=piece)
            yield event("response.function_call_arguments.done", **at, arguments=arguments)
        yield event("response.output_item.done", output_index=index, item=item)
    body = responses_body(request, answer)
    yield event(f"response.{body['status']}", response=body)


# Embeddings and models


def embeddings_body(request: Request) -> Json:
    """One vector a text, as floats or, where the request says so, as base64 of 32-bit floats."""
    given = request.body["input"]
    texts = [given] if isinstance(given, str) else [str(text) for text in given]
    length = int(request.body.get("dimensions") or DIMENSIONS)
    as_base64 = request.body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        vector = _embedding(text, length)
        packed = base64.b64encode(struct.pack(f"<{length}f", *vector)).decode()
        data.append(
            {
                "object": "embedding",
                "index": index,
                "embedding": packed if as_base64 else vector,
            }
        )
    tokens = sum(len(text.split()) for text in texts)
    return {
        "object": "list",
        "data": data,
        "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _embedding(text: str, length: int) -> list[float]:
    """A unit vector in which texts that share words lie close: every word adds 1 or -1 at a place
    that its hash gives."""
    vector = [0.0] * length
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        vector[int.from_bytes(digest[:4], "big") % length] += 1.0 if digest[4] % 2 else -1.0
    norm = math.hypot(*vector)
    return [x / norm for x in vector] if norm else vector


def models_body(models: Sequence[str]) -> Json:
    """The list of models."""
    data = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "local"} for name in models
    ]
    return {"object": "list", "data": data}
