"""One run of one module whose code only blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from dspex_bridge.engine.adapters import ADAPTERS
from dspex_bridge.engine.modules import build_module
from dspex_bridge.engine.remote import RemoteLM
from dspex_bridge.engine.tools import TOOL_SETTING
from dspex_bridge.programs import bundles
from dspex_bridge.programs.converters import InputConverter
from dspex_bridge.programs.wire_values import to_wire

if TYPE_CHECKING:
    from dspex_protocol.messages import Request

    from .link import Link

__all__ = ["run_module"]


def run_module(request: Request, link: Link) -> dict[str, Any]:
    """`{state, inputs, lm, adapter}` to the outputs, as DSPy's adapter parsed them.

    `state` is a bundle, `inputs` are in their wire form, `lm` is a description of the one.
    """
    params = request.params
    spec = bundles.load(params["state"])
    module = build_module(spec)
    inputs = InputConverter(spec.signature).convert(params["inputs"])

    async def call_tool(tool: str, arguments: dict[str, Any]) -> Any:
        import asyncio

        asked = link.request("call_tool", {"tool": tool, "args": arguments})
        return await asyncio.wrap_future(asked)

    with dspy.context(
        lm=RemoteLM(params["lm"], link.request),
        adapter=ADAPTERS[params["adapter"]](),
        trace=[],
        disable_history=True,
        # A tool of the client's is asynchronous, and this module is not.
        allow_tool_async_sync_conversion=True,
        **{TOOL_SETTING: call_tool},
    ):
        prediction = module(**inputs)
    outputs: dict[str, Any] = to_wire(dict(prediction.items()))
    return outputs
