"""optimize with a checkpoint: killed at a moment and begun again, nothing is paid twice."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import BudgetExceededError, InvalidParamsError, UnavailableError

from integration import killed_runs
from integration.killed_runs import Kill, broken, unbroken
from integration.openai_server import OpenAIServer
from integration.optimizing import BOUND_S, EXACT, ROWS, answer, paid, with_bridge

TRAIN, VAL = ROWS[:8], ROWS[8:16]


def folder(path: Path, name: str) -> Path:
    made = path / name
    made.mkdir()
    return made


@pytest.mark.parametrize("optimizer", ["bootstrap_few_shot_random_search", "gepa"])
def test_a_killed_run_goes_on_where_it_was_and_ends_as_if_nothing_had_been(
    optimizer: str, tmp_path: Path
) -> None:
    async def both() -> None:
        whole = await unbroken(optimizer, folder(tmp_path, "whole"))
        third = whole.calls // 3
        kills = [Kill("worker", third), Kill("bridge", third)]
        got = await broken(optimizer, folder(tmp_path, "broken"), kills)
        assert got.kills == 2
        assert got.paid == whole.paid, "every prompt as often as in the whole run, and no other"
        assert got.differs(whole) == []
        assert got.replayed >= 2 * (third - 1)

    asyncio.run(both())


def test_a_metric_of_the_clients_is_not_asked_again_for_what_it_has_scored(tmp_path: Path) -> None:
    async def both() -> None:
        whole = await unbroken("copro", folder(tmp_path, "whole"))
        kills = [Kill("bridge", whole.calls // 2)]
        got = await broken("copro", folder(tmp_path, "broken"), kills)
        assert got.kills == 1
        assert got.metric_calls == whole.metric_calls
        assert got.differs(whole) == []

    asyncio.run(both())


def test_a_kill_at_any_moment_costs_at_most_the_answer_that_was_under_way(tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    record = asyncio.run(killed_runs.kill_many(seed, 2, ["variables"]))
    assert record["kills"] >= 2
    assert record["paid_twice"] == 0


def run(test: Any, state_dir: Path) -> None:
    with OpenAIServer(answer) as server:
        asyncio.run(
            asyncio.wait_for(
                with_bridge(
                    lambda client: test(client, server), server=server, state_dir=state_dir
                ),
                BOUND_S,
            )
        )


async def optimize(client: Client, **params: Any) -> dict[str, Any]:
    optimizer = {"name": "labeled_few_shot", "params": {"k": 2}}
    given: dict[str, Any] = {"valset": VAL, "metric": EXACT, "checkpoint": "mine", **params}
    return await client.optimize("p", given.pop("optimizer", optimizer), TRAIN, **given)


def test_a_run_that_spent_its_budget_goes_on_with_another_one(tmp_path: Path) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        with pytest.raises(BudgetExceededError):
            await optimize(client, limits={"max_calls": 5})
        result = await optimize(client, limits={"max_calls": 100})
        assert sorted(paid(server).values()) == [1] * (2 * len(VAL))
        assert 0 < result["checkpoint"]["replayed"] <= 10
        assert result["usage"]["total_tokens"] > 0

    run(test, tmp_path)


def test_a_checkpoint_belongs_to_one_run(tmp_path: Path) -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        await optimize(client)
        others: dict[str, dict[str, Any]] = {
            "seed": {"seed": 1},
            "valset": {"valset": VAL[1:]},
            "metric": {"metric": {"name": "f1"}},
            "optimizer": {"optimizer": {"name": "labeled_few_shot", "params": {"k": 3}}},
        }
        for differs, params in others.items():
            with pytest.raises(InvalidParamsError, match=f"a run with another {differs}") as other:
                await optimize(client, **params)
            assert other.value.data["differs"] == [differs]

    run(test, tmp_path)


def test_a_checkpoint_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        began = asyncio.Event()
        first = asyncio.create_task(optimize(client, listener=lambda _told: began.set()))
        await began.wait()
        with pytest.raises(UnavailableError, match="in use by another run"):
            await optimize(client)
        await first

    run(test, tmp_path)


def test_a_line_that_was_being_written_is_asked_again_and_a_damaged_file_is_told(
    tmp_path: Path,
) -> None:
    file = tmp_path / "checkpoints" / "mine.jsonl"

    async def test(client: Client, server: OpenAIServer) -> None:
        first = await optimize(client)
        asked = len(server.requests)
        whole = file.read_bytes()
        file.write_bytes(whole[:-7])
        again = await optimize(client)
        assert again["checkpoint"]["replayed"] == first["checkpoint"]["recorded"] - 1
        assert again["checkpoint"]["recorded"] == 1
        assert again["score"] == first["score"]
        assert len(server.requests) <= asked + 1
        lines = whole.splitlines(keepends=True)
        for damage in (lines[0], lines[3]):
            file.write_bytes(whole.replace(damage, damage[: len(damage) // 2] + b"\n"))
            with pytest.raises(InvalidParamsError, match="is damaged"):
                await optimize(client)
        assert len(server.requests) <= asked + 1

    run(test, tmp_path)


def test_nothing_secret_is_in_a_checkpoint(tmp_path: Path) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        await optimize(client)
        told = (tmp_path / "checkpoints" / "mine.jsonl").read_text()
        assert server.api_key not in told
        assert server.url not in told

    run(test, tmp_path)
