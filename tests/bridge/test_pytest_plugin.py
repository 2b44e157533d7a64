"""The pytest plugin, by test suites that use it: each is run by a pytest of its own."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dspex_bridge.testing.client_elsewhere import ClientElsewhere
from dspex_protocol.client import Client

from integration.lifetime import group, seconds_until_gone

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent.parent
GUIDE = ROOT / "bridge" / "PYTEST.md"

# Far above what any of these takes.
BOUND_S = 100

# Hypothesis takes most of the time that a pytest takes to start.
OPTIONS = ("-W", "error", "-p", "no:hypothesispytest")

# A warning of DSPy's: the answer is cut off after three tokens.
CUT_OFF = """
    dspex.execute({"signature": "question -> answer, why"}, {"question": "A pipe?"},
                  config={"max_tokens": 3})
"""


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess(*OPTIONS, *options, timeout=BOUND_S)


def test_the_guide_runs_as_it_stands(pytester: pytest.Pytester) -> None:
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", GUIDE.read_text(), re.M | re.S)
    assert len(blocks) == GUIDE.read_text().count("```python")
    for name, source in blocks:
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    (pytester.path / "other" / "test_other.py").write_text(
        "def test_it(dspex):\n"
        "    limits = dspex.request('initialize', {'protocol_version': 1})['limits']\n"
        "    assert limits['max_in_flight'] == 8\n"
    )
    tests = sum(source.count("def test_") for _, source in blocks) + 1
    result = pytester.runpytest_subprocess(*OPTIONS, timeout=BOUND_S)
    result.assert_outcomes(passed=tests)


def test_loading_the_plugin_imports_nothing_else() -> None:
    script = (
        "import sys, pytest; before = set(sys.modules); import dspex_bridge.pytest_plugin; "
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['dspex_bridge', 'dspex_bridge.pytest_plugin']\n"


def test_tests_share_a_bridge_and_find_nothing_of_each_other(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest
        from dspex_protocol.errors import NotFoundError

        pids = []

        def test_one(dspex):
            pids.append(dspex.pid)
            lm = {"model": "openai/nobody", "api_key": "sk-x"}
            dspex.configure(lms={"main": lm, "other": lm}, default_lm="other", adapter="xml")
            dspex.create("question -> answer", program="qa")
            dspex.tool(test_one)

        def test_two(dspex):
            assert pids == [dspex.pid]
            with pytest.raises(NotFoundError):
                dspex.execute("qa", {"question": "?"})
            state = dspex.configure()
            assert state["lms"]["main"] == {"model": "demo/knn"}
            assert (state["default_lm"], state["adapter"]) == ("main", "chat")
            assert dspex._callbacks.tools == {}
        """,
    )
    result.assert_outcomes(passed=2)


def test_limits_spent_budgets_and_embedders_end_with_their_test(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        import pytest
        from dspex_protocol.errors import BudgetExceededError, NotFoundError

        ONCE = {"max_calls": 1}
        QA = {"signature": "question -> answer"}
        pids = []

        def ask(dspex, text, **params):
            return dspex.execute(QA, {"question": text}, **params)

        def spend(dspex):
            pids.append(dspex.pid)
            ask(dspex, "One?")
            with pytest.raises(BudgetExceededError):
                ask(dspex, "Two?")

        def look(dspex):
            assert dspex.pid not in pids
            state = dspex.configure()
            assert not any(state.get("limits", {}).values())
            assert state["lms"] == {"main": {"model": "demo/knn"}}
            assert not state.get("embedders")
            ask(dspex, "Three?")
            ask(dspex, "Four?")

        def test_the_bridges(dspex):
            dspex.configure(limits=ONCE)
            spend(dspex)

        def test_nothing_of_the_bridges(dspex):
            look(dspex)

        def test_mains(dspex):
            dspex.configure(lms={"main": {"model": "demo/knn", "limits": ONCE}})
            spend(dspex)

        def test_nothing_of_mains(dspex):
            look(dspex)

        @pytest.mark.dspex(lm={"model": "demo/knn", "limits": ONCE})
        def test_the_markers(dspex):
            spend(dspex)

        @pytest.mark.dspex(lm={"model": "demo/knn", "limits": ONCE})
        def test_the_markers_again(dspex):
            spend(dspex)

        @pytest.mark.anyio
        async def test_embedders(dspex_client, dspex):
            await dspex_client.configure(embedders={"e": {"model": "openai/e", "api_key": "k"}})
            assert dspex_client.process.pid == dspex.pid
            pids.append(dspex.pid)

        def test_nothing_of_embedders(dspex):
            look(dspex)

        def test_limits_that_come_too_late(dspex):
            ask(dspex, "Five?")
            with pytest.raises(RuntimeError, match="fresh=True"):
                dspex.configure(limits=ONCE)

        @pytest.mark.dspex(fresh=True)
        def test_limits_at_any_time(dspex):
            dspex.create("question -> answer", program="qa")
            dspex.configure(limits=ONCE)
            spend(dspex)

        @pytest.fixture
        def anyio_backend():
            return "asyncio"
        """,
    )
    result.assert_outcomes(passed=10)


def test_a_fresh_bridge_ends_with_its_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import os
        import pytest

        pids = []

        def test_shared(dspex):
            pids.append(dspex.pid)

        @pytest.mark.dspex(fresh=True)
        def test_fresh(dspex):
            assert dspex.pid not in pids
            pids.append(dspex.pid)

        def test_shared_again(dspex):
            shared, fresh = pids
            assert dspex.pid == shared
            with pytest.raises(ProcessLookupError):
                os.kill(fresh, 0)
        """,
    )
    result.assert_outcomes(passed=3)


