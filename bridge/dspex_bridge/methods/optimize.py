"""optimize: a better program of one, by examples and a metric, in a job of its own."""

from __future__ import annotations

from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.catalog import INNER_MODULES
from dspex_bridge.metric_shape import metric as metric_shape
from dspex_bridge.optimizers import LM_PARAMS, MAX_TRIALS, OPTIMIZERS, require_packages
from dspex_bridge.params import array, integer, mapping, name, one_of, record, text
from dspex_bridge.shapes import LIMITS
from dspex_bridge.variables import check_variables, choices, defaults, is_numeric

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
    from dspex_bridge.programs.registry import Program, Registry

__all__ = ["OPTIMIZE"]

_VARIABLES = "optimizer.params.variables"


def _optimize(host: Host, call: Call) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    """Finds and checks everything in the order of the requests, before anything is paid for."""
    params, programs = call.params, host.require_programs()
    optimizer: dict[str, Any] = params["optimizer"]
    kind, own = OPTIMIZERS[optimizer["name"]], optimizer.get("params") or {}
    _check_optimizer(host, optimizer["name"], own)
    runs = ProgramRuns.of_request(host, call, params)
    if kind.needs_metric and params.get("metric") is None:
        raise InvalidParamsError(
            f"optimize: {optimizer['name']} needs a metric", data={"param": "metric"}
        )
    least, given = kind.least_examples(own), len(params.get("trainset") or ())
    if given < least:
        examples = "1 example" if least == 1 else f"{least} examples"
        raise InvalidParamsError(
            f"optimize: {optimizer['name']} needs a trainset of at least {examples}, and has "
            f"{given}",
            data={"param": "trainset"},
        )
    _check_together(optimizer["name"], own, len(params.get("valset") or ()) or given)
    for side in ("trainset", "valset"):
        programs.check_examples(runs.program, params.get(side) or [], side)
    metric = None
    if params.get("metric") is not None:
        metric = make_metric(host, runs, params["metric"], "optimize")
    if optimizer["name"] == "variables":
        own = _with_variables(host, runs, own, has_pool=bool(params.get("trainset")))
    if optimizer["name"] == "knn_few_shot":
        one_of(*INNER_MODULES)(
            runs.program.spec.module, "optimize: the module of a program for knn_few_shot"
        )
    teacher = (own.get("inner") or {}).get("params", own).get("teacher")
    return Optimization(
        host,
        call,
        runs,
        metric=metric,
        optimizer={"name": optimizer["name"], "params": own},
        teacher=None if teacher is None else programs.get(teacher),
        members=_members(programs, runs.program, own) if optimizer["name"] == "ensemble" else [],
        promised=programs.promise(
            params.get("save_as"), lambda: host.connection.is_open(call.request)
        ),
    ).run


def _check_optimizer(host: Host, name: str, own: dict[str, Any]) -> None:
    """Raises InvalidParamsError, UnavailableError, and NotFoundError for what its parameters
    name."""
    OPTIMIZERS[name].params(own, f"optimize: params of {name}")
    require_packages(name)
    engine = host.require_engine()
    for key in LM_PARAMS:
        engine.require_lm(own.get(key))
    if name == "knn_few_shot":
        engine.embedder(own.get("embedder"))
    inner = own.get("inner")
    if inner is not None:
        _check_optimizer(host, inner["name"], inner.get("params") or {})


def _check_together(name: str, own: dict[str, Any], val: int) -> None:
    """Raises InvalidParamsError where the parameters do not go together, on a valset of this
    size."""
    why = OPTIMIZERS[name].conflict(own, val)
    if why is not None:
        raise InvalidParamsError(
            f"optimize: params of {name}: {why}", data={"param": "optimizer.params"}
        )
    inner = own.get("inner")
    if inner is not None:
        _check_together(inner["name"], inner.get("params") or {}, val)


def _members(programs: Registry, base: Program, own: dict[str, Any]) -> list[Program]:
    """The programs of an ensemble beside the one that it is made of. Raises NotFoundError, and
    InvalidParamsError where they are not alike."""
    from dspex_bridge.programs.ensembles import ensemble

    members = [programs.get(name) for name in own.get("programs") or () if name != base.id]
    specs = [program.spec for program in (base, *members)]
    ensemble(specs, own.get("reduce") or "", own.get("size"))
    return members


def _with_variables(
    host: Host, runs: ProgramRuns, own: dict[str, Any], *, has_pool: bool
) -> dict[str, Any]:
    """The parameters of the search over variables with all of these, the program's first."""
    program = runs.program
    variables: dict[str, Any] = {**program.spec.variables, **(own.get("variables") or {})}
    if not variables:
        raise InvalidParamsError(
            "optimize: the program has no variables: declare some in create, or in the "
            "optimizer's params",
            data={"param": _VARIABLES},
        )
    if program.spec.ensemble is not None:
        raise InvalidParamsError(
            "optimize: an ensemble has no variables: its programs have", data={"param": "program"}
        )
    steps = () if program.spec.pipeline is None else program.spec.pipeline.step_names
    check_variables(variables, f"optimize: {_VARIABLES}", steps)
    own = {**own, "variables": variables}
    if (OPTIMIZERS["variables"].planned(own, 0, 0) or 0) > MAX_TRIALS:
        raise InvalidParamsError(
            f"optimize: the grid has more than {MAX_TRIALS:,} trials: say how many in trials, or "
            "take the strategy tpe",
            data={"param": "optimizer.params.strategy"},
        )
    _check_values(host, runs, own, has_pool=has_pool)
    return own


def _check_values(host: Host, runs: ProgramRuns, own: dict[str, Any], *, has_pool: bool) -> None:
    """That a program can be made with each value. Raises what `create` does."""
    programs, engine, variables = host.require_programs(), host.require_engine(), own["variables"]
    lms = [runs.lm]
    for key, variable in variables.items():
        target = variable["applies_to"]
        if target.rpartition("demos.")[2] in ("k", "seed") and not has_pool:
            raise InvalidParamsError(
                f"optimize: {_VARIABLES}.{key}: there is no trainset to draw demonstrations from",
                data={"param": "trainset"},
            )
        values = [variable["low"]] if is_numeric(variable) else choices(variable)
        for value in values:
            programs.check_variant(runs.program, variables, {**defaults(variables), key: value})
            if target == "lm":
                lms.append(engine.lm(value))
    if "cost_usd" in (own.get("objectives") or ()):
        for lm in lms:
            if not lm.has_price:
                raise InvalidParamsError(
                    f"optimize: the price of {lm.model!r} (the LM {lm.name!r}) is not known, so "
                    "that cost_usd is no objective: tokens is one",
                    data={"param": "optimizer.params.objectives", "lm": lm.name},
                )


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
