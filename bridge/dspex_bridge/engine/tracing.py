"""OpenTelemetry spans of executions and LM calls, by the conventions for generative AI.

Only where the environment configures an exporter as OpenTelemetry's own variables do
(OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT and what the exporter reads): nothing of it is
imported otherwise. No prompt, input or answer stands in a span.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import DSPexError

from dspex_bridge.catalog import VERSION

from .errors import translate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dspex_bridge.logs import Log

    from .metering import CallRecord, Meter

__all__ = ["Tracing", "lm_call", "start_tracing"]

# The key in DSPy's settings under which the tracing of a run travels, into DSPy's threads too.
TRACING_SETTING = "dspex_tracing"

# A process that ends has a second for everything; a collector that is away gets this much of it.
_FLUSH_MS = 300

_EXPORTERS = ("otlp", "console")


class Tracing:
    """Makes spans with an OpenTelemetry tracer. `provider` is the SDK's, if it is to be flushed."""

    def __init__(self, tracer: Any, provider: Any = None) -> None:
        self._tracer = tracer
        self._provider = provider

    @contextmanager
    def execution(
        self, program: str, module: str, meter: Meter, meta: Mapping[str, Any]
    ) -> Iterator[None]:
        """The span of one run, joined to the trace that the client's `meta.traceparent` names."""
        from opentelemetry.trace import SpanKind

        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": program,
            "dspex.module": module,
        }
        with self._span(
            f"invoke_agent {program}", SpanKind.INTERNAL, attributes, context=_parent(meta)
        ) as span:
            try:
                with dspy.context(**{TRACING_SETTING: self}):
                    yield
            finally:
                _set_usage(span, meter)

    @contextmanager
    def lm_call(self, model: str, record: CallRecord) -> Iterator[None]:
        """The span of one LM call, inside that of its run."""
        from opentelemetry.trace import SpanKind

        provider, _, name = model.rpartition("/")
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider or "openai",
            "gen_ai.request.model": name,
            "dspex.lm": record.lm,
        }
        with self._span(f"chat {name}", SpanKind.CLIENT, attributes) as span:
            try:
                yield
            finally:
                if record.is_billed:
                    _set_usage(span, record)

    def flush(self) -> None:
        """Sends what is finished, for as long as the end of a process allows."""
        if self._provider is not None:
            self._provider.force_flush(_FLUSH_MS)

    @contextmanager
    def _span(
        self, name: str, kind: Any, attributes: dict[str, Any], context: Any = None
    ) -> Iterator[Any]:
        from opentelemetry.trace import StatusCode

        # What an exception says may quote a secret: its kind is enough.
        with self._tracer.start_as_current_span(
            name,
            kind=kind,
            attributes=attributes,
            context=context,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", _kind_of(error))
                raise


@contextmanager
def lm_call(model: str, record: CallRecord) -> Iterator[None]:
    """The span of an LM call where the run that makes it is traced."""
    tracing: Tracing | None = dspy.settings.get(TRACING_SETTING)
    if tracing is None:
        yield
    else:
        with tracing.lm_call(model, record):
            yield


def start_tracing(log: Log) -> Tracing | None:
    """Tracing as the environment configures it; None where it does not, or where it cannot be."""
    chosen = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_off or chosen == "none" or not (chosen or endpoint):
        return None
    if chosen and chosen not in _EXPORTERS:
        log.warning(f"OTEL_TRACES_EXPORTER is {chosen!r}: no spans; {', '.join(_EXPORTERS)} can be")
        return None
    try:
        return _start(chosen or "otlp")
    except ImportError as error:
        log.warning(
            f"OpenTelemetry is configured and not installed ({error}): no spans. "
            "Install it with: pip install 'dspex[otel]'"
        )
        return None


def _start(exporter: str) -> Tracing:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    made: Any
    if exporter == "console":
        made = ConsoleSpanExporter(out=sys.stderr)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        made = OTLPSpanExporter()
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before these.
    name = os.environ.get("OTEL_SERVICE_NAME") or "dspex"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(made))
    return Tracing(provider.get_tracer("dspex", VERSION), provider)


def _parent(meta: Mapping[str, Any]) -> Any:
    """The client's span, of W3C's traceparent; none where there is none, or it is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {
        key: meta[key] for key in ("traceparent", "tracestate") if isinstance(meta.get(key), str)
    }
    return TraceContextTextMapPropagator().extract(carrier, context=Context())


def _set_usage(span: Any, counted: CallRecord | Meter) -> None:
    span.set_attribute("gen_ai.usage.input_tokens", counted.prompt_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", counted.completion_tokens)
    if counted.cost_usd is not None:
        span.set_attribute("dspex.cost_usd", counted.cost_usd)


def _kind_of(error: BaseException) -> str:
    """The wire's code, and of an LM's failure its kind."""
    known = error if isinstance(error, DSPexError) else translate(error)
    if known is None:
        return type(error).__name__
    kind = known.data.get("kind")
    return f"{known.code}.{kind}" if known.code == "lm_error" and kind else known.code
