"""The OpenAPI document of the JSON API."""

from __future__ import annotations

from typing import Any

from dspex_bridge.catalog import VERSION

from .calls import METHODS

__all__ = ["CREATE", "document"]

_NULLABLE_TEXT = {"type": ["string", "null"]}
_NULLABLE_NUMBER = {"type": ["number", "null"]}
_MAP = {"type": "object"}

_PROGRAM = {
    "id": {"type": "string"},
    "name": {"type": "string"},
    "module": {"type": "string"},
    "state": {"enum": ["draft", "ready", "optimized", "deployed", "error", "archived"]},
    "revision": {"type": "integer"},
    "deployed_revision": {"type": ["integer", "null"]},
    "executions": {"type": "integer"},
    "failures": {"type": "integer"},
    "total_tokens": {"type": "integer"},
    "cost_usd": {"type": "number"},
    "created_at": {"type": "string", "format": "date-time"},
}
_EXECUTION = {
    "id": {"type": "string"},
    "program_id": {"type": "string"},
    "revision": {"type": "integer"},
    "state": {"enum": ["pending", "running", "completed", "failed", "cancelled"]},
    "inputs": _MAP,
    "outputs": {"type": ["object", "null"]},
    "error": {"oneOf": [{"$ref": "#/components/schemas/ErrorBody"}, {"type": "null"}]},
    "lm": _NULLABLE_TEXT,
    "total_tokens": {"type": "integer"},
    "cost_usd": _NULLABLE_NUMBER,
    "duration_ms": _NULLABLE_NUMBER,
    "cached": {"type": ["boolean", "null"]},
    "trace_id": _NULLABLE_TEXT,
    "created_at": {"type": "string", "format": "date-time"},
    "started_at": _NULLABLE_TEXT,
    "finished_at": _NULLABLE_TEXT,
}
_DATASET = {
    "id": {"type": "string"},
    "name": {"type": "string"},
    "version": {"type": "integer"},
    "size": {"type": "integer"},
    "digest": {"type": "string"},
    "created_at": {"type": "string", "format": "date-time"},
}
_ERROR = {
    "code": {"type": "string"},
    "message": {"type": "string"},
    "retryable": {"type": "boolean"},
    "data": _MAP,
}
#: The parameters of a new program.
CREATE = {
    "name": {"type": "string"},
    "draft": {"type": "boolean"},
    # Whether a program of that name gets another revision.
    "replace": {"type": "boolean"},
    "signature": {"type": ["string", "object"]},
    "module": {"type": "string"},
    "options": _MAP,
    "instructions": {"type": "string"},
    "demos": {"type": "array", "items": _MAP},
    "lm": {"type": "string"},
    "adapter": {"type": "string"},
    "config": _MAP,
    "limits": _MAP,
    "variables": _MAP,
    "inputs": {"type": "array", "items": _MAP},
    "steps": {"type": "array", "items": _MAP},
    "outputs": {"type": "array", "items": {"type": "string"}},
}
_EXECUTE = {
    "inputs": _MAP,
    # One of the LMs that the server was started with.
    "lm": {"type": "string"},
    "adapter": {"type": "string"},
    "config": _MAP,
    "limits": _MAP,
    "timeout_ms": {"type": "integer", "minimum": 1},
}


def document() -> dict[str, Any]:
    """OpenAPI 3.1. The parameters are those of the port protocol's `create` and `execute`, but
    that an LM is one of the server's."""
    program = {"$ref": "#/components/schemas/Program"}
    execution = {"$ref": "#/components/schemas/Execution"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "DSPex", "version": VERSION},
        # The token, where the server was given one.
        "security": [{}, {"token": []}],
        "paths": {
            "/v1/programs": {
                "get": _operation(
                    "The programs, the newest first, 500 at most",
                    {"type": "object", "properties": {"programs": _list_of(program)}},
                ),
                "post": _operation("Make a program", program, status="201", body="Create"),
            },
            "/v1/programs/{program}": {
                "parameters": [_parameter("program", "Its id or its name")],
                "get": _operation("One program", program),
                "delete": _operation("It and all that it did", None, status="204"),
            },
            "/v1/programs/{program}/execute": {
                "parameters": [_parameter("program", "Its id or its name")],
                "post": _operation(
                    "Run it; answers when the execution has ended, however it did. Inputs that do "
                    "not fit are answered with 422 and the failed execution",
                    execution,
                    body="Execute",
                ),
            },
            "/v1/datasets/{dataset}": {
                "parameters": [
                    _parameter("dataset", "The name of the dataset"),
                    _parameter("file", "Ends in .jsonl, .csv or .parquet", place="query"),
                    _parameter("inputs", "Columns, commas between", place="query"),
                    _parameter("outputs", "Columns, commas between", place="query"),
                ],
                "put": {
                    **_operation(
                        "The newest version of a dataset: a new one where the rows are others",
                        {"$ref": "#/components/schemas/Dataset"},
                        status="201",
                    ),
                    "requestBody": {
                        "required": True,
                        "content": {"application/octet-stream": {"schema": {}}},
                    },
                },
            },
            "/v1/executions/{execution}": {
                "parameters": [_parameter("execution", "Its id")],
                "get": _operation("One execution", execution),
            },
            "/v1/executions/{execution}/cancel": {
                "parameters": [_parameter("execution", "Its id")],
                "post": _operation("End it", execution),
            },
            "/v1/calls/{method}": {
                "parameters": [
                    {
                        **_parameter("method", "A method of the port protocol"),
                        "schema": {"enum": list(METHODS)},
                    }
                ],
                "post": _call(),
            },
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Program": _object(_PROGRAM),
                "Execution": _object(_EXECUTION),
                "Dataset": _object(_DATASET),
                "ErrorBody": _object(_ERROR),
                "Error": _object({"error": {"$ref": "#/components/schemas/ErrorBody"}}),
                "Create": {"type": "object", "properties": CREATE, "additionalProperties": False},
                "Execute": {
                    "type": "object",
                    "properties": _EXECUTE,
                    "required": ["inputs"],
                    "additionalProperties": False,
                },
            },
        },
    }


def _call() -> dict[str, Any]:
    operation = _operation(
        "The port protocol: parameters as protocol/SPEC.md has them. Answered with events: its "
        "notifications, then `result` or `error`, which is an ErrorBody. Who hangs up cancels it",
        None,
    )
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": _MAP}},
    }
    operation["responses"]["200"]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    return operation


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _parameter(name: str, description: str, *, place: str = "path") -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path" or name == "file",
        "description": description,
        "schema": {"type": "string"},
    }


def _operation(
    summary: str, answer: dict[str, Any] | None, *, status: str = "200", body: str | None = None
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            status: {"description": "Done"},
            "default": {
                "description": "Why not",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if answer is not None:
        operation["responses"][status]["content"] = {"application/json": {"schema": answer}}
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}},
        }
    return operation
