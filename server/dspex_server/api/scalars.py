"""Scalars and enumerations of the GraphQL schema."""

from enum import Enum
from typing import NewType

import strawberry
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

SCALARS: dict[object, ScalarDefinition] = {
    Long: strawberry.scalar(
        name="Long", description="An integer of 53 bits, signed.", serialize=int, parse_value=int
    )
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
