"""Constraints of a field as the bridge words them in a prompt: the answer keeps them."""

from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspex_bridge.programs.annotations import annotation
from dspex_bridge.programs.checks import checks_of
from dspex_bridge.programs.signatures import prompt_constraints
from dspex_protocol.signatures import signature_from_map

TEXT = "Order ABC-123 of 5 March 2024: 7 boxes, 2.5 kg each, for ada@example.org. Urgent, red."


@pytest.mark.parametrize(
    ("declared", "constraints"),
    [
        ("int", {"min": 100}),
        ("int", {"max": -3, "multiple_of": 2}),
        ("int", {"one_of": [30, 40]}),
        ("float", {"min": 0.5, "max": 0.75}),
        ("float", {"one_of": [0.25, 0.5]}),
        ("probability", {}),
        ("confidence_score", {"min": 0.5}),
        ("token_count", {"max": 3}),
        ("str", {"min_length": 200}),
        ("str", {"max_length": 5}),
        ("str", {"pattern": "^[A-Z]{3}-[0-9]{3}$"}),
        ("str", {"pattern": "^x{2, 3}|[y, z]{9,}$", "max_length": 12}),
        ("str", {"one_of": ["calm", "urgent"]}),
        ("str | None", {"one_of": ["no, never", "at least 1"]}),
        *(
            ("str", {"format": name})
            for name in ("date", "date-time", "email", "hostname", "ipv4", "ipv6", "time")
        ),
        *(("str", {"format": name}) for name in ("uri", "uuid")),
        ("list[str]", {"min_items": 8}),
        ("list[str]", {"max_items": 1}),
        ("list[int]", {"min_items": 5, "unique": True}),
        ("set[str]", {"min_items": 7}),
        ("dict[str, int]", {"min_items": 2}),
        ("embedding[4]", {}),
        ("reasoning_chain", {"min_items": 2, "max_items": 2}),
    ],
)
@pytest.mark.parametrize("misfits", [False, True])
def test_the_answer_keeps_the_constraints(
    ask: Callable[..., dspy.Prediction],
    adapter: str,
    declared: str,
    constraints: dict[str, Any],
    misfits: bool,
) -> None:
    """Without demonstrations, and beside one of the right type that breaks the constraints."""
    output = {"name": "value", "type": declared, "constraints": constraints}
    (field,) = signature_from_map(
        {"inputs": [{"name": "text", "type": "str"}], "outputs": [output]}
    ).outputs
    declared_type = annotation(field.type)
    described = dspy.OutputField()
    described.json_schema_extra["constraints"] = prompt_constraints(field)
    signature = dspy.Signature(
        {"text": (str, dspy.InputField()), "value": (declared_type, described)}
    )
    broken = {int: 1, float: 17.0, dict[str, int]: {}, set[str]: {"a"}}.get(
        declared_type, "-" * 20 if "str" in declared[:4] else ["0"]
    )
    demos = [dspy.Example(text=TEXT, value=broken)] if misfits else []
    value = ask(signature, adapter, {"text": TEXT}, demos).value
    if value is not None:
        for check in checks_of(field.type, field.constraints):
            assert check.test(value), (check.name, value)
