"""Who is let in: pages of other sites never are; with a token, only who shows it.

A browser lets any page send requests to this machine. It puts the page's origin into them, which a
page cannot change; other clients send none. A page of the web that has its own name resolved to
this machine is known by that name.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from .refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Access", "is_token"]

# Whether a server is well may be asked by anybody.
_OPEN_PATHS = ("/healthz",)


def is_token(authorization: object, token: str) -> bool:
    """Whether the value of an Authorization header shows the token."""
    scheme, _, shown = str(authorization).partition(" ")
    # Takes as long whatever is right in it.
    is_right = hmac.compare_digest(shown.encode(errors="surrogatepass"), token.encode())
    return scheme.lower() == "bearer" and is_right


class Access:
    """A WebSocket without the header is let through: it may show the token in connection_init,
    since a browser can give it no header."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: Collection[str] | None) -> None:
        """`hosts` are the names that it is asked by; None: any."""
        self._app = app
        self._token = token
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._refusal(scope)
        if answer is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            text = f"the request's Host is none of this server's: ask {' or '.join(self._hosts)}"
            return refusal(400, "invalid_request", text)
        origin = headers.get("origin")
        if origin is not None and _place(origin) != headers.get("host"):
            return refusal(403, "forbidden", "pages of other sites are not let in")
        if self._token is None or scope["path"] in _OPEN_PATHS:
            return None
        shown = headers.get("authorization")
        if (shown is None and scope["type"] == "websocket") or is_token(shown, self._token):
            return None
        text = "this server wants its token: send 'Authorization: Bearer …' with each request"
        return refusal(401, "unauthorized", text, headers={"www-authenticate": "Bearer"})


def _name(host: str) -> str | None:
    """Without the port; None where it is no name."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _place(origin: str) -> str | None:
    """Its host and port; None where it is no URL."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