def test_work_that_a_test_leaves_behind_is_cancelled(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import threading

        came, left = threading.Event(), []

        def hang(prompt):
            came.set()
            threading.Event().wait(30)
            return "too late"

        def test_one(dspex, dspex_script):
            dspex_script.always(hang)
            dspex.create("question -> answer", program="qa")
            params = {"program": "qa", "inputs": {"question": "?"}}
            left.append(dspex.submit("execute", params, timeout_ms=None, listener=None))
            assert came.wait(30)

        def test_two(dspex):
            assert left[0].cancelled()
            assert dspex.request("stats")["in_flight"] == 0
        """,
    )
    result.assert_outcomes(passed=2)


def test_scripted_fields_come_back_typed_and_streamed_through_each_adapter(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        import datetime
        from decimal import Decimal
        import pytest

        GIVEN = {
            "text": 'Ten < 20 & "so" on: [1]', "sure": True, "count": 3, "tags": ["a b", "c"],
            "day": datetime.date(2026, 2, 1), "price": Decimal("1.50"), "note": None,
            "table": {"a": 1, "b": 2}, "unasked": 1,
        }
        SIGNATURE = (
            "question -> text, sure: bool, count: int, tags: list[str], day: date, price: decimal, "
            "note: str | None, table: dict[str, int]"
        )

        @pytest.mark.parametrize("adapter", ["chat", "json", "xml"])
        @pytest.mark.parametrize("stream", [None, {}])
        def test_it(dspex, dspex_script, stream, adapter):
            dspex.configure(adapter=adapter)
            dspex_script.answer(GIVEN)
            heard = []
            outputs = dspex.execute(
                {"signature": SIGNATURE}, {"question": "?"}, stream=stream,
                listener=heard.append,
            )["outputs"]
            wanted = {**GIVEN, "day": "2026-02-01"}
            del wanted["unasked"]
            assert outputs == wanted
            assert [prompt.fields for prompt in dspex_script.prompts] == [list(outputs)]
            chunks = [one.params for one in heard if one.params["field"] == "text"]
            text = "".join(chunk["text"] for chunk in chunks)
            assert text == (GIVEN["text"] if stream is not None else "")
        """,
    )
    result.assert_outcomes(passed=6)


def test_a_script_without_an_answer_fails_the_test_that_expected_an_error(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        import pytest
        from dspex_protocol.errors import LMError

        @pytest.mark.parametrize("script", [[], [{"answer": "x"}], [lambda prompt: 1 / 0], [7]],
                                 ids=["none", "field", "raises", "type"])
        def test_it(dspex, dspex_script, script):
            dspex_script.answer(*script)
            with pytest.raises(LMError):
                dspex.execute({"signature": "question -> answer, why"}, {"question": "?"})

        def test_that_fails(dspex, dspex_script):
            dspex.execute({"signature": "question -> answer"}, {"question": "?"})
        """,
    )
    result.assert_outcomes(passed=4, errors=4, failed=1)
    result.stdout.fnmatch_lines(
        [
            "scripted LM, prompt 1: LookupError: no answer is left for a prompt that asks for "
            "answer, why: *",
            "scripted LM, prompt 1: ValueError: the prompt asks for answer, why; the script gives "
            "answer, so why is missing",
            "scripted LM, prompt 1: ZeroDivisionError: *",
            "scripted LM, prompt 1: ValueError: an answer is a map of fields, a text or a Failure, "
            "not int: 7",
        ]
    )


def test_a_failing_test_shows_what_the_bridge_said_in_it(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""
        import pytest
        from dspex_protocol.errors import OutputValidationError

        def test_passes(dspex):
            with pytest.raises(OutputValidationError):
                {CUT_OFF.strip()}
            assert "truncated" in dspex.stderr
            assert "truncated" in dspex.logs[-1]["message"]

        def test_silent(dspex):
            raise SystemError("nothing was said")

        def test_warns(dspex):
            {CUT_OFF.strip()}
        """,
        "-rN",
    )
    result.assert_outcomes(passed=1, failed=2)
    passing, silent, warning = re.split(r"_+ test_(?:silent|warns) _+", result.stdout.str())
    assert "truncated" not in passing + silent
    assert re.search(r"- dspex bridge stderr -+\n.*truncated", warning)
    assert re.search(r"- dspex bridge log -+\n.*warning.*truncated", warning)
    assert not re.search(r"(bridge|client)\.py:", warning), "the test's own line is what is shown"


