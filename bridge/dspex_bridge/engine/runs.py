"""One run of a DSPy module."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import dspy

from .in_job import JOB_SETTING
from .logs import REQUEST_SETTING
from .metering import METER_SETTING
from .metrics import METRIC_SETTING
from .recording import RECORDER_SETTING
from .streaming import STREAM_SETTING
from .threads import THREADS_SETTING, ThreadCalls
from .tools import TOOL_SETTING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from typing import TypeAlias

    from .adapters import Adapter
    from .in_job import RunJob
    from .lms import LM
    from .metering import Meter
    from .metrics import Metric, Score
    from .recording import Recorder
    from .streaming import FieldStream

    Values: TypeAlias = Mapping[str, Any]

__all__ = ["ClientCode", "Run"]


class ClientCode(Protocol):
    """The way from a run to the code of the client that it belongs to."""

    @property
    def request_id(self) -> int:
        """Of the client's request that runs it."""

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """The tool's answer. Raises the error that the client answered with."""

    async def call_metric(
        self, name: str, example: Values, prediction: Values, trace: list[Any] | None
    ) -> Any:
        """The metric's answer. Raises the error that the client answered with."""

    @property
    def run_job(self) -> RunJob:
        """The way to jobs."""


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
        client: ClientCode,
    ) -> None:
        self.lm = lm
        self.meter = meter
        self.recorder = recorder
        self._module = module
        self._inputs = inputs
        self._adapter = adapter
        self._config = config
        self._stream = stream
        self._client = client

    async def prediction(self) -> dict[str, Any]:
        """The outputs, as DSPy's adapter parsed them."""
        trace: list[Any] = []
        threads = ThreadCalls()
        with (
            closing(threads),
            self.context(
                trace=trace,
                send_stream=self._stream,
                **{
                    STREAM_SETTING: self._stream,
                    RECORDER_SETTING: self.recorder,
                    THREADS_SETTING: threads,
                },
            ),
        ):
            prediction = {
                name: str(value) if isinstance(value, dspy.Reasoning) else value
                for name, value in (await self._module.acall(**self._inputs)).items()
            }
        sys.stdout.flush()  # a print without the end of its line
        if self._stream is not None:
            self._stream.finish(prediction)
        if self.recorder is not None:
            self.recorder.add_trace(self._module, trace)
        return prediction

    async def score(self, metric: Metric, example: Values, prediction: Values) -> Score:
        """What a metric says, whose own LM calls are made and metered as the run's are."""
        with self.context(trace=[]):
            return await metric(example, prediction)

    def context(self, **settings: Any) -> AbstractContextManager[None]:
        """DSPy's settings for what belongs to this run."""
        context: AbstractContextManager[None] = dspy.context(
            lm=self.lm.copy(**self._config) if self._config else self.lm,
            adapter=self._adapter,
            disable_history=True,
            callbacks=[],
            # The converters judged them; an object is a map here, which DSPy would remark on.
            warn_on_type_mismatch=False,
            **{
                METER_SETTING: self.meter,
                TOOL_SETTING: self._client.call_tool,
                METRIC_SETTING: self._client.call_metric,
                JOB_SETTING: self._client.run_job,
                REQUEST_SETTING: self._client.request_id,
            },
            **settings,
        )
        return context
