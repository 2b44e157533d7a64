"""One run of an optimizer."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import DSPexError, OptimizerError

from dspex_bridge.catalog import REDUCES
from dspex_bridge.engine.optimizers.compilers import COMPILERS, Setup
from dspex_bridge.engine.optimizers.once import run_examples_once
from dspex_bridge.engine.remote import RemoteLMError
from dspex_bridge.exceptions import describe
from dspex_bridge.optimizers import LM_PARAMS, OPTIMIZERS
from dspex_bridge.programs import bundles
from dspex_bridge.programs.ensembles import ensemble

from .optimization import Optimization
from .search import search_variables

if TYPE_CHECKING:
    import dspy
    from dspex_protocol.messages import Request

    from .link import Link

__all__ = ["optimize"]

# As many as a prompt of short examples takes easily.
_DEFAULT_NEIGHBOURS = 4


def optimize(request: Request, link: Link) -> dict[str, Any]:
    """Runs an optimizer on a program.

    Parameters: `state` (a bundle), `optimizer` {name, params}, `trainset` and `valset` (examples
    {inputs, outputs} in their wire form), `has_metric`, `lms` (descriptions by name), `lm`,
    `adapter`, `seed`, `on_stop`, `teacher` (a bundle or nil), `programs` (bundles: the
    others of an ensemble), `tells_candidates`.

    The result is that of the method `optimize`, without what the bridge adds; scores are nil
    without a metric.

    Requests to the bridge: `lm`, `metric {example, prediction}` and `call_tool`; notifications:
    `state`, how far it is. The notification `stop {reason}` ends it with the best so far.
    """
    import numpy as np

    run_examples_once()
    run = Optimization(request, link)
    name, params = run.params["optimizer"]["name"], run.params["optimizer"].get("params") or {}
    seed: int = run.params["seed"]
    random.seed(seed)
    np.random.seed(seed % 2**32)
    run.tell("the program as it is")
    run.evaluate(run.student)
    _keep_quiet({name, (params.get("inner") or {}).get("name", name)})
    run.phase = "compile"
    run.planned = OPTIMIZERS[name].planned(params, len(run.trainset), len(run.valset))
    run.tell(f"{name} begins")

    def compile_with(name: str, params: dict[str, Any], student: dspy.Module) -> dspy.Module:
        return _compiled(run, name, params, student, seed)

    if name == "variables":
        return search_variables(run, params, seed, compile_with)
    if name == "knn_few_shot":
        return _knn_few_shot(run, params)
    if name == "ensemble":
        return _ensemble(run, params)
    compiled = compile_with(name, params, run.student)
    run.phase = "evaluate"
    return run.result(run.evaluate(compiled))


def _ensemble(run: Optimization, params: dict[str, Any]) -> dict[str, Any]:
    """The program that asks this one and the others."""
    others = [bundles.load(state) for state in run.params["programs"]]
    spec = ensemble([run.spec, *others], params.get("reduce") or REDUCES[0], params.get("size"))
    with run.using(spec, None):
        run.phase = "evaluate"
        return run.result(run.evaluate(run.build(spec)))


def _keep_quiet(names: set[str]) -> None:
    """Optuna writes to stderr by itself: its log goes where the others' do."""
    if any("optuna" in OPTIMIZERS[name].packages for name in names):
        import optuna

        optuna.logging.disable_default_handler()
        optuna.logging.enable_propagation()


def _knn_few_shot(run: Optimization, params: dict[str, Any]) -> dict[str, Any]:
    """The program that is shown, at each call, the nearest examples of the trainset. DSPy's own
    bootstraps these anew at each call, for LM calls each time, and cannot be saved."""
    options = {"k": params.get("k") or _DEFAULT_NEIGHBOURS, "module": run.spec.module}
    if params.get("embedder") is not None:
        options["embedder"] = params["embedder"]
    spec = replace(
        run.spec, module="knn", options=options, demos=run.labelled_demos(), predictors={}
    )
    with run.using(spec, None):
        run.phase = "evaluate"
        return run.result(run.evaluate(run.build(spec)))


def _compiled(
    run: Optimization, name: str, params: dict[str, Any], student: dspy.Module, seed: int
) -> dspy.Module:
    """What one of DSPy's optimizers makes of a program."""
    teacher = run.params.get("teacher")
    shuffled = random.Random(seed)  # noqa: S311 - a draw that can be repeated
    setup = Setup(
        student=student,
        trainset=shuffled.sample(run.trainset, len(run.trainset)),
        valset=run.valset,
        metric=run.metric if run.has_metric else None,
        params=params,
        lms={key: run.lms[params[key]] for key in LM_PARAMS if params.get(key)},
        seed=seed,
        teacher=None if teacher is None else run.build(bundles.load(teacher)),
    )
    try:
        return COMPILERS[name](setup)
    except DSPexError:
        raise
    except Exception as error:
        raise _wire_cause(error) or OptimizerError(f"{name} failed: {describe(error)}") from error


def _wire_cause(error: BaseException | None) -> DSPexError | None:
    """The bridge's own error behind one of an optimizer's."""
    while error is not None:
        if isinstance(error, RemoteLMError):
            return error.wire_error
        error = error.__cause__ or error.__context__
    return None
