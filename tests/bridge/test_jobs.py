"""Jobs: work in processes that can be killed."""

from __future__ import annotations

import asyncio
import functools
import os
import select
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import pytest
from dspex_bridge.health import tree_bytes
from dspex_bridge.jobs.pool import Jobs
from dspex_protocol.errors import InternalError, LMError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from dspex_protocol.messages import Notification
    from dspex_protocol.peer import Handler

P = ParamSpec("P")

ZYGOTE = (sys.executable, str(Path(__file__).with_name("jobs_zygote.py")))
BOUND_S = 30.0

# More than a worker that has answered needs to end, where it does not wait for its bridge.
WORKERS_END_MS = 300


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test on an event loop, for at most BOUND_S."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), BOUND_S))

    return run


class Caller:
    """Runs jobs and hears what they say."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.heard: asyncio.Queue[Notification] = asyncio.Queue()

    async def run(
        self, kind: str, handlers: Mapping[str, Handler] | None = None, **params: Any
    ) -> Any:
        return await self.jobs.run(
            kind, params, handlers=handlers or {}, listener=self.heard.put_nowait
        )

    async def pid(self) -> int:
        """The process of the job that has just told its own."""
        pid: int = (await self.heard.get()).params["pid"]
        return pid


@asynccontextmanager
async def caller(max_at_work: int = 4, **more: Any) -> AsyncIterator[Caller]:
    jobs = Jobs(max_at_work, ZYGOTE, **more)
    try:
        yield Caller(jobs)
    finally:
        await jobs.close()


def fill(control: socket.socket) -> None:
    while True:
        control.send(b"kill 0")  # which is no worker of any zygote's


def has_ended(pidfd: int, bound_ms: float = BOUND_S * 1000) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(bound_ms))


@asynchronous
async def test_the_result_of_a_job_is_what_it_returned() -> None:
    async with caller() as here:
        results = await asyncio.gather(*(here.run("echo", value=i) for i in range(10)))
    assert results == list(range(10))


@asynchronous
async def test_a_request_of_a_job_is_answered_by_its_caller() -> None:
    async def answer(params: dict[str, Any]) -> Any:
        return params["value"] + 1

    async with caller() as here:
        assert await here.run("ask", {"question": answer}, value=41) == 42


@asynchronous
async def test_the_error_that_a_handler_answers_with_reaches_the_caller_as_it_was() -> None:
    async def answer(_params: dict[str, Any]) -> Any:
        raise LMError("too many", data={"kind": "rate_limit"}, retryable=True)

    async with caller() as here:
        with pytest.raises(LMError) as caught:
            await here.run("ask", {"question": answer}, value=1)
    assert (caught.value.data, caught.value.retryable) == ({"kind": "rate_limit"}, True)


@asynchronous
async def test_an_exception_in_a_job_is_its_error() -> None:
    async with caller() as here:
        with pytest.raises(InternalError, match="ZeroDivisionError: by design"):
            await here.run("fail")


@pytest.mark.parametrize("kind", ["spin", "hold_interpreter"])
@asynchronous
async def test_a_caller_that_is_cancelled_kills_its_job_whatever_that_does(kind: str) -> None:
    async with caller() as here:
        task = asyncio.create_task(here.run(kind))
        pidfd = os.pidfd_open(await here.pid())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(has_ended, pidfd)
        os.close(pidfd)
        assert await here.run("echo", value="after") == "after"


@asynchronous
async def test_a_job_that_is_killed_is_an_error_that_says_so() -> None:
    async with caller() as here:
        with pytest.raises(InternalError, match="killed; where nobody killed it"):
            await here.run("die", signal=int(signal.SIGKILL))
        with pytest.raises(InternalError, match="by signal 11"):
            await here.run("die", signal=int(signal.SIGSEGV))


@asynchronous
async def test_without_its_zygote_a_job_ends_and_the_next_one_gets_a_new_zygote() -> None:
    async with caller() as here:
        task = asyncio.create_task(here.run("spin"))
        pid = await here.pid()
        pidfd = os.pidfd_open(pid)
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        with pytest.raises(InternalError, match="the job process ended"):
            await task
        assert await asyncio.to_thread(has_ended, pidfd)
        os.close(pidfd)
        assert await here.run("echo", value="after") == "after"


@asynchronous
async def test_the_zygote_that_forks_has_one_thread() -> None:
    async with caller() as here:
        task = asyncio.create_task(here.run("spin"))
        pid = await here.pid()
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert len(list(Path(f"/proc/{parent}/task").iterdir())) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_worker_has_no_secret_in_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("FROM_A_FILE=hunter2\n")
    for name, value in {
        "OPENAI_API_KEY": "hunter2",
        "DATABASE_URL": "postgres://u:hunter2@db/x",
        "MY_PROVIDER": "hunter2",
        "DENO_AUTH_TOKENS": "hunter2@registry",
        "PYTHON_KEYRING_TOKEN": "hunter2",
        "HTTPS_PROXY": "http://u:hunter2@proxy:1",
        "http_proxy": "http://proxy:1",
        "LC_ALL": "C.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)

    @asynchronous
    async def check() -> None:
        async with caller() as here:
            found = await here.run("environment")
        assert "hunter2" not in str(found)
        assert found["PATH"] == os.environ["PATH"]
        assert (found["http_proxy"], found["LC_ALL"]) == ("http://proxy:1", "C.UTF-8")
        assert "MY_PROVIDER" not in found

    check()


@asynchronous
async def test_what_a_job_prints_and_logs_is_told() -> None:
    async with caller() as here:
        await here.run("talk")
        told = [here.heard.get_nowait().params for _ in range(here.heard.qsize())]
    assert [(item["level"], item["logger"], item["message"]) for item in told] == [
        ("info", "stdout", "a print"),
        ("info", "stdout", "and another, unfinished until now"),
        ("warning", "library", "a log record"),
    ]


@asynchronous
async def test_a_job_goes_on_whatever_logs_in_the_middle_of_its_sending() -> None:
    async def answer(params: dict[str, Any]) -> Any:
        return params["value"]

    async with caller() as here:
        asking = {"question": answer}
        assert await here.run("log_in_collections", asking, count=50) == list(range(50))
        told = [here.heard.get_nowait().params for _ in range(here.heard.qsize())]
    assert {"level": "warning", "logger": "library", "message": "collected: start"} in told


@asynchronous
async def test_a_job_beyond_the_limit_waits_and_one_that_waits_can_be_cancelled() -> None:
    async with caller(max_at_work=1) as here:
        running = asyncio.create_task(here.run("spin"))
        await here.pid()
        waiting = asyncio.create_task(here.run("echo", value=1))
        given_up = asyncio.create_task(here.run("echo", value=2))
        await asyncio.sleep(0)  # both stand in the queue now
        given_up.cancel()
        running.cancel()
        assert await waiting == 1
        outcomes = await asyncio.gather(given_up, running, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)


@asynchronous
async def test_jobs_that_wait_for_the_client_leave_their_places_to_the_jobs_it_asks_for() -> None:
    async with caller(max_at_work=2) as here:
        asked = 0
        all_asked = asyncio.Event()

        async def tool(params: dict[str, Any]) -> Any:
            nonlocal asked
            asked += 1
            if asked == 2:
                all_asked.set()
            await all_asked.wait()
            return await here.run("echo", value=params["value"])

        outer = [here.run("ask_tool", {"call_tool": tool}, value=i) for i in range(2)]
        assert await asyncio.gather(*outer) == [0, 1]


@asynchronous
async def test_a_job_that_asks_for_several_things_at_once_has_one_place() -> None:
    async with caller(max_at_work=1) as here:

        async def tool(params: dict[str, Any]) -> Any:
            return await here.run("echo", value=params["value"])

        values = list(range(5))
        asking = {"call_tool": tool}
        several = [here.run("ask_tools", asking, values=values) for _ in range(2)]
        assert await asyncio.gather(*several) == [values, values]
        # No more, no fewer: one works, the next one waits.
        running = asyncio.create_task(here.run("spin"))
        await here.pid()
        waiting = asyncio.create_task(here.run("echo", value=1))
        await asyncio.sleep(0)
        assert here.jobs._places._at_work == 1
        running.cancel()
        assert await waiting == 1
    assert here.jobs._places._at_work == here.jobs._places._processes == 0


@asynchronous
async def test_where_all_jobs_wait_for_the_client_another_one_is_told_at_last() -> None:
    async with caller(max_processes=2, stall_s=0.2) as here:
        refused: list[OverloadedError] = []

        async def tool(params: dict[str, Any]) -> Any:
            try:
                return await here.run("ask_tool", {"call_tool": tool}, value=params["value"] + 1)
            except OverloadedError as error:
                refused.append(error)
                return params["value"]

        # Each asks for the next, without end.
        assert await here.run("ask_tool", {"call_tool": tool}, value=1) == 2
        assert refused[0].data == {"max_jobs": 2}
        assert refused[0].retryable
        assert await here.run("echo", value="after") == "after"


async def answered_late(params: dict[str, Any]) -> None:
    """Answers a worker that may have ended meanwhile."""
    # As long as this holds the loop nothing is read, and what it returns is written first.
    pidfd = os.pidfd_open(params["pid"])
    has_ended(pidfd, WORKERS_END_MS)
    os.close(pidfd)


@asynchronous
async def test_a_job_that_does_not_wait_for_what_it_asked_is_answered_all_the_same() -> None:
    async with caller() as here:
        handlers = {"question": answered_late}
        assert await here.run("ask_and_leave", handlers, value="done") == "done"


@asynchronous
async def test_a_run_that_is_ended_in_the_middle_of_its_questions_is_answered() -> None:
    async with caller() as here:
        with pytest.raises(InternalError, match=r"^by design$"):
            await here.run("ask_and_give_up", {"question": answered_late})


@asynchronous
async def test_a_run_that_is_stopped_in_the_middle_of_its_questions_is_answered() -> None:
    stops: list[Callable[[str], None]] = []

    async def answer(params: dict[str, Any]) -> None:
        stops[0]("enough")
        await answered_late(params)

    async with caller() as here:
        result = await here.jobs.run(
            "ask_and_stop",
            {},
            handlers={"question": answer},
            listener=here.heard.put_nowait,
            started=stops.append,
        )
        assert result == {"best": "best", "stopped": "enough"}


@asynchronous
async def test_a_job_that_is_stopped_before_it_has_begun_ends() -> None:
    async with caller() as here:
        reason = await here.jobs.run(
            "until_stopped",
            {},
            handlers={},
            listener=here.heard.put_nowait,
            started=lambda stop: stop("unwanted"),
        )
    assert reason == "unwanted"


@asynchronous
async def test_a_zygote_that_does_not_read_hides_no_result_of_a_job() -> None:
    async with caller() as here:
        assert await here.run("echo", value=1) == 1
        zygote = here.jobs._zygote
        assert zygote is not None

        async def answer(params: dict[str, Any]) -> Any:
            os.kill(zygote.pid, signal.SIGSTOP)
            with pytest.raises(BlockingIOError):
                fill(zygote._control)
            return params["value"]

        try:
            assert await here.run("ask", {"question": answer}, value="done") == "done"
            waiting = asyncio.create_task(here.run("echo", value="next"))
            await asyncio.sleep(0)
        finally:
            os.kill(zygote.pid, signal.SIGCONT)
        assert await waiting == "next"


@asynchronous
async def test_the_memory_of_jobs_is_that_of_their_processes_and_of_those_they_start() -> None:
    size = 64 * 2**20
    found: list[int] = []

    async with caller() as here:
        await here.run("echo", value=1)
        root = here.jobs.root_pid
        assert root is not None
        before = tree_bytes(root)

        async def answer(_params: dict[str, Any]) -> None:
            found.append(tree_bytes(root) - before)

        await here.run("hold_memory", {"question": answer}, bytes=size)
    # Pages shared by forks count once, in parts.
    assert 2 * size < found[0] < 4 * size
    assert before > 0
    assert tree_bytes(root) == 0