def test_a_bridge_that_ends_is_shown_with_its_status_and_replaced(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        import os, signal

        def test_kills(dspex):
            os.kill(dspex.pid, signal.SIGKILL)
            dspex.request("ping")

        def test_shuts_down(dspex):
            dspex.request("shutdown")

        def test_next(dspex):
            dspex.request("ping")
        """,
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*ConnectionLostError: *",
            "*- dspex bridge -*",
            "It ended before the test did: status -9.",
        ]
    )


def test_a_silent_bridge_fails_its_test_within_a_bound_and_is_replaced(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        import os, signal
        import pytest
        from dspex_bridge.testing import bridge

        pids = []

        def test_stops(monkeypatch, dspex):
            monkeypatch.setattr(bridge, "_GRACE_S", 0.5)
            monkeypatch.setattr(bridge, "_RESET_S", 0.5)
            pids.append(dspex.pid)
            os.kill(dspex.pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError, match="did not answer ping within .* of 100 ms"):
                dspex.request("ping", timeout_ms=100)

        def test_next(dspex):
            assert dspex.pid not in pids
            with pytest.raises(ProcessLookupError):
                os.kill(pids[0], 0)
        """,
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (
            ["sh", "-c", "echo No disk. >&2; exit 4"],
            ["the bridge 'sh *' did not start: *with status 4*", "No disk."],
        ),
        (["no-such-bridge"], ["the bridge 'no-such-bridge' did not start: *No such file*"]),
    ],
    ids=["ends at once", "not there"],
)
def test_a_bridge_that_does_not_start_says_why(
    pytester: pytest.Pytester, command: list[str], complaint: list[str]
) -> None:
    result = run(
        pytester,
        f"""
        import pytest

        @pytest.fixture(scope="session")
        def dspex_bridge_command():
            return {command!r}

        def test_it(dspex):
            raise AssertionError("never reached")
        """,
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(complaint, consecutive=True)


def test_a_marker_that_cannot_be_meant_is_refused(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.mark.dspex(model="openai/x")
        def test_unknown(dspex):
            pass

        @pytest.mark.dspex("openai/x")
        def test_position(dspex):
            pass

        @pytest.mark.dspex(lm="openai/x")
        def test_both(dspex, dspex_script):
            pass

        @pytest.mark.dspex(lm={"model": "openai/x", "temprature": 1})
        def test_lm(dspex):
            pass
        """,
        "--strict-markers",
    )
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(
        [
            "the marker dspex takes lm=, script=, fresh= and was given model",
            "the marker dspex takes lm=, script=, fresh= and was given 'openai/x'",
            "the marker dspex names an lm, and the test has a scripted one: choose one",
            "*InvalidParamsError: *temprature*",
        ]
    )


def test_the_lm_of_a_marker_is_the_one_that_is_used(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.fixture(scope="module")
        def dspex_lm():
            return {"model": "openai/a", "api_key": "sk-secret"}

        def test_fixture(dspex):
            assert dspex.configure()["lms"]["main"]["model"] == "openai/a"

        @pytest.mark.dspex(lm="openai/b")
        def test_marker(dspex):
            assert dspex.configure()["lms"]["main"] == {"model": "openai/b"}

        def test_script(dspex, dspex_script):
            assert dspex.configure()["lms"]["main"]["model"] == "openai/scripted"
        """,
    )
    result.assert_outcomes(passed=3)


def test_the_client_serves_any_loop(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import asyncio
        import threading
        import pytest
        from dspex_protocol.client import Client
        from dspex_protocol.errors import NotFoundError

        QA = {"signature": "question -> answer"}

        def test_its_methods_may_be_awaited_on_a_loop_of_the_test(dspex_client, dspex):
            assert isinstance(dspex_client, Client)

            async def main():
                threads = set()
                await asyncio.gather(*(
                    dspex_client.execute(
                        QA, {"question": "A pipe."}, stream={},
                        listener=lambda _: threads.add(threading.get_ident()),
                    )
                    for _ in range(10)
                ))
                assert threads == {threading.get_ident()}
                with pytest.raises(NotFoundError):
                    await dspex_client.describe("nothing")
                assert (await dspex_client.initialize())["protocol_version"] == 1
                assert dspex_client.process.pid == dspex.pid

            asyncio.run(main())
            asyncio.run(main())

        def test_a_cancelled_task_cancels_its_request(dspex_client, dspex_script):
            async def main():
                came = asyncio.Event()
                loop = asyncio.get_running_loop()
                hang = threading.Event()

                def answer(prompt):
                    loop.call_soon_threadsafe(came.set)
                    hang.wait(30)
                    return "too late"

                dspex_script.always(answer)
                task = asyncio.create_task(dspex_client.execute(QA, {"question": "?"}))
                await came.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while (await dspex_client.stats())["in_flight"] > 0:
                    pass
                hang.set()

            asyncio.run(asyncio.wait_for(main(), 60))

        @pytest.mark.parametrize("chunks", [0, 1])
        def test_a_stream_goes_on_by_its_grants(dspex_client, dspex, dspex_script, chunks):
            dspex_script.always({"answer": "word " * 5000})
            heard = []

            def hear(notification):
                heard.append(notification.params)
                if chunks:
                    dspex_client.grant(notification.params["id"], chunks)

            answer = dspex.execute(QA, {"question": "?"}, stream={"window": 1}, listener=hear)
            text = "".join(chunk["text"] for chunk in heard)
            assert text == answer["outputs"]["answer"]
            assert (len(heard) > 2) == bool(chunks), "without a grant: the first and the rest"

        def test_it_can_be_closed(dspex_client, dspex):
            asyncio.run(dspex_client.close())
            assert not dspex.is_alive
        """,
    )
    result.assert_outcomes(passed=5)


def test_the_client_of_the_fixtures_has_all_that_a_client_has() -> None:
    for name, method in vars(Client).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        names = set(method.__code__.co_names) - method.__globals__.keys()
        own = [used for used in names if used.startswith("_")]
        assert not own or name in vars(ClientElsewhere), f"{name} uses {own}, which it has not"


def test_a_tool_that_fails_or_is_missing_is_told_to_the_program(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        import pytest

        def tool(name):
            return {"name": name, "description": "?", "parameters": [{"name": "n", "type": "int"}]}

        def test_tools(dspex, dspex_script):
            @dspex.tool
            async def double(n):
                return 2 * n

            @dspex.tool
            def broken(n):
                raise OSError("no wire")

            for name in ("double", "broken", "missing"):
                dspex_script.answer(
                    {"next_thought": ".", "next_tool_name": name, "next_tool_args": {"n": 21}}
                )
            dspex_script.answer(
                {"next_thought": ".", "next_tool_name": "finish", "next_tool_args": {}},
                {"reasoning": ".", "answer": "."},
            )
            dspex.create(
                "question -> answer", program="agent", module="react",
                tools=[tool("double"), tool("broken"), tool("missing")],
            )
            seen = dspex.execute("agent", {"question": "?"})["outputs"]["trajectory"]
            assert seen["observation_0"] == 42
            assert "OSError: no wire" in seen["observation_1"]
            assert "this test has no tool 'missing'" in seen["observation_2"]
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_proxy_is_not_asked_for_the_scripted_lm(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    result = run(
        pytester,
        """
        import pytest

        @pytest.mark.dspex(script={"answer": "here"})
        def test_it(dspex):
            result = dspex.execute({"signature": "question -> answer"}, {"question": "?"})
            assert result["outputs"]["answer"] == "here"
        """,
    )
    result.assert_outcomes(passed=1)


def test_modules_in_the_folder_of_the_tests_are_not_the_bridges(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(dspy="raise ImportError('this is another DSPy')")
    pytester.makepyfile("def test_it(dspex): dspex.create('question -> answer')")
    # Not by pytester, which puts the folder on the PYTHONPATH of everybody.
    subprocess.run([sys.executable, "-m", "pytest"], check=True, cwd=pytester.path, timeout=BOUND_S)


@pytest.mark.parametrize("end", ["pass", "os._exit(3)", "raise KeyboardInterrupt"])
def test_no_process_is_left_however_the_run_ends(pytester: pytest.Pytester, end: str) -> None:
    run(
        pytester,
        f"""
        import os
        import pytest

        @pytest.mark.dspex(fresh=True)
        def test_fresh(dspex):
            note(dspex.pid)

        def test_shared(dspex):
            note(dspex.pid)
            {end}

        def note(pid):
            with open("pids", "a") as pids:
                print(pid, file=pids)
        """,
    )
    pids = [int(line) for line in (pytester.path / "pids").read_text().split()]
    assert len(pids) == 2
    left = [member for pid in pids for member in group(pid)]
    if end != "os._exit(3)":
        assert left == []
    assert seconds_until_gone(left, 10) is not None
