"""What is there, for whoever opens the server's own address: a page for a browser, else JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, JSONResponse, Response

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["NOT_FRAMED", "asks_for_a_page", "welcome"]

_PLACES = {
    "/graphql": "GraphQL; in a browser GraphiQL, whose scripts come from unpkg.com",
    "/v1/openapi.json": "the OpenAPI document of the JSON API",
    "/v1/programs": "the JSON API's programs",
    "/healthz": "whether the server and its database are well",
}

#: Of a page on which somebody may click: no page of another site has it inside of its own.
NOT_FRAMED = {"x-frame-options": "DENY"}


def asks_for_a_page(request: Request) -> bool:
    """Whether a browser asks: other clients take anything, and say so."""
    return "text/html" in request.headers.get("accept", "")


async def welcome(request: Request) -> Response:
    headers = {"vary": "accept"}
    if not asks_for_a_page(request):
        return JSONResponse({"name": "dspex", "places": _PLACES}, headers=headers)
    rows = "".join(
        f'<li><a href="{path}">{path}</a>: {text}</li>' for path, text in _PLACES.items()
    )
    page = f"<!doctype html><meta charset=utf-8><title>dspex</title><h1>dspex</h1><ul>{rows}</ul>"
    return HTMLResponse(page, headers={**headers, **NOT_FRAMED})
