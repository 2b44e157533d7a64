"""Spans of executions and LM calls, as the SDK's in-memory exporter sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dspex_bridge.engine import Engine
from dspex_bridge.engine.tracing import Tracing, start_tracing
from dspex_bridge.logs import Log
from dspex_bridge.programs.registry import Registry
from dspex_bridge.redaction import Redactor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
META = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"}


class Traced:
    """A program that runs on the embedded LM, and the spans of its runs."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider.get_tracer("test"))
        self.engine = Engine(Log(Redactor()), Redactor())
        self.engine.configure({"lms": {"main": {"model": "demo/knn"}}})
        create = {"signature": "question -> answer", "program": "qa"}
        self.program = Registry(self.engine).create(create)

    def run(self, meta: dict[str, Any], inputs: dict[str, Any] | None = None) -> Any:
        client: Any = _NoClient()
        run = self.engine.run(
            self.program.module,
            inputs or {"question": "Where?"},
            lm=self.engine.lm(None),
            adapter=None,
            config={},
            client=client,
        )

        async def whole() -> None:
            with self.tracing.execution("qa", "predict", run.meter, meta):
                await run.prediction()

        try:
            asyncio.run(whole())
        finally:
            self.spans = {span.name: span for span in self.exporter.get_finished_spans()}
        return run.meter


class _NoClient:
    request_id = 7
    call_tool = call_metric = run_job = None


@pytest.fixture(autouse=True)
def stdout_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine takes over what is printed."""
    import sys

    monkeypatch.setattr(sys, "stdout", sys.stdout)


def test_an_execution_and_its_lm_calls_are_spans_in_the_clients_trace() -> None:
    traced = Traced()
    meter = traced.run(META)
    execution, call = traced.spans["invoke_agent qa"], traced.spans["chat knn"]
    assert f"{execution.context.trace_id:032x}" == TRACE
    assert execution.parent is not None
    assert f"{execution.parent.span_id:016x}" == PARENT
    assert execution.kind is SpanKind.INTERNAL
    assert dict(execution.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "qa",
        "dspex.module": "predict",
        "gen_ai.usage.input_tokens": meter.prompt_tokens,
        "gen_ai.usage.output_tokens": meter.completion_tokens,
        "dspex.cost_usd": 0.0,
    }
    assert call.parent is not None
    assert call.parent.span_id == execution.context.span_id
    assert call.kind is SpanKind.CLIENT
    assert dict(call.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "demo",
        "gen_ai.request.model": "knn",
        "dspex.lm": "main",
        "gen_ai.usage.input_tokens": meter.prompt_tokens,
        "gen_ai.usage.output_tokens": meter.completion_tokens,
        "dspex.cost_usd": 0.0,
    }
    assert meter.prompt_tokens > 0


@pytest.mark.parametrize("meta", [{}, {"traceparent": "none of it"}, {"traceparent": 7}])
def test_without_a_traceparent_that_can_be_read_a_trace_begins_here(meta: dict[str, Any]) -> None:
    traced = Traced()
    traced.run(meta)
    assert traced.spans["invoke_agent qa"].parent is None


def test_a_failure_has_its_code_and_none_of_its_words() -> None:
    traced = Traced()
    with pytest.raises(Exception, match="secret"):
        traced.run(META, {"question": _Unprintable()})
    execution = traced.spans["invoke_agent qa"]
    assert execution.status.status_code is StatusCode.ERROR
    assert (execution.attributes or {})["error.type"] == "ValueError"
    assert not execution.events
    assert "secret" not in execution.to_json()


class _Unprintable:
    def __str__(self) -> str:
        raise ValueError("a secret")

    __repr__ = __str__


VARIABLES = ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@pytest.mark.parametrize(
    ("environment", "is_on"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
    ],
)
def test_spans_are_made_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_on: bool
) -> None:
    for name in (*VARIABLES, *ENDPOINTS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracing = start_tracing(Log(Redactor()))
    assert (tracing is not None) is is_on
