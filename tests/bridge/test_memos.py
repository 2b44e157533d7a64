"""What is kept of DSPy's work is what DSPy would find again."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from decimal import Decimal

import dspy
import numpy as np
import pytest
from dspex_bridge.engine.adapters import ADAPTERS
from dspy._vendor.lm15.transports import _async as transport
from dspy.adapters import XMLAdapter
from dspy.adapters.baml_adapter import BAMLAdapter

DSPY_S_OWN = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": XMLAdapter,
    "baml": BAMLAdapter,
}


@pytest.mark.parametrize("name", DSPY_S_OWN)
def test_a_system_message_is_dspy_s_own_also_the_second_time(name: str) -> None:
    signature = dspy.Signature("question: str, n: int -> answer: list[str]")
    adapter, own = ADAPTERS[name](), DSPY_S_OWN[name]()
    for _ in range(2):
        assert adapter.format_system_message(signature) == own.format_system_message(signature)


def test_a_system_message_follows_the_instructions() -> None:
    signature, adapter = dspy.Signature("question -> answer", "Be brief."), ADAPTERS["chat"]()
    assert "Be brief." in adapter.format_system_message(signature)
    signature.instructions = "Be kind."
    assert "Be kind." in adapter.format_system_message(signature)
    other = signature.with_instructions("Be exact.")
    assert "Be exact." in adapter.format_system_message(other)


def test_whoever_changes_the_fields_that_were_given_changes_no_signature() -> None:
    signature = dspy.Signature("question -> answer")
    signature.output_fields.clear()
    assert list(signature.output_fields) == ["answer"]
    assert list(signature.append("reason", dspy.OutputField()).output_fields) == [
        "answer",
        "reason",
    ]


def test_a_wait_ends_with_its_time() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await transport.wait_for(asyncio.Event().wait(), 0.001)

    asyncio.run(main())


def test_a_cancelled_wait_for_a_connection_leaves_its_place_free() -> None:
    async def main() -> None:
        pool = transport._AsyncConnectionPool(1)
        await pool.acquire_slot(60)
        waiting = asyncio.create_task(pool.acquire_slot(60))
        await asyncio.sleep(0)
        # The place becomes free and the wait is cancelled at once.
        pool.release_slot()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(pool.acquire_slot(60), 5)

    asyncio.run(main())


def test_demonstrations_follow_what_is_changed_in_them() -> None:
    signature, adapter = dspy.Signature("question, tags: list[str] -> answer"), ADAPTERS["chat"]()
    text = dspy.Example(question="Where?", answer="Paris")
    other = dspy.Example(question="Who?", tags=["a"], answer="Ann")
    for demos in ([text], [text, other], [other]):
        for change in (None, "Rome", "Oslo"):
            if change is not None:
                text["answer"] = other["answer"] = change
                other["tags"].append(change)
            own = dspy.ChatAdapter().format_demos(signature, demos)
            assert adapter.format_demos(signature, demos) == own


def test_demonstrations_that_are_equal_and_differ_are_told_apart() -> None:
    signature, adapter = dspy.Signature("question -> answer: int"), ADAPTERS["chat"]()
    for answer in (1, True, 1.0):
        demos = [dspy.Example(question="?", answer=answer)]
        own = dspy.ChatAdapter().format_demos(signature, demos)
        assert adapter.format_demos(signature, demos) == own


def test_demonstrations_with_values_that_cannot_be_compared_are_written() -> None:
    signature, adapter = dspy.Signature("question -> answer"), ADAPTERS["chat"]()
    for value in (np.zeros(3), Decimal("sNaN")):
        demos = [dspy.Example(question="?", answer="A", hidden=value)]
        own = dspy.ChatAdapter().format_demos(signature, demos)
        for given in (demos, deepcopy(demos)):
            assert adapter.format_demos(signature, given) == own


def test_whoever_changes_the_messages_that_were_given_changes_none_that_are_kept() -> None:
    signature, adapter = dspy.Signature("question -> answer"), ADAPTERS["chat"]()
    demos = [dspy.Example(question="Where?", answer="Paris")]
    first = adapter.format_demos(signature, demos)
    first[0]["content"] = "Something else."
    first.clear()
    own = dspy.ChatAdapter().format_demos(signature, demos)
    assert adapter.format_demos(signature, demos) == own


def test_demonstrations_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    signature, adapter = dspy.Signature("question -> answer"), ADAPTERS["chat"]()
    demos = [dspy.Example(question="Where?", answer="Paris", augmented=True)]
    expected = adapter.format_demos(signature, demos)
    monkeypatch.setattr(dspy.ChatAdapter, "format_user_message_content", None)
    assert adapter.format_demos(signature, [demo.copy() for demo in demos]) == expected
