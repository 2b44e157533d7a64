"""One run of a DSPy module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from .metering import METER_SETTING
from .recording import RECORDER_SETTING
from .streaming import STREAM_SETTING
from .tools import TOOL_SETTING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .adapters import Adapter
    from .lms import LM
    from .metering import Meter
    from .recording import Recorder
    from .streaming import FieldStream

__all__ = ["Run"]


class Run:
    """One run of a module on inputs. `meter` counts its LM calls, whatever comes of it."""

    def __init__(
        self,
        module: dspy.Module,
        inputs: Mapping[str, Any],
        *,
        lm: LM,
        adapter: Adapter,
        config: Mapping[str, Any],
        meter: Meter,
        stream: FieldStream | None,
        recorder: Recorder | None,
        call_tool: Callable[[str, dict[str, Any]], Awaitable[Any]],
    ) -> None:
        self.lm = lm
        self.meter = meter
        self.recorder = recorder
        self._module = module
        self._inputs = inputs
        self._adapter = adapter
        self._config = config
        self._stream = stream
        self._call_tool = call_tool

    async def prediction(self) -> dict[str, Any]:
        """The outputs, as DSPy's adapter parsed them."""
        trace: list[Any] = []
        with dspy.context(
            lm=self.lm.copy(**self._config) if self._config else self.lm,
            adapter=self._adapter,
            trace=trace,
            disable_history=True,
            callbacks=[],
            send_stream=self._stream,
            **{
                METER_SETTING: self.meter,
                STREAM_SETTING: self._stream,
                RECORDER_SETTING: self.recorder,
                TOOL_SETTING: self._call_tool,
            },
        ):
            prediction = dict((await self._module.acall(**self._inputs)).items())
        if self._stream is not None:
            self._stream.finish(prediction)
        if self.recorder is not None:
            self.recorder.add_trace(self._module, trace)
        return prediction
