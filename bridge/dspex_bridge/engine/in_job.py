"""Modules whose code only blocks: each run is a job, in a process that can be killed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dspy

from dspex_bridge.programs.wire_values import to_wire

from . import remote
from .adapters import adapter_name
from .predictors import predictors_of
from .tools import TOOL_SETTING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Protocol

    from dspex_bridge.programs.spec import ProgramSpec

    class RunJob(Protocol):
        """Runs a module in a job: its outputs by name, in their wire form."""

        async def __call__(
            self,
            spec: ProgramSpec,
            inputs: dict[str, Any],
            lm: dict[str, Any],
            handlers: Mapping[str, Callable[[dict[str, Any]], Awaitable[Any]]],
            adapter: str,
        ) -> dict[str, Any]: ...


__all__ = ["JOB_SETTING", "InJob"]

# The key in DSPy's settings under which a run's way to its jobs travels: a RunJob.
JOB_SETTING = "dspex_run_job"


class InJob(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """`module`, made from `spec`. Called asynchronously, in the bridge, it runs in a job; called
    synchronously it is in one."""

    def __init__(self, spec: ProgramSpec, module: dspy.Module) -> None:
        super().__init__()
        self._spec = spec
        self._module = module

    def named_parameters(self) -> list[tuple[str, Any]]:
        """The module's own: programs are saved and described as if this one were not there."""
        parameters: list[tuple[str, Any]] = self._module.named_parameters()
        return parameters

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return self._module(**inputs)

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        run_job: RunJob = dspy.settings[JOB_SETTING]
        lm = dspy.settings.lm
        spec = replace(self._spec, predictors=predictors_of(self._module))

        async def call_lm(params: dict[str, Any]) -> dict[str, Any]:
            return await remote.answer(lm, params)

        async def call_tool(params: dict[str, Any]) -> Any:
            return await dspy.settings[TOOL_SETTING](params["tool"], params["args"])

        outputs = await run_job(
            spec,
            to_wire(inputs),
            remote.description(lm),
            {"lm": call_lm, "call_tool": call_tool},
            adapter_name(dspy.settings.adapter),
        )
        return dspy.Prediction(**outputs)
