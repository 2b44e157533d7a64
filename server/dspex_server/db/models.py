"""The tables. What may change how is said by `resources`; nothing here decides anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dspex_server.ids import new_id

__all__ = [
    "Base",
    "Batch",
    "Dataset",
    "DatasetRow",
    "Execution",
    "OptimizationJob",
    "Program",
    "Revision",
    "Server",
    "Signature",
    "Transition",
    "now",
]


def now() -> datetime:
    return datetime.now(UTC)


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime on both databases: SQLite keeps no offset, so that UTC is kept there."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    # A migration can only change what has a name.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # JSON and not JSONB: a text may hold U+0000, which JSONB refuses.
    # none_as_null: an absent value is NULL, not the JSON text "null".
    type_annotation_map = {  # noqa: RUF012 - it is SQLAlchemy's
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        datetime: UTCDateTime,
        str: Text,
    }


class _Resource:
    """What every resource has. Ids are made here, so that they are known before a row is."""

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Signature(_Resource, Base):
    """One version of a named signature; `definition` is the protocol's map."""

    __tablename__ = "signatures"
    __table_args__ = (UniqueConstraint("name", "version"),)

    name: Mapped[str]
    version: Mapped[int]
    definition: Mapped[dict[str, Any]]
    text: Mapped[str]
    state: Mapped[str]


class Program(_Resource, Base):
    """What programs have beside their revisions. A pipeline has no signature of its own row."""

    __tablename__ = "programs"

    name: Mapped[str] = mapped_column(unique=True)
    signature_id: Mapped[str | None] = mapped_column(ForeignKey("signatures.id"), index=True)
    module: Mapped[str]
    lm: Mapped[str | None]
    adapter: Mapped[str | None]
    config: Mapped[dict[str, Any]]
    state: Mapped[str]
    revision: Mapped[int]
    deployed_revision: Mapped[int | None]
    executions: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    total_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    cost_usd: Mapped[float] = mapped_column(default=0.0)


class Revision(_Resource, Base):
    """One state of a program, as `load` of the protocol takes it. It never changes."""

    __tablename__ = "revisions"
    __table_args__ = (UniqueConstraint("program_id", "number"),)

    program_id: Mapped[str] = mapped_column(ForeignKey("programs.id", ondelete="CASCADE"))
    number: Mapped[int]
    parent: Mapped[int | None]
    origin: Mapped[str]
    job_id: Mapped[str | None]
    score: Mapped[float | None]
    state: Mapped[dict[str, Any]]


class Execution(_Resource, Base):
    """One run of a revision. `owner` is the server that answers for it while it is open."""

    __tablename__ = "executions"
    __table_args__ = (
        Index("ix_executions_program", "program_id", "created_at"),
        Index("ix_executions_open", "state", "owner"),
        Index("ix_executions_batch", "batch_id", "batch_index", unique=True),
    )

    program_id: Mapped[str] = mapped_column(ForeignKey("programs.id", ondelete="CASCADE"))
    revision: Mapped[int]
    state: Mapped[str]
    inputs: Mapped[dict[str, Any]]
    outputs: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    lm: Mapped[str | None]
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    total_tokens: Mapped[int] = mapped_column(default=0)
    cost_usd: Mapped[float | None]
    duration_ms: Mapped[float | None]
    cached: Mapped[bool | None]
    trace_id: Mapped[str | None]
    owner: Mapped[str | None]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    batch_index: Mapped[int | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class _Job(_Resource):
    program_id: Mapped[str] = mapped_column(ForeignKey("programs.id", ondelete="CASCADE"))
    revision: Mapped[int]
    state: Mapped[str]
    # Of two requests with one key the second gets the first one's job.
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class OptimizationJob(_Job, Base):
    """A search for a better revision. `optimizer`, `metric` and `params` are as the protocol's."""

    __tablename__ = "optimization_jobs"

    optimizer: Mapped[dict[str, Any]]
    metric: Mapped[dict[str, Any] | None]
    params: Mapped[dict[str, Any]]
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    valset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    progress: Mapped[dict[str, Any] | None]
    score: Mapped[float | None]
    base_score: Mapped[float | None]
    result_revision: Mapped[int | None]
    total_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    cost_usd: Mapped[float | None]


class Batch(_Job, Base):
    """Many inputs of one program. Each item is an execution, written when the batch is."""

    __tablename__ = "batches"

    total: Mapped[int]
    completed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)


class Dataset(_Resource, Base):
    """One version of a named list of examples. It never changes."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("name", "version"),)

    name: Mapped[str]
    version: Mapped[int]
    size: Mapped[int]
    digest: Mapped[str]


class DatasetRow(Base):
    __tablename__ = "dataset_rows"

    dataset_id: Mapped[str] = mapped_column(
        ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    inputs: Mapped[dict[str, Any]]
    outputs: Mapped[dict[str, Any]]


class Transition(Base):
    """One change of a resource's state, or its making (`source` is then NULL)."""

    __tablename__ = "transitions"
    __table_args__ = (Index("ix_transitions_of", "resource", "resource_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    resource: Mapped[str]
    resource_id: Mapped[str]
    source: Mapped[str | None]
    target: Mapped[str]
    reason: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(default=now)


class Server(Base):
    """A process that serves this database. One that has not been seen for a while has died."""

    __tablename__ = "servers"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime] = mapped_column(default=now)
