"""Scalars and enumerations of the GraphQL schema."""

import json
from dataclasses import replace
from enum import Enum
from typing import Any, NewType

import strawberry
from graphql import GraphQLError, ValueNode
from graphql.utilities import value_from_ast_untyped
from strawberry.scalars import JSON
from strawberry.schema.types.scalar import DEFAULT_SCALAR_REGISTRY
from strawberry.types.scalar import ScalarDefinition

__all__ = [
    "SCALARS",
    "Direction",
    "ExecutionState",
    "JobState",
    "Long",
    "ProgramState",
    "SignatureState",
]

#: GraphQL's Int has 32 bits, which the tokens of a long life pass.
Long = NewType("Long", int)


def _json(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """JSON that is written out in a document; in variables it has been looked at with the body."""
    value = value_from_ast_untyped(node, variables)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise GraphQLError("a number is too large for JSON", node) from error
    return value


SCALARS: dict[object, ScalarDefinition] = {
    JSON: replace(DEFAULT_SCALAR_REGISTRY[JSON], parse_literal=_json),
    Long: strawberry.scalar(
        name="Long", description="An integer of 53 bits, signed.", serialize=int, parse_value=int
    ),
}


@strawberry.enum
class SignatureState(Enum):
    DRAFT = "draft"
    ACTIVE = "active"
    DEPRECATED = "deprecated"


@strawberry.enum
class ProgramState(Enum):
    DRAFT = "draft"
    READY = "ready"
    OPTIMIZED = "optimized"
    DEPLOYED = "deployed"
    ERROR = "error"
    ARCHIVED = "archived"


@strawberry.enum
class ExecutionState(Enum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@strawberry.enum
class JobState(Enum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@strawberry.enum
class Direction(Enum):
    ASC = "asc"
    DESC = "desc"
