"""GraphQL documents: their limits, and that one which was found to be right is not looked at again.

A client sends the same few documents, with other variables; to check one against the schema takes
longer than to run it. Strawberry's own caches are keyed by the parsed document, which has to be
hashed whole, and by rules, which its limiters make anew for each request.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from strawberry.extensions import MaxAliasesLimiter, QueryDepthLimiter, SchemaExtension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphql import DocumentNode

__all__ = ["Documents"]

# A document has as many tokens as its longest reasonable one (a dataset's rows written out) needs;
# the others keep one request from asking for everything many times over.
_MAX_TOKENS = 100_000
_RULES = (
    *QueryDepthLimiter(max_depth=16).validation_rules,
    *MaxAliasesLimiter(max_alias_count=50).validation_rules,
)

# Documents that are kept, and the characters of the longest: one with its values written out in it
# does not come again.
_MAX_KNOWN = 128
_MAX_KNOWN_CHARS = 10_000

_known: OrderedDict[str, DocumentNode] = OrderedDict()


class Documents(SchemaExtension):
    """One for each request; what is known is of all."""

    def on_operation(self) -> Iterator[None]:
        context = self.execution_context
        context.parse_options["max_tokens"] = _MAX_TOKENS
        context.validation_rules += _RULES
        yield

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        context.graphql_document = _known.get(context.query or "")
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        text = context.query or ""
        if text in _known:
            _known.move_to_end(text)
            context.pre_execution_errors = []
        yield
        document = context.graphql_document
        is_right = document is not None and not context.pre_execution_errors
        if document is not None and is_right and len(text) <= _MAX_KNOWN_CHARS:
            _known[text] = document
            if len(_known) > _MAX_KNOWN:
                _known.popitem(last=False)
