"""optimize: a better program of one, by examples and a metric, in a job of its own."""

from __future__ import annotations

from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.metric_shape import metric as metric_shape
from dspex_bridge.optimizers import OPTIMIZERS, require_package
from dspex_bridge.params import array, integer, mapping, name, one_of, record, text
from dspex_bridge.shapes import LIMITS
from dspex_bridge.variables import check_variables

from .evaluate import make_metric
from .method import Method
from .optimization import Optimization
from .program_runs import ProgramRuns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.host import Host
    from dspex_bridge.programs.registry import Program

__all__ = ["OPTIMIZE"]


def _optimize(host: Host, call: Call) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    """Finds and checks everything in the order of the requests, before anything is paid for."""
    params, programs = call.params, host.require_programs()
    optimizer = params["optimizer"]
    kind, own = OPTIMIZERS[optimizer["name"]], optimizer.get("params") or {}
    kind.params(own, f"optimize: params of {optimizer['name']}")
    require_package(optimizer["name"])
    runs = ProgramRuns.of_request(host, call, params)
    for given in ("trainset", "metric"):
        if params.get(given) is None and getattr(kind, f"needs_{given}"):
            raise InvalidParamsError(
                f"optimize: {optimizer['name']} needs a {given}", data={"param": given}
            )
    if params.get("save_as") is not None:
        programs.require_free(params["save_as"])
    for side in ("trainset", "valset"):
        programs.check_examples(runs.program, params.get(side) or [], side)
    metric = None
    if params.get("metric") is not None:
        metric = make_metric(host, runs, params["metric"], "optimize")
    if optimizer["name"] == "variables":
        own = {**own, "variables": _variables(runs.program, own)}
    teacher = None if own.get("teacher") is None else programs.get(own["teacher"])
    return Optimization(
        host, call, runs, metric=metric, optimizer={**optimizer, "params": own}, teacher=teacher
    ).run


def _variables(program: Program, own: dict[str, Any]) -> dict[str, Any]:
    variables: dict[str, Any] = {**program.spec.variables, **(own.get("variables") or {})}
    if not variables:
        raise InvalidParamsError(
            "optimize: the program has no variables: declare some in create, or in the "
            "optimizer's params",
            data={"param": "optimizer.params.variables"},
        )
    steps = () if program.spec.pipeline is None else program.spec.pipeline.step_names
    check_variables(variables, "optimize: optimizer.params.variables", steps)
    return variables


_EXAMPLE = record({"inputs": mapping, "outputs": mapping})

OPTIMIZE = Method(
    "optimize",
    _optimize,
    record(
        {
            "program": name,
            "optimizer": record({"name": one_of(*OPTIMIZERS)}, {"params": mapping}),
        },
        {
            "trainset": array(_EXAMPLE),
            "valset": array(_EXAMPLE),
            "metric": metric_shape,
            "save_as": name,
            "seed": integer(0),
            "limits": LIMITS,
            "checkpoint": text,
            "on_stop": one_of("discard", "best"),
            "include": array(one_of("candidates")),
        },
    ),
)
