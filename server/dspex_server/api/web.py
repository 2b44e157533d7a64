"""Everything that is served over HTTP, and what a request may weigh."""

from __future__ import annotations

import logging
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from cross_web import HTTPException
from dspex_protocol.errors import DSPexError, InvalidParamsError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
)

from .access import Access, is_token
from .json_body import parsed
from .loaders import Loaders
from .refusals import HANDLERS, refusal
from .rest import routes, trace_of
from .schema import SCHEMA
from .welcome import NOT_FRAMED, asks_for_a_page, welcome

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dspex_server.app import App

__all__ = ["MAX_BODY_BYTES", "web"]

# A frame to the bridge holds no more.
MAX_BODY_BYTES = 16 * 1024 * 1024

_LOCAL = {"127.0.0.1": ("127.0.0.1", "localhost"), "::1": ("::1", "localhost")}
_LOCAL["localhost"] = _LOCAL["127.0.0.1"]

_EXPECTED = (
    "POST /graphql takes a map of query, and maybe variables and operationName, as JSON with the "
    "header 'content-type: application/json'"
)

_log = logging.getLogger("dspex.server")


def web(app: App, host: str, token: str | None) -> Starlette:
    """`host` is what it is bound to: on the loopback only its own names are answered. Where there
    is a `token`, every request has to show it."""
    graphql = _GraphQL(app, token)
    served = Starlette(
        routes=[
            Route("/", welcome),
            Route("/healthz", _healthz),
            Route("/graphql", graphql, methods=["GET", "POST"]),
            WebSocketRoute("/graphql", graphql),
            *routes(),
        ],
        middleware=[
            Middleware(Access, token=token, hosts=_LOCAL.get(host)),
            Middleware(_BodyLimit),
        ],
        exception_handlers=HANDLERS,
    )
    served.state.app = app
    return served


async def _healthz(request: Request) -> JSONResponse:
    """200 while the database can be read; DSPexError is the boundary's to tell."""
    from sqlalchemy import text

    try:
        async with request.app.state.app.database.read() as session:
            await session.execute(text("SELECT 1"))
    except DSPexError as error:
        # Anybody may ask: where the database is stands in the log alone.
        _log.warning("/healthz: %s", error)
        return JSONResponse({"status": "unavailable"}, 503)
    return JSONResponse({"status": "ok"})


class _Operations(BaseGraphQLTransportWSHandler[Any, None]):
    """What a WebSocket is asked for, each of which is counted while it is under way."""

    async def run_operation(self, operation: Any) -> None:
        with self.context["app"].operations.one():
            await super().run_operation(operation)


class _GraphQL(GraphQL[Any, None]):
    graphql_transport_ws_handler_class = _Operations

    def __init__(self, app: App, token: str | None) -> None:
        super().__init__(
            SCHEMA,
            graphql_ide="graphiql",
            # A mutation or a query is a POST of JSON, which no page of another site can send.
            allow_queries_via_get=False,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
        )
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        try:
            response = await self.run(Request(scope, receive))
        except HTTPException as error:
            # Strawberry would say so as plain text.
            message = f"{error.reason.rstrip('.')}. {_EXPECTED}"
            response = JSONResponse({"errors": [{"message": message}]}, error.status_code)
        await response(scope, receive, send)

    def parse_json(self, data: str | bytes) -> Any:
        try:
            value = parsed(data)
        except InvalidParamsError as error:
            raise HTTPException(400, error.message) from error
        except RecursionError as error:
            raise HTTPException(400, "a value is nested too deep") from error
        if not isinstance(value, (dict, list)):
            raise HTTPException(400, "the body must be a map")
        return value

    def decode_json(self, data: str | bytes) -> object:
        """A message of a WebSocket's, which is closed where that is none."""
        try:
            return parsed(data)
        except (InvalidParamsError, RecursionError) as error:
            raise JSONDecodeError(str(error), "", 0) from error

    def should_render_graphql_ide(self, request: Any) -> bool:
        # Strawberry would give the page to clients that take anything, too.
        return super().should_render_graphql_ide(request) and asks_for_a_page(request)

    async def render_graphql_ide(self, request: Any) -> Response:
        page = await super().render_graphql_ide(request)
        page.headers.update(NOT_FRAMED)
        return page

    async def on_ws_connect(self, context: Any) -> dict[str, object] | None:
        """Answers connection_init. The header was looked at before."""
        if self._token is not None and "authorization" not in context["request"].headers:
            shown = context.get("connection_params") or {}
            if not is_token(shown.get("authorization"), self._token):
                raise ConnectionRejectionError
        return None

    async def get_context(self, request: Any, response: Any) -> Any:
        return {
            "request": request,
            "response": response,
            "app": self._app,
            "trace_id": trace_of(request),
            "loaders": Loaders(self._app.database),
        }


class _BodyLimit:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        read = 0
        text = f"the body has more than {MAX_BODY_BYTES} bytes: send it in several requests"
        too_long = refusal(413, "frame_too_large", text, data={"limit": MAX_BODY_BYTES})
        if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
            await too_long(scope, receive, send)
            return

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise _TooLongError
            return message

        try:
            await self._app(scope, limited, send)
        except _TooLongError:
            await too_long(scope, receive, send)


class _TooLongError(Exception):
    """A body without a declared length went on for too long; nothing was answered yet."""
