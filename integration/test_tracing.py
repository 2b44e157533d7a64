"""Spans through a real pipe: in the client's trace, and sent before the process ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.pipe import Pipe

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def spans_of(stderr: str) -> list[dict[str, Any]]:
    decoder, spans, at = json.JSONDecoder(), [], stderr.find("{")
    while at >= 0:
        span, end = decoder.raw_decode(stderr, at)
        spans.append(span)
        at = stderr.find("{", end)
    return spans


def test_a_bridge_with_an_exporter_sends_spans_in_the_clients_trace_before_it_ends() -> None:
    with Pipe(env={"OTEL_TRACES_EXPORTER": "console"}) as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        pipe.ask("create", {"program": "qa", "signature": "question -> answer"})
        meta = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        pipe.ask("execute", {"program": "qa", "inputs": {"question": "?"}, "meta": meta})
        inputs = [{"question": "a"}, {"question": "b"}]
        pipe.ask("batch", {"program": "qa", "inputs": inputs, "meta": meta})
        pipe.ask("shutdown")
        assert pipe.wait() == 0
        spans = spans_of(pipe.stderr_after_exit())
    assert sorted(span["name"] for span in spans) == ["chat knn"] * 3 + ["invoke_agent qa"] * 3
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{TRACE}"}
    runs = [span for span in spans if span["name"] == "invoke_agent qa"]
    assert {span["parent_id"] for span in runs} == {f"0x{PARENT}"}
    parents = {span["parent_id"] for span in spans if span["name"] == "chat knn"}
    assert parents == {span["context"]["span_id"] for span in runs}


@pytest.mark.parametrize("variable", ["OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_collector_that_is_away_disturbs_nothing(variable: str) -> None:
    values = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with Pipe(env={variable: values[variable]}) as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        pipe.ask("create", {"program": "qa", "signature": "question -> answer"})
        pipe.ask("execute", {"program": "qa", "inputs": {"question": "?"}})
        pipe.ask("shutdown")
        assert pipe.wait() == 0
