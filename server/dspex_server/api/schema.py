"""The GraphQL schema, and the limits of a request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import strawberry
from dspex_protocol.errors import DSPexError
from strawberry.extensions import (
    MaskErrors,
    MaxAliasesLimiter,
    MaxTokensLimiter,
    ParserCache,
    QueryDepthLimiter,
    ValidationCache,
)
from strawberry.schema.config import StrawberryConfig

from .mutations import Mutation
from .queries import Query
from .scalars import SCALARS
from .subscriptions import Subscription

if TYPE_CHECKING:
    from graphql import GraphQLError

__all__ = ["SCHEMA", "sdl"]

# A document has as many tokens as its longest reasonable one (a dataset's rows written out) needs;
# the others keep one request from asking for everything many times over.
_MAX_TOKENS = 100_000
_MAX_DEPTH = 16
_MAX_ALIASES = 50

_MAX_CACHED = 128

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
        lambda: QueryDepthLimiter(max_depth=_MAX_DEPTH),
        lambda: MaxAliasesLimiter(max_alias_count=_MAX_ALIASES),
        lambda: MaxTokensLimiter(max_token_count=_MAX_TOKENS),
        # A client sends the same few documents, with other variables.
        lambda: ParserCache(maxsize=_MAX_CACHED),
        lambda: ValidationCache(maxsize=_MAX_CACHED),
    ],
)


def sdl() -> str:
    """The schema in GraphQL's own language, which is committed beside this file."""
    return f"{SCHEMA.as_str()}\n"
