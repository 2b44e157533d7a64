"""The optimizer `variables` through a real pipe: targets, strategies, objectives, pipelines."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import InvalidParamsError, NotFoundError

from integration.openai_server import Answer, OpenAIServer, Request, well_formed
from integration.optimizing import BOUND_S, EXACT, KINDS, ROWS, SIGNATURE, with_bridge

TRAIN, VAL = ROWS[:12], ROWS[12:]


def run(test: Any) -> None:
    """On demo/knn, which needs no time."""
    asyncio.run(asyncio.wait_for(with_bridge(test), BOUND_S))


def with_lm(test: Any, script: Any) -> None:
    with OpenAIServer(script) as server:
        asyncio.run(
            asyncio.wait_for(
                with_bridge(lambda client: test(client, server), server=server), BOUND_S
            )
        )


async def search(client: Client, variables: dict[str, Any], **own: Any) -> dict[str, Any]:
    more = {key: own.pop(key) for key in ("program", "save_as", "trainset") if key in own}
    optimizer = {"name": "variables", "params": {"variables": variables, **own}}
    return await client.optimize(
        more.pop("program", "p"),
        optimizer,
        more.pop("trainset", TRAIN),
        valset=VAL,
        metric=EXACT,
        **more,
    )


K = {"kind": "int", "low": 0, "high": 8, "applies_to": "demos.k", "default": 0}


@pytest.mark.parametrize("strategy", ["tpe", "random", "grid"])
def test_each_strategy_finds_that_demonstrations_help(strategy: str) -> None:
    async def test(client: Client) -> None:
        result = await search(client, {"k": K}, strategy=strategy, trials=6, save_as="best")
        found = result["variables"]
        assert result["score"] > result["base_score"]
        assert found["values"]["k"] > 0
        assert len(found["trials"]) == (5 if strategy == "grid" else 6)
        assert found["trials"][0]["values"] == {"k": 0}, "it begins where the program is"
        assert max(trial["score"] for trial in found["trials"]) == result["score"]
        assert all(trial["values"] == found["values"] for trial in found["pareto"][:1])
        state = result["state"]
        assert state["variables"]["k"]["default"] == found["values"]["k"]
        assert len(state["predictors"]["self"]["demos"]) == found["values"]["k"]
        again = await search(client, {"k": K}, strategy=strategy, trials=6)
        assert again["variables"] == found, "the same seed, the same search"
        evaluated = await client.evaluate("best", VAL, EXACT)
        assert evaluated["score"] == pytest.approx(result["score"])

    run(test)


def test_declared_variables_are_used_kept_and_loaded() -> None:
    async def test(client: Client) -> None:
        await client.create(SIGNATURE, program="own", variables={"k": K})
        assert (await client.describe("own"))["variables"] == {"k": K}
        await client.load(await client.dump("own"), program="loaded")
        assert (await client.describe("loaded"))["variables"] == {"k": K}
        result = await client.optimize(
            "loaded",
            {"name": "variables", "params": {"trials": 5}},
            TRAIN,
            valset=VAL,
            metric=EXACT,
            save_as="best",
        )
        assert result["variables"]["values"]["k"] > 0
        described = await client.describe("best")
        assert described["variables"]["k"]["default"] == result["variables"]["values"]["k"]
        with pytest.raises(InvalidParamsError, match="has no variables"):
            await client.optimize("p", "variables", TRAIN, metric=EXACT)

    run(test)


def everything(request: Request) -> Answer:
    """An LM that is right where every variable has its second value."""
    system, asked = request.turns[0][1], request.turns[-1][1]
    is_right = (
        request.model == "second"
        and request.body.get("temperature") == 0.5
        and "Be right." in system
        and "reasoning" in system
        and "Respond with a JSON object" in asked
        and "loudly" in asked
    )
    word = next(word for words in KINDS.values() for word in words if f"{word}," in asked)
    kind = next(kind for kind, words in KINDS.items() if (word in words) is is_right)
    return well_formed(request, {"reasoning": "…", "label": kind})


def test_every_target_reaches_the_lm() -> None:
    signature: dict[str, Any] = {
        **SIGNATURE,
        "inputs": [*SIGNATURE["inputs"], {"name": "how", "type": "str", "default": "softly"}],
    }
    variables: dict[str, dict[str, Any]] = {
        "lm": {"kind": "lm", "choices": ["main", "second"], "applies_to": "lm"},
        "heat": {
            "kind": "categorical",
            "choices": [0.0, 0.5],
            "applies_to": "config.temperature",
        },
        "words": {"kind": "text", "choices": ["Be.", "Be right."], "applies_to": "instructions"},
        "adapter": {"kind": "adapter", "choices": ["chat", "json"], "applies_to": "adapter"},
        "how": {
            "kind": "categorical",
            "choices": ["softly", "loudly"],
            "applies_to": "inputs.how",
        },
        "module": {
            "kind": "module",
            "choices": ["predict", "chain_of_thought"],
            "applies_to": "module",
        },
    }
    # In the wrong order they would be 64 programs; conditions leave few of them.
    chain = list(variables)
    for before, name in pairwise(chain):
        second = variables[before]["choices"][1]
        variables[name]["depends_on"] = {"variable": before, "in": [second]}

    async def test(client: Client, server: OpenAIServer) -> None:
        lm = {"model": "openai/second", "api_base": server.url, "api_key": server.api_key}
        await client.configure(lms={"second": lm}, default_lm="main")
        await client.create(signature, program="all")
        result = await search(client, variables, strategy="grid", program="all", save_as="best")
        assert len(result["variables"]["trials"]) == len(variables) + 1
        assert result["score"] == 1.0
        assert result["variables"]["values"] == {
            name: variable["choices"][1] for name, variable in variables.items()
        }
        answered = await client.execute("best", {"text": "apple, ripe"})
        assert answered["outputs"]["label"] == "fruit"
        assert answered["lm"] == "second"

    with_lm(test, everything)


def test_variables_of_a_pipeline_are_those_of_its_steps() -> None:
    pipeline: dict[str, Any] = {
        "inputs": SIGNATURE["inputs"],
        "steps": [{"name": "tell", "signature": SIGNATURE, "demos": TRAIN}],
        "outputs": ["tell.label"],
        "variables": {
            "k": {"kind": "int", "low": 0, "high": 12, "applies_to": "tell.demos.k"},
            "module": {
                "kind": "module",
                "choices": ["predict", "chain_of_thought"],
                "applies_to": "tell.module",
            },
        },
    }

    async def test(client: Client) -> None:
        await client.create(program="line", **pipeline)
        result = await search(client, {}, strategy="grid", program="line", save_as="best")
        values = result["variables"]["values"]
        (step,) = result["state"]["steps"]
        assert step["module"] == values["module"]
        (predictor,) = result["state"]["predictors"].values()
        assert len(predictor["demos"]) == values["k"]
        scores = {
            trial["values"]["k"]: trial["score"]
            for trial in result["variables"]["trials"]
            if trial["values"]["module"] == "predict"
        }
        assert scores[12] > scores[0], "demonstrations help"
        with pytest.raises(InvalidParamsError, match="begins with a step"):
            await search(client, {"k": K}, program="line")

    run(test)


def test_several_objectives_give_the_front_that_nothing_beats() -> None:
    async def test(client: Client) -> None:
        result = await search(
            client, {"k": K}, strategy="grid", objectives=["score", "tokens"], trainset=ROWS[:8]
        )
        trials, front = result["variables"]["trials"], result["variables"]["pareto"]
        assert all(set(trial) == {"values", "score", "tokens"} for trial in trials)
        for trial in trials:
            beaten = any(
                other["score"] >= trial["score"]
                and other["tokens"] <= trial["tokens"]
                and (other["score"], other["tokens"]) != (trial["score"], trial["tokens"])
                for other in trials
            )
            assert (trial in front) is not beaten
        assert min(trials, key=lambda trial: trial["tokens"])["values"] == {"k": 0}
        assert result["score"] == max(trial["score"] for trial in front)

    run(test)


def test_a_trial_that_is_behind_is_given_up() -> None:
    async def test(client: Client) -> None:
        variable = {"kind": "categorical", "choices": [8, 7, 6, 5, 0], "applies_to": "demos.k"}
        for prune, gives_up in ((True, True), (False, False)):
            result = await search(
                client, {"k": variable}, strategy="grid", prune=prune, trainset=TRAIN
            )
            (worst,) = (one for one in result["variables"]["trials"] if one["values"] == {"k": 0})
            assert worst.get("pruned", False) is gives_up

    run(test)


def test_another_optimizer_runs_inside_each_trial() -> None:
    async def test(client: Client) -> None:
        module = {
            "kind": "module",
            "choices": ["predict", "chain_of_thought"],
            "applies_to": "module",
        }
        inner = {"name": "labeled_few_shot", "params": {"k": 6}}
        result = await search(
            client, {"module": module}, strategy="grid", inner=inner, save_as="best"
        )
        assert result["score"] > result["base_score"]
        (predictor,) = result["state"]["predictors"].values()
        assert len(predictor["demos"]) == 6
        again = await client.evaluate("best", VAL, EXACT)
        assert again["score"] == pytest.approx(result["score"])

    run(test)


def test_what_cannot_be_searched_is_refused_first() -> None:
    async def test(client: Client) -> None:
        await client.configure(
            lms={"free": {"model": "openai/nobody-knows", "api_key": "x"}}, default_lm="main"
        )
        lm = {"kind": "lm", "applies_to": "lm"}
        with pytest.raises(NotFoundError, match="nobody"):
            await search(client, {"lm": {**lm, "choices": ["main", "nobody"]}})
        with pytest.raises(InvalidParamsError, match="cost_usd is no objective"):
            await search(client, {"lm": {**lm, "choices": ["free"]}}, objectives=["cost_usd"])
        module = {"kind": "module", "choices": ["best_of_n"], "applies_to": "module"}
        with pytest.raises(InvalidParamsError, match=r"N.*is missing"):
            await search(client, {"m": module})
        wrong = {"kind": "text", "choices": ["a"], "applies_to": "inputs.nothing"}
        with pytest.raises(InvalidParamsError, match="nothing"):
            await search(client, {"i": wrong})
        with pytest.raises(InvalidParamsError, match="unknown"):
            await search(client, {"k": K}, inner={"name": "variables"})
        with pytest.raises(InvalidParamsError, match="breadth"):
            await search(client, {"k": K}, inner={"name": "copro", "params": {"breadth": 0}})
        with pytest.raises(InvalidParamsError, match="trials"):
            await search(client, {"k": K}, trials=0)
        seeds = {"kind": "int", "low": 0, "high": 100, "applies_to": "demos.seed"}
        numbers = {
            name: {"kind": "float", "low": 0, "high": 1, "applies_to": f"config.{name}"}
            for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty")
        }
        with pytest.raises(InvalidParamsError, match="more than 10,000 trials"):
            await search(client, {"k": K, "seed": seeds, **numbers}, strategy="grid")

    run(test)
