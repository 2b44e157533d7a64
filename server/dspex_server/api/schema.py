"""The GraphQL schema, and what is told of errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import strawberry
from dspex_protocol.errors import DSPexError
from strawberry.extensions import MaskErrors
from strawberry.schema.config import StrawberryConfig

from .documents import Documents
from .mutations import Mutation
from .queries import Query
from .scalars import SCALARS
from .subscriptions import Subscription

if TYPE_CHECKING:
    from graphql import GraphQLError

__all__ = ["SCHEMA", "sdl"]

_log = logging.getLogger("dspex.server")


def _is_hidden(error: GraphQLError) -> bool:
    """What nobody foresaw. What is wrong with the document itself is told, and our own errors."""
    cause = error.original_error
    if isinstance(cause, DSPexError):
        error.extensions = {"code": cause.code, "retryable": cause.retryable, "data": cause.data}
        return False
    return cause is not None


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:  # noqa: ARG002
        """Logged where they are ours; a client's mistakes are the client's to read."""
        for error in errors:
            if error.original_error is not None and not isinstance(
                error.original_error, DSPexError
            ):
                _log.error("a resolver failed at %s", error.path, exc_info=error.original_error)


SCHEMA = _Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map=SCALARS),
    extensions=[
        lambda: MaskErrors(_is_hidden, "the server failed: its log says how"),
        Documents,
    ],
)


def sdl() -> str:
    """The schema in GraphQL's own language, which is committed beside this file."""
    return f"{SCHEMA.as_str()}\n"
