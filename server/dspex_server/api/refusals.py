"""What is answered where nothing was done: all of HTTP's errors have one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Match, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["HANDLERS", "refusal"]


def refusal(
    status: int,
    code: str,
    message: str,
    *,
    retryable: bool = False,
    data: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    error = {"code": code, "message": message, "retryable": retryable, "data": data or {}}
    return JSONResponse({"error": error}, status, headers)


async def _no_such_path(request: Request, _error: Exception) -> JSONResponse:
    path = request.url.path
    text = f"there is nothing at {path!r}: GET / names what is there"
    return refusal(404, "not_found", text, data={"kind": "path", "name": path})


async def _no_such_method(request: Request, _error: Exception) -> JSONResponse:
    # A path has a route for each of its methods: Starlette's answer names those of the first.
    routes = [
        route
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    allowed = sorted({method for route in routes for method in route.methods or ()})
    text = f"{request.url.path!r} takes no {request.method}, but {', '.join(allowed)}"
    data = {"allowed": allowed}
    headers = {"allow": ", ".join(allowed)}
    return refusal(405, "method_not_allowed", text, data=data, headers=headers)


async def _failed(_request: Request, error: Exception) -> JSONResponse:
    """Starlette raises it again, and uvicorn's log says how."""
    text = f"the server failed ({type(error).__name__}): its log says how"
    return refusal(500, "internal_error", text)


#: For `Starlette(exception_handlers=…)`.
HANDLERS: dict[Any, Any] = {404: _no_such_path, 405: _no_such_method, Exception: _failed}
