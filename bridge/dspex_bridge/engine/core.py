"""What the bridge asks of DSPy: LMs by name, modules from specifications, runs."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# LiteLLM otherwise fetches its price table from the network when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import dspy

from dspex_bridge.state_dir import StateDir

from . import errors, logs, remote, type_markers
from .adapters import ADAPTERS, Adapter
from .dspy_types import dspy_types
from .embedders import Embedders
from .exchanges import Writer
from .lms import LM, LMs
from .metering import Meter
from .metrics import make_metric
from .modules import build_module
from .predictors import predictors_of
from .recording import Recorder
from .runs import Run
from .streaming import FieldStream
from .tracing import start_tracing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dspex_protocol.errors import DSPexError

    from dspex_bridge.limits import Limits
    from dspex_bridge.logs import Log
    from dspex_bridge.programs.spec import Predictor, ProgramSpec
    from dspex_bridge.redaction import Redactor
    from dspex_bridge.streams import ChunkStream

    from .metrics import Judge, Metric
    from .runs import ClientCode

__all__ = ["Engine"]

_DEFAULT_ADAPTER = "chat"

# Answers that LMs with a cache may give again. DSPy would keep a million: some gigabytes.
_MAX_CACHED = 4096


class Engine:
    """One instance a process. Everything here runs on the event loop's thread."""

    def __init__(
        self,
        log: Log,
        redactor: Redactor,
        state_dir: StateDir | None = None,
        record: str | None = None,
    ) -> None:
        """`record` is the path of a file that all LM exchanges are appended to."""
        read_file = (state_dir or StateDir()).read
        #: DSPy's own types as clients send them, who may name files.
        self.client_types = dspy_types(read_file)
        # DSPy's disk cache is pickle in a folder that everybody knows.
        dspy.configure_cache(enable_disk_cache=False, memory_max_entries=_MAX_CACHED)
        type_markers.make_unguessable()
        logs.join(log)
        # Where it is configured: spans of executions and LM calls.
        self.tracing = start_tracing(log)
        self._redactor = redactor
        writer = None if record is None else Writer(record, redactor)
        self._lms = LMs(redactor, read_file, writer)
        self._embedders = Embedders(redactor)
        self._adapter = _DEFAULT_ADAPTER
        self._adapters: dict[str, Adapter] = {name: make() for name, make in ADAPTERS.items()}

    @staticmethod
    @cache
    def versions() -> dict[str, str]:
        """Read once: it takes 4 ms, and of a fork's memory 2 MB."""
        return {"dspy": version("dspy"), "litellm": version("litellm")}

    def configure(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Applies the whole of `params` or, where anything in it is wrong, none of it."""
        embedders = params.get("embedders") or {}
        made = self._embedders.make(embedders)
        self._lms.configure(params.get("lms") or {}, params.get("default_lm"), params.get("limits"))
        self._embedders.add(embedders, made)
        if params.get("adapter") is not None:
            self._adapter = params["adapter"]
        return {
            **self._lms.describe(),
            "adapter": self._adapter,
            "embedders": self._embedders.describe(),
        }

    def lm_stats(self) -> dict[str, Any]:
        return self._lms.stats()

    def require_lm(self, name: str | None) -> None:
        """Raises NotFoundError for a name that is no configured LM's."""
        if name is not None:
            self._lms.get(name)

    def build(self, spec: ProgramSpec) -> dspy.Module:
        """The DSPy module of a specification. Raises SignatureError and InvalidParamsError."""
        return build_module(spec, self)

    def predictors(self, module: dspy.Module) -> dict[str, Predictor]:
        """The instructions and demonstrations in a module as it stands."""
        return predictors_of(module)

    def lm(self, which: str | Mapping[str, Any] | None) -> LM:
        """An LM by name, one made from a description, or for None the default one.

        Raises NotFoundError and InvalidParamsError.
        """
        return self._lms.get(which)

    def describe_lms(self, own: LM) -> dict[str, Any]:
        """What a job needs to know of the LMs: `own`, and all that are configured, by name."""
        named = {name: self._lms.get(name) for name in self._lms.names}
        return {name: remote.description(lm) for name, lm in {**named, own.name: own}.items()}

    async def answer_lm(self, lm: LM, params: dict[str, Any]) -> dict[str, Any]:
        """The answer to a job that calls an LM, in the context of the run that it belongs to."""
        return await remote.answer(lm, params)

    def adapter_name(self, name: str | None) -> str:
        """The adapter of a run that asks for this one, or for none."""
        return name or self._adapter

    def embedder(self, name: str | None) -> Any:
        """An embedder by name, or the default one. Raises NotFoundError."""
        return self._embedders.get(name)

    async def embed(self, name: str | None, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, for a job."""
        vectors: list[list[float]] = (await self.embedder(name).acall(texts)).tolist()
        return vectors

    def metric(self, spec: Mapping[str, Any], outputs: Sequence[str], judge: Judge) -> Metric:
        """The metric of a request, for programs with these outputs. Raises InvalidParamsError."""
        return make_metric(spec, outputs, judge)

    def meter(self, limits: Sequence[Limits] = ()) -> Meter:
        """What LM calls are counted by, and held to `limits`, the narrowest scope first."""
        return Meter(limits=limits)

    def run(
        self,
        module: dspy.Module,
        inputs: Mapping[str, Any],
        *,
        lm: LM,
        adapter: str | None,
        config: Mapping[str, Any],
        client: ClientCode,
        whole: Meter | None = None,
        is_recorded: bool = False,
        chunks: ChunkStream | None = None,
        fields: Collection[str] = (),
    ) -> Run:
        """A run, ready to start.

        `whole` counts the run's LM calls, too. With `chunks` the named `fields` are streamed into
        it.
        """
        return Run(
            module,
            inputs,
            lm=lm,
            adapter=self._adapters[adapter or self._adapter],
            config=config,
            meter=Meter(whole),
            stream=None if chunks is None else FieldStream(chunks, fields),
            recorder=Recorder() if is_recorded else None,
            client=client,
        )

    def translate(self, error: BaseException) -> DSPexError | None:
        return errors.translate(error)
