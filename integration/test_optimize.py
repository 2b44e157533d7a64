"""optimize through a real pipe: every optimizer, what is refused, metrics, progress."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import (
    AlreadyExistsError,
    DSPexError,
    InputValidationError,
    InvalidParamsError,
    MethodNotFoundError,
    MetricError,
    NotFoundError,
    UnavailableError,
)
from dspex_protocol.messages import Notification
from dspex_protocol.peer import Handler

from integration.openai_server import OpenAIServer, Script
from integration.optimizing import BOUND_S, EXACT, ROWS, answer, fickle, is_of_program, with_bridge

TRAIN, VAL = ROWS[:12], ROWS[12:]

# By optimizer: params that make a short run of it.
BY_DEMONSTRATIONS: dict[str, dict[str, Any]] = {
    "labeled_few_shot": {"k": 6},
    "bootstrap_few_shot": {"max_bootstrapped_demos": 3, "max_labeled_demos": 3},
    "bootstrap_few_shot_random_search": {"num_candidate_programs": 2, "max_labeled_demos": 6},
    "bootstrap_few_shot_optuna": {"num_candidate_programs": 3, "max_demos": 6},
    "knn_few_shot": {"k": 3, "embedder": "demo/tfidf"},
}
BY_INSTRUCTIONS: dict[str, dict[str, Any]] = {
    "copro": {"breadth": 2, "depth": 1},
    "mipro_v2": {"num_candidates": 2, "num_trials": 3, "minibatch": False},
    "simba": {"bsize": 4, "max_steps": 2, "num_candidates": 2},
    "gepa": {"max_metric_calls": 40},
    "infer_rules": {"num_candidates": 2, "num_rules": 3},
}


def run(test: Callable[[Client], Awaitable[None]], **options: Any) -> str:
    """What the bridge wrote to stderr."""
    return asyncio.run(asyncio.wait_for(with_bridge(test, **options), BOUND_S))


def scripted(
    test: Callable[[Client, OpenAIServer], Awaitable[None]],
    script: Script = answer,
    **options: Any,
) -> str:
    with OpenAIServer(script) as server:
        return run(lambda client: test(client, server), server=server, **options)


@pytest.mark.parametrize("name", BY_DEMONSTRATIONS)
def test_an_optimizer_of_demonstrations_raises_the_score_on_the_embedded_lm(name: str) -> None:
    async def test(client: Client) -> None:
        await client.configure(embedders={"demo/tfidf": {"model": "demo/tfidf"}})
        result = await client.optimize(
            "p",
            {"name": name, "params": BY_DEMONSTRATIONS[name]},
            TRAIN,
            valset=VAL,
            metric=EXACT,
            save_as="better",
        )
        assert result["score"] > result["base_score"]
        assert (result["program"], result["base_program"]) == ("better", "p")
        compared = result["comparison"]
        assert compared["examples"] == len(VAL)
        assert compared["difference"] == pytest.approx(result["score"] - result["base_score"])
        assert len(compared["won"]) > len(compared["lost"])
        assert result["changes"]
        assert result["trials"][0] == {
            "trial": 0,
            "score": result["base_score"],
            "examples": len(VAL),
        }
        assert result["usage"]["total_tokens"] > 0
        assert (result["stopped"], result["metric_errors"]) == (None, [])
        assert result["checkpoint"] is None
        # It is what it says that it is, by the method that everybody scores programs by.
        again = await client.evaluate("better", VAL, EXACT)
        assert again["score"] == pytest.approx(result["score"])
        base = await client.evaluate("p", VAL, EXACT)
        assert base["score"] == pytest.approx(result["base_score"])
        described = await client.describe("better")
        assert described["base_program"] == "p"
        assert described["lineage"]["optimizer"]["name"] == name
        assert (await client.describe("p"))["demos"] == []
        assert (await client.dump("better")) == result["state"]

    assert run(test) == ""


@pytest.mark.parametrize(
    "params",
    [
        {"max_labeled_demos": 4, "num_candidates": 3, "num_trials": 2, "minibatch": False},
        {"max_labeled_demos": 0},
    ],
)
def test_mipro_works_without_bootstrapped_demonstrations(params: dict[str, Any]) -> None:
    async def test(client: Client) -> None:
        optimizer = {"name": "mipro_v2", "params": {"max_bootstrapped_demos": 0, **params}}
        result = await client.optimize("p", optimizer, TRAIN, valset=VAL, metric=EXACT)
        assert result["stopped"] is None
        assert len(result["trials"]) > 1

    run(test)


@pytest.mark.parametrize("name", ["bootstrap_few_shot", "bootstrap_few_shot_random_search"])
def test_without_a_valset_the_score_is_that_of_the_program_on_the_trainset(name: str) -> None:
    async def test(client: Client) -> None:
        params = {"name": name, "params": BY_DEMONSTRATIONS[name]}
        result = await client.optimize("p", params, TRAIN, metric=EXACT, save_as="better")
        again = await client.evaluate("better", TRAIN, EXACT)
        assert again["score"] == pytest.approx(result["score"])

    assert run(test) == ""


@pytest.mark.parametrize("name", BY_INSTRUCTIONS)
def test_an_optimizer_of_instructions_runs_to_its_end(name: str) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        heard: list[dict[str, Any]] = []
        result = await client.optimize(
            "p",
            {"name": name, "params": BY_INSTRUCTIONS[name]},
            TRAIN,
            valset=VAL,
            metric=EXACT,
            save_as="better",
            listener=lambda told: heard.append(told.params),
        )
        assert result["stopped"] is None
        assert result["usage"]["total_tokens"] > 0
        assert len(result["trials"]) > 1
        assert any(not is_of_program(request) for request in server.requests), "it wrote a prompt"
        assert heard[-1]["lm_calls"] == pytest.approx(len(server.requests), abs=40)
        if name != "simba":
            again = await client.evaluate("better", VAL, EXACT)
            assert again["score"] == pytest.approx(result["score"])

    # SIMBA learns from answers that differ to one prompt.
    script = fickle() if name == "simba" else answer
    assert scripted(test, script) == "", "optimizers print, and nothing of it reaches anybody"


def test_what_optimizers_print_is_in_the_log_of_who_asks_for_it() -> None:
    heard: list[dict[str, Any]] = []

    async def test(client: Client, _server: OpenAIServer) -> None:
        client._listener = lambda told: heard.append(told.params)
        params = {"name": "bootstrap_few_shot", "params": BY_DEMONSTRATIONS["bootstrap_few_shot"]}
        await client.optimize("p", params, TRAIN, valset=VAL, metric=EXACT)

    scripted(test, log_level="debug")
    assert any(event.get("logger") == "stdout" and event["level"] == "debug" for event in heard)


# What is refused


def optimize(name: str, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "program": "p",
        "optimizer": {"name": name, "params": params or {}},
        "trainset": TRAIN,
        "metric": EXACT,
        **more,
    }


REFUSED: list[tuple[dict[str, Any], type[DSPexError], str]] = [
    (optimize("labeled_few_shot", {"q": 1}), InvalidParamsError, "Valid: k, sample."),
    (optimize("labeled_few_shott"), InvalidParamsError, "Did you mean 'labeled_few_shot'?"),
    (optimize("copro", {"breadth": 1}), InvalidParamsError, "breadth"),
    (optimize("copro", {"prompt_lm": "nobody"}), NotFoundError, "nobody"),
    (optimize("bootstrap_few_shot", {"teacher": "nobody"}), NotFoundError, "nobody"),
    (optimize("knn_few_shot", {"embedder": "nobody"}), NotFoundError, "nobody"),
    (optimize("copro", metric=None), InvalidParamsError, "copro needs a metric"),
    (optimize("copro", trainset=None), InvalidParamsError, "at least 1 example, and has 0"),
    (optimize("copro", trainset=[]), InvalidParamsError, "at least 1 example, and has 0"),
    (optimize("copro", save_as="p"), AlreadyExistsError, "'p'"),
    (optimize("copro", checkpoint="a"), InvalidParamsError, "--state-dir"),
    (optimize("copro", checkpoint="../a"), InvalidParamsError, "--state-dir"),
    (optimize("simba", {"bsize": 13}), InvalidParamsError, "at least 13 examples"),
    (optimize("simba"), InvalidParamsError, "at least 32 examples"),
    (optimize("mipro_v2", {"num_candidates": 2}), InvalidParamsError, "both, or neither"),
    (optimize("mipro_v2", {"num_trials": 2}), InvalidParamsError, "both, or neither"),
    (optimize("mipro_v2", {"auto": "light", "num_trials": 2}), InvalidParamsError, "leave it out"),
    (optimize("mipro_v2", {"max_bootstrapped_demos": 0}), InvalidParamsError, "at most 3 sets"),
    (
        optimize("mipro_v2", {"num_candidates": 2, "num_trials": 2}),
        InvalidParamsError,
        r"minibatch_size \(35\) is more than .* \(12\)",
    ),
    (
        optimize(
            "variables",
            {
                "variables": {"k": {"kind": "int", "low": 0, "high": 2, "applies_to": "demos.k"}},
                "inner": {"name": "mipro_v2", "params": {"max_bootstrapped_demos": 0}},
            },
        ),
        InvalidParamsError,
        "params of mipro_v2: without bootstrapped",
    ),
    (optimize("gepa", {"auto": "light", "max_full_evals": 2}), InvalidParamsError, "one of them"),
    (optimize("copro", metric={"callback": "nobody"}), MetricError, "no 'call_metric'"),
]


def test_what_cannot_be_is_refused_before_anything_is_paid() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        for params, error, words in REFUSED:
            with pytest.raises(error, match=words):
                await client.request("optimize", params)
            # That it has no such metric a client says when it is asked, of the first answers.
            assert len(server.requests) <= (12 if error is MetricError else 0), params
        assert [program["program"] for program in await client.list()] == ["p"]

    assert scripted(test) == ""


def test_an_example_that_does_not_fit_is_named_by_its_path() -> None:
    async def test(client: Client) -> None:
        rows = [*TRAIN, {"inputs": {"text": 7}, "outputs": {"label": "fruit"}}]
        with pytest.raises(InputValidationError) as refused:
            await client.optimize("p", "labeled_few_shot", rows)
        (error,) = refused.value.data["errors"]
        assert error["path"] == ["trainset", len(TRAIN), "inputs", "text"]
        rows = [{"inputs": {"text": "x"}, "outputs": {"label": "bird"}}]
        with pytest.raises(InputValidationError) as refused:
            await client.optimize("p", "labeled_few_shot", TRAIN, valset=rows)
        (error,) = refused.value.data["errors"]
        assert error["path"] == ["valset", 0, "outputs", "label"]

    run(test)


def test_a_package_that_is_missing_is_told_before_the_first_lm_call(tmp_path: Path) -> None:
    # As if nobody had installed it.
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "def find_spec(name, *more):\n"
        "    return None if name == 'optuna' else find(name, *more)\n"
        "PathFinder.find_spec = find_spec\n"
    )

    async def test(client: Client, server: OpenAIServer) -> None:
        for name in ("mipro_v2", "bootstrap_few_shot_optuna", "variables"):
            with pytest.raises(UnavailableError, match=r"pip install 'dspex\[optimize\]'"):
                await client.request("optimize", optimize(name))
        assert server.requests == []

    path = [str(tmp_path), *(item for item in sys.path if item)]
    scripted(test, env={"PYTHONPATH": ":".join(path)}, is_safe_path=False)


def test_an_id_is_kept_for_the_program_that_is_being_made() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        asked = asyncio.Event()
        running = asyncio.create_task(
            client.optimize(
                "p",
                {"name": "labeled_few_shot"},
                TRAIN,
                metric=EXACT,
                save_as="new",
                listener=lambda _told: asked.set(),
            )
        )
        await asked.wait()
        with pytest.raises(AlreadyExistsError, match="being made"):
            await client.create("a -> b", program="new")
        with pytest.raises(AlreadyExistsError, match="being made"):
            await client.optimize("p", "labeled_few_shot", TRAIN, save_as="new")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await client.ping()  # behind the cancel
        await client.create("a -> b", program="new")

    scripted(test)


# Metrics


def with_metric(call_metric: Handler, test: Callable[[Client], Awaitable[None]]) -> None:
    scripted(lambda client, _server: test(client), handlers={"call_metric": call_metric})


def test_a_metric_of_the_clients_is_asked_concurrently() -> None:
    together = asyncio.Event()
    waiting = 0

    async def call_metric(params: dict[str, Any]) -> Any:
        nonlocal waiting
        waiting += 1
        if waiting == 4:
            together.set()
        await together.wait()  # for ever, were they asked one by one
        return params["prediction"]["label"] == params["example"]["outputs"]["label"]

    async def test(client: Client) -> None:
        result = await client.optimize(
            "p", "labeled_few_shot", TRAIN, valset=VAL, metric={"callback": "right"}
        )
        assert 0 < result["score"] < 1
        assert result["metric_calls"] == 2 * len(VAL)

    with_metric(call_metric, test)


def test_a_metric_that_fails_now_and_then_is_told_with_its_examples_and_counts_zero() -> None:
    bad = VAL[3]["inputs"]["text"]

    async def call_metric(params: dict[str, Any]) -> Any:
        if params["example"]["inputs"]["text"] == bad:
            raise InvalidParamsError("no idea")
        return 1

    async def test(client: Client) -> None:
        result = await client.optimize(
            "p", "labeled_few_shot", TRAIN, valset=VAL, metric={"callback": "right"}
        )
        assert result["score"] == result["base_score"] == pytest.approx(11 / 12)
        errors = result["metric_errors"]
        assert [error["code"] for error in errors] == ["metric_error"] * 2
        assert {error["data"]["example"]["inputs"]["text"] for error in errors} == {bad}
        assert errors[0]["data"]["cause"]["message"] == "no idea"

    with_metric(call_metric, test)


def test_a_metric_that_never_scored_anything_is_the_error_of_the_run() -> None:
    async def call_metric(_params: dict[str, Any]) -> Any:
        raise InvalidParamsError("no idea")

    async def test(client: Client) -> None:
        with pytest.raises(MetricError, match=r"each time that it was asked.*no idea") as caught:
            await client.optimize(
                "p", "labeled_few_shot", TRAIN, valset=VAL[:2], metric={"callback": "right"}
            )
        assert caught.value.data["example"] in VAL[:2]
        assert [program["program"] for program in await client.list()] == ["p"]

    with_metric(call_metric, test)


def test_a_metric_that_always_fails_ends_the_run() -> None:
    calls = 0

    async def call_metric(_params: dict[str, Any]) -> Any:
        nonlocal calls
        calls += 1
        raise InvalidParamsError("no idea")

    async def test(client: Client) -> None:
        with pytest.raises(MetricError, match=r"more than 10 times.*no idea") as failed:
            await client.optimize("p", "copro", TRAIN, metric={"callback": "right"})
        assert failed.value.data["example"] in TRAIN
        assert failed.value.data["usage"]["total_tokens"] > 0
        # Those that were asked beside the eleventh had been sent.
        assert calls <= 11 + 8

    with_metric(call_metric, test)


def test_a_metric_that_the_client_has_not_ends_the_run_at_once() -> None:
    async def call_metric(_params: dict[str, Any]) -> Any:
        raise MethodNotFoundError("there is no such metric")

    async def test(client: Client) -> None:
        with pytest.raises(MetricError, match="no such metric"):
            await client.optimize("p", "copro", TRAIN, metric={"callback": "right"})

    with_metric(call_metric, test)


def test_feedback_of_the_clients_metric_reaches_the_prompts_of_gepa() -> None:
    async def call_metric(params: dict[str, Any]) -> Any:
        right = params["prediction"]["label"] == params["example"]["outputs"]["label"]
        return {"score": int(right), "feedback": "well" if right else "look at the noun, please"}

    async def test(client: Client, server: OpenAIServer) -> None:
        params = {"name": "gepa", "params": BY_INSTRUCTIONS["gepa"]}
        await client.optimize("p", params, TRAIN, valset=VAL, metric={"callback": "right"})
        reflections = [str(item.turns) for item in server.requests if not is_of_program(item)]
        assert any("look at the noun, please" in prompt for prompt in reflections)

    scripted(test, handlers={"call_metric": call_metric})


def test_a_judge_scores_and_is_paid_for_with_the_rest() -> None:
    judge = {
        "signature": "example: dict, prediction: dict -> verdict: float, why: str",
        "instructions": "Give a `verdict`.",
    }

    async def test(client: Client) -> None:
        result = await client.optimize(
            "p",
            "labeled_few_shot",
            TRAIN,
            valset=VAL,
            metric={"judge": judge, "field": "verdict"},
        )
        assert isinstance(result["score"], float)
        assert result["metric_calls"] == 2 * len(VAL)

    run(test)


# Progress


def test_progress_goes_on_while_nothing_happens_and_says_what_was_spent_so_far() -> None:
    heard: list[dict[str, Any]] = []
    told_again = asyncio.Event()

    async def call_metric(_params: dict[str, Any]) -> Any:
        # No score comes from it before the client has been told twice more: where only scores
        # were told, everything would wait here.
        known = len(heard)
        while len(heard) < known + 2:
            told_again.clear()
            await told_again.wait()
        return 0.5

    def listen(told: Notification) -> None:
        heard.append(told.params)
        told_again.set()

    async def test(client: Client) -> None:
        own = {"num_threads": 12, "num_candidate_programs": 1, "max_bootstrapped_demos": 1}
        optimizer = {"name": "bootstrap_few_shot_random_search", "params": own}
        result = await client.optimize(
            "p", optimizer, TRAIN[:3], valset=VAL, metric={"callback": "slow"}, listener=listen
        )
        calls = [told["lm_calls"] for told in heard]
        assert calls == sorted(calls)
        assert heard[-1]["total_tokens"] == result["usage"]["total_tokens"]
        assert heard[-1]["cost_usd"] == pytest.approx(result["cost_usd"])
        phases = [told["phase"] for told in heard]
        assert sorted(set(phases), key=phases.index) == ["start", "baseline", "compile"]
        assert any(told.get("eta_ms", 0) > 0 for told in heard)
        assert all(told["step"] <= told["total"] for told in heard if told["total"] is not None)
        best = [told["best_score"] for told in heard if told.get("best_score") is not None]
        assert best == sorted(best)
        assert best[-1] == 0.5
        assert all(told.get("best_score") is not None for told in heard[-len(best) :])
        assert phases.count("start") == 1
        assert not any("candidate" in told for told in heard), "nobody asked for them"

    with_metric(call_metric, test)


def test_candidates_are_told_once_each_to_who_asks_for_them() -> None:
    heard: list[dict[str, Any]] = []

    async def test(client: Client, _server: OpenAIServer) -> None:
        params = {"name": "copro", "params": BY_INSTRUCTIONS["copro"]}
        result = await client.optimize(
            "p",
            params,
            TRAIN,
            metric=EXACT,
            include=["candidates"],
            listener=lambda told: heard.append(told.params),
        )
        told = [event["candidate"] for event in heard if "candidate" in event]
        assert {one["trial"] for one in told} == {one["trial"] for one in result["trials"]}
        written = {one["predictors"]["self"]["instructions"] for one in told}
        assert any(text.startswith("Tell fruit from tools") for text in written)

    scripted(test)
