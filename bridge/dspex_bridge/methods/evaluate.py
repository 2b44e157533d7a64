"""evaluate: a program against examples, by a metric."""

from __future__ import annotations

from functools import partial

from dspex_protocol.errors import InvalidParamsError, MetricError

from dspex_bridge.metric_shape import NO_METRIC
from dspex_bridge.metric_shape import metric as metric_shape
from dspex_bridge.params import array, boolean, integer, mapping, one_of, record
from dspex_bridge.shapes import CONFIG, LIMITS, LM_OR_NAME, PROGRAM_OR_CREATE

from .many import MAX_CONCURRENCY, Teller, run_many
from .method import Method
from .program_runs import ProgramRuns, output_names, spent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from typing import Any

    from dspex_protocol.errors import DSPexError

    from dspex_bridge.dispatch import Call
    from dspex_bridge.engine.metrics import Metric
    from dspex_bridge.host import Host

__all__ = ["EVALUATE", "make_metric", "metric_error"]


def _evaluate(host: Host, call: Call) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    """Finds the program, the LM and the metric in the order of the requests."""
    runs = ProgramRuns.of_request(host, call, call.params)
    metric = make_metric(host, runs, call.params["metric"], "evaluate")
    return partial(_run, host, call, runs, metric)


def make_metric(host: Host, runs: ProgramRuns, spec: Mapping[str, Any], where: str) -> Metric:
    """A request's metric, for the program that it runs; `where` is its method, for errors."""
    return runs.engine.metric(spec, output_names(runs.program), partial(_judge, host, runs, where))


def _judge(
    host: Host, runs: ProgramRuns, where: str, create: Mapping[str, Any], field: str
) -> Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]:
    """A judge's runs: with its own LM, or that of the program that it judges."""
    program = host.require_programs().inline(create)
    one_of(*output_names(program))(field, f"{where}: metric.field")
    names = sorted(item.name for item in program.spec.signature.inputs)
    if names != ["example", "prediction"]:
        raise InvalidParamsError(
            f"{where}: metric.judge: its inputs must be 'example' and 'prediction', both maps "
            f"(dict), got: {', '.join(names)}",
            data={"param": "metric.judge"},
        )
    judging = runs.judging(program)

    async def ask(inputs: dict[str, Any]) -> Mapping[str, Any]:
        return await judging.outputs(judging.prepare(inputs))

    return ask


async def _run(host: Host, call: Call, runs: ProgramRuns, metric: Metric) -> dict[str, Any]:
    params = call.params
    devset: list[dict[str, Any]] = params["devset"]
    is_kept = params.get("results") is not False
    results: list[dict[str, Any]] = [{}] * len(devset)
    scores = [0.0] * len(devset)
    teller = Teller(host, call, len(devset))

    async def run(index: int) -> None:
        outcome = await _one(host, call, runs, metric=metric, example=devset[index], index=index)
        scores[index] = outcome["score"]
        if is_kept:
            results[index] = outcome
        teller.progress()

    try:
        await run_many(len(devset), params.get("max_concurrency"), run)
    finally:
        # Told with an error too: it was paid for.
        call.spent = spent(runs.meter)
    return {
        # A failed example counts 0.
        "score": sum(scores) / len(scores) if scores else 0.0,
        "results": results if is_kept else [],
        **call.spent,
        "duration_ms": round(call.elapsed_ms, 3),
    }


async def _one(
    host: Host,
    call: Call,
    runs: ProgramRuns,
    *,
    metric: Metric,
    example: dict[str, Any],
    index: int,
) -> dict[str, Any]:
    """`{score, outputs}` with the metric's feedback where it has any, or `{score: 0, error}`.

    Raises MetricError where no example can be scored.
    """
    try:
        metric.check(example)  # before anything is paid for
    except MetricError as error:
        return _failed(_metric_error(error, example, index))
    try:
        run = runs.prepare(example["inputs"])
        outputs = await runs.outputs(run)
    except Exception as error:  # noqa: BLE001 - one example's failure is not the others'
        return _failed(host.dispatcher.to_wire_error(error, call.request))
    try:
        score = await run.score(metric, example, outputs)
    except Exception as error:
        cause = host.dispatcher.to_wire_error(error, call.request)
        failure = _metric_error(cause, example, index)
        if cause.code in NO_METRIC:
            raise failure from error
        return _failed(failure)
    feedback = {} if score.feedback is None else {"feedback": score.feedback}
    return {"score": score.value, "outputs": outputs, **feedback}


def _failed(error: DSPexError) -> dict[str, Any]:
    return {"score": 0.0, "error": error.to_wire()}


def _metric_error(cause: DSPexError, example: dict[str, Any], index: int) -> MetricError:
    return metric_error(f"the metric failed at devset[{index}]", cause, example, index=index)


def metric_error(
    where: str, cause: DSPexError, example: Mapping[str, Any], **data: Any
) -> MetricError:
    """A metric's failure, with the example that caused it."""
    return MetricError(
        f"{where}: {cause.message}",
        retryable=cause.retryable,
        data={
            **data,
            "example": dict(example),
            "cause": {"code": cause.code, "message": cause.message, "data": cause.data},
        },
    )


_EXAMPLE = record({"inputs": mapping, "outputs": mapping})

EVALUATE = Method(
    "evaluate",
    _evaluate,
    record(
        {"program": PROGRAM_OR_CREATE, "devset": array(_EXAMPLE), "metric": metric_shape},
        {
            "max_concurrency": integer(1, MAX_CONCURRENCY),
            "results": boolean,
            "lm": LM_OR_NAME,
            "config": CONFIG,
            "limits": LIMITS,
        },
    ),
)
