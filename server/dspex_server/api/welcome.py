"""What is there, for whoever opens the server's own address: a page for a browser, else JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, JSONResponse, Response

from .openapi import document

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["NOT_FRAMED", "asks_for_a_page", "welcome"]

_OTHERS = {
    "/graphql": "GraphQL; in a browser GraphiQL, whose scripts come from unpkg.com",
    "/healthz": "whether the server and its database are well",
    "/v1/openapi.json": "the OpenAPI document of the JSON API, whose places are the others here",
}

#: Of a page on which somebody may click: no page of another site has it inside of its own.
NOT_FRAMED = {"x-frame-options": "DENY"}


def asks_for_a_page(request: Request) -> bool:
    """Whether a browser asks: other clients take anything, and say so."""
    return "text/html" in request.headers.get("accept", "")


async def welcome(request: Request) -> Response:
    headers = {"vary": "accept"}
    if not asks_for_a_page(request):
        return JSONResponse({"name": "dspex", "places": _places()}, headers=headers)
    rows = "".join(f"<li>{_linked(path)}: {text}</li>" for path, text in _places().items())
    page = f"<!doctype html><meta charset=utf-8><title>dspex</title><h1>dspex</h1><ul>{rows}</ul>"
    return HTMLResponse(page, headers={**headers, **NOT_FRAMED})


def _places() -> dict[str, str]:
    """Each with what can be done there."""
    paths = {
        path: "; ".join(
            f"{method.upper()}: {operation['summary']}"
            for method, operation in item.items()
            if method != "parameters"
        )
        for path, item in document()["paths"].items()
    }
    return {**_OTHERS, **paths}


def _linked(path: str) -> str:
    return path if "{" in path else f'<a href="{path}">{path}</a>'
