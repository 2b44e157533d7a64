"""What a server is made of; the API is handed it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .interrupting import UnderWay

if TYPE_CHECKING:
    from .bridges import Bridges
    from .db.database import Database
    from .events import Events
    from .executing import Executor
    from .jobs import Jobs

__all__ = ["App"]


@dataclass(frozen=True)
class App:
    database: Database
    bridges: Bridges
    events: Events
    executor: Executor
    jobs: Jobs
    #: What is asked for over WebSockets, whose ends are not waited for by whoever closes them.
    operations: UnderWay = field(default_factory=UnderWay)
