"""What a run was answered, on disk: so that the same run, begun again, pays for nothing twice.

A checkpoint is a file of JSON lines. The first says which run it belongs to; each other one is an
exchange: the digest of what was asked, and the answer. A run that is begun again asks the same
questions, and gets the n-th recorded answer to the n-th asking of one; where the record ends it
goes on, and the record grows. With a deterministic LM and seed it therefore ends as if it had
never been broken off.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections import defaultdict, deque
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from dspex_protocol.codec import encode
from dspex_protocol.errors import InvalidParamsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dspex_bridge.state_dir import StateDir

__all__ = ["FOLDER", "Checkpoint"]

#: Where checkpoints lie in the state directory.
FOLDER = "checkpoints"

_FORMAT_VERSION = 1

# What is under way when a run ends has mostly been paid for: it may take so long to come in.
_GRACE_S = 0.8

# Answers that are not on the disk yet are paid for again after a failure of the machine; one of
# the process loses none.
_SYNC_EVERY_S = 0.5


class Checkpoint:
    """An open checkpoint; nobody else has it open. Used on the event loop's thread.

    `run` is what makes a run the same: whatever is in it has a form on the wire. Raises
    InvalidParamsError where the file is another run's, is open elsewhere or is damaged.
    """

    def __init__(self, state_dir: StateDir, name: str, run: Mapping[str, Any]) -> None:
        self._fd = state_dir.open_to_append(f"{FOLDER}/{name}.jsonl", "optimize: checkpoint")
        self._answers: defaultdict[str, deque[Any]] = defaultdict(deque)
        self._syncing: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[Any]] = set()
        self._name = name
        self.replayed = 0
        self.recorded = 0
        try:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UnavailableError(
                    f"the checkpoint {name!r} is in use by another run: wait for it, or choose "
                    "another name"
                ) from None
            self._read(name, {key: _digest(value) for key, value in run.items()})
        except BaseException:
            os.close(self._fd)
            raise

    async def answer(
        self, method: str, params: dict[str, Any], ask: Callable[[dict[str, Any]], Awaitable[Any]]
    ) -> Any:
        """The recorded answer, or `ask(params)`'s, which is recorded, even where nobody waits for
        it any more. Errors are not."""
        key = _digest([method, params])
        answers = self._answers.get(key)
        if answers:
            self.replayed += 1
            return answers.popleft()

        async def record() -> Any:
            answer = await ask(params)
            self._append({"asked": key, "answer": answer})
            self.recorded += 1
            return answer

        asking = asyncio.create_task(record())
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        return await asyncio.shield(asking)

    def told(self) -> dict[str, Any]:
        """What a result says of it."""
        return {"name": self._name, "replayed": self.replayed, "recorded": self.recorded}

    async def close(self) -> None:
        if asking := set(self._asking):
            _, late = await asyncio.wait(asking, timeout=_GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if self._syncing is not None:
            self._syncing.cancel()
            with suppress(asyncio.CancelledError):
                await self._syncing
        await asyncio.to_thread(os.fsync, self._fd)
        os.close(self._fd)

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())

    async def _sync(self) -> None:
        try:
            await asyncio.sleep(_SYNC_EVERY_S)
            await asyncio.to_thread(os.fsync, self._fd)
        finally:
            self._syncing = None

    def _read(self, name: str, run: dict[str, str]) -> None:
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._fd, whole)  # the line that was being written when the run ended
        lines = data[:whole].splitlines()
        if not lines:
            self._append({"format_version": _FORMAT_VERSION, "run": run})
            return
        try:
            first, *rest = (json.loads(line) for line in lines)
            known = first["run"] if first["format_version"] == _FORMAT_VERSION else {}
            for line in rest:
                self._answers[line["asked"]].append(line["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidParamsError(
                f"optimize: checkpoint: the file of {name!r} is damaged ({error}): delete it, or "
                "choose another name",
                data={"param": "checkpoint"},
            ) from error
        differs = sorted(key for key in {*known, *run} if known.get(key) != run.get(key))
        if differs:
            raise InvalidParamsError(
                f"optimize: checkpoint: {name!r} belongs to a run with another "
                f"{', '.join(differs)}: send what that run was begun with, or choose another name",
                data={"param": "checkpoint", "differs": differs},
            )


def _digest(value: Any) -> str:
    return sha256(encode(_sorted(value))).hexdigest()


def _sorted(value: Any) -> Any:
    """Maps in one order: the same parameters may come in another one."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
