"""react_v2: its history as a client can read it, and its own tool without Python's paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from dspex_bridge.engine.tools import ClientTool

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ReActV2"]


class ReActV2(dspy.ReActV2):  # type: ignore[misc]  # dspy ships no types
    """The history of its predictions is a list of maps, one a turn; the calls of tools in it have
    their `result`, and `is_error` where it was one."""

    def __init__(
        self, signature: type[dspy.Signature], tools: Sequence[ClientTool], **options: Any
    ) -> None:
        super().__init__(signature, tools=list(tools), **options)
        submit = self.tools["submit"]
        # Its complaints go to the LM and into the history.
        self.tools["submit"] = ClientTool(
            func=submit.func,
            name=submit.name,
            desc=submit.desc,
            args=submit.args,
            arg_types=submit.arg_types,
        )

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return _readable(super().forward(**inputs))

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        return _readable(await super().aforward(**inputs))


def _readable(prediction: dspy.Prediction) -> dspy.Prediction:
    prediction["history"] = [
        {**turn, "tool_calls": _calls(turn["tool_calls"])} if "tool_calls" in turn else turn
        for turn in prediction["history"].messages
    ]
    return prediction


def _calls(calls: Any) -> list[dict[str, Any]]:
    found = calls.tool_call_results
    results = {result.call_id: result for result in (found.tool_call_results if found else ())}
    told = []
    for call in calls.tool_calls:
        one = {"name": call.name, "args": call.args, "id": call.id}
        result = results.get(call.id)
        if result is not None:
            one["result"] = result.value
            if result.is_error:
                one["is_error"] = True
        told.append(one)
    return told
