"""What the packages offer, what they import, and who may know whom."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "dspex_protocol": ROOT / "protocol" / "dspex_protocol",
    "dspex_bridge": ROOT / "bridge" / "dspex_bridge",
    "dspex_server": ROOT / "server" / "dspex_server",
}

# Who may import whom at run time: what stands in a row may import its own row and those below it.
# A name covers the modules inside it; the longest name that fits counts.
BRIDGE_LAYERS: list[tuple[str, ...]] = [
    # Clients of the bridge: the other commands, and what test suites of others use.
    (
        "dspex_bridge.commands",
        "dspex_bridge.doctor",
        "dspex_bridge.record",
        "dspex_bridge.conformance",
        "dspex_bridge.pytest_plugin",
        "dspex_bridge.testing",
    ),
    ("dspex_bridge.fork_server",),
    ("dspex_bridge.forked",),
    ("dspex_bridge.loop",),
    # The host is what the methods share; they are handed it, and name its class for mypy only.
    ("dspex_bridge.dispatch", "dspex_bridge.host"),
    ("dspex_bridge.methods",),
    # Work in processes of its own: the bridge's side, and what runs in them.
    ("dspex_bridge.jobs",),
    ("dspex_bridge.programs.registry", "dspex_bridge.programs.bundles"),
    ("dspex_bridge.engine",),
    # Specs, annotations and converters: data and pure functions, which the engine reads too.
    ("dspex_bridge.programs",),
    (
        "dspex_bridge",
        "dspex_bridge.callbacks",
        "dspex_bridge.catalog",
        "dspex_bridge.datasets",
        "dspex_bridge.environment",
        "dspex_bridge.exceptions",
        "dspex_bridge.guard",
        "dspex_bridge.health",
        "dspex_bridge.heap",
        "dspex_bridge.installing",
        "dspex_bridge.limits",
        "dspex_bridge.logs",
        "dspex_bridge.metric_shape",
        "dspex_bridge.optimizers",
        "dspex_bridge.outflow",
        "dspex_bridge.params",
        "dspex_bridge.randomness",
        "dspex_bridge.redaction",
        "dspex_bridge.rooms",
        "dspex_bridge.runner",
        "dspex_bridge.shapes",
        "dspex_bridge.state_dir",
        "dspex_bridge.stats",
        "dspex_bridge.stdio",
        "dspex_bridge.streams",
        "dspex_bridge.timers",
        "dspex_bridge.variables",
        "dspex_bridge.writer",
    ),
]
PROTOCOL_LAYERS: list[tuple[str, ...]] = [
    ("dspex_protocol.client",),
    ("dspex_protocol.peer",),
    ("dspex_protocol.connection", "dspex_protocol.signatures"),
    ("dspex_protocol.schema_reader",),
    ("dspex_protocol.schema_kinds",),
    (
        "dspex_protocol.schema_keywords",
        "dspex_protocol.schema_overlap",
        "dspex_protocol.schema_writer",
        "dspex_protocol.signature_size",
    ),
    ("dspex_protocol.constraints", "dspex_protocol.grammar"),
    ("dspex_protocol.codec", "dspex_protocol.messages", "dspex_protocol.types"),
    ("dspex_protocol.refusals", "dspex_protocol.spelling", "dspex_protocol.json_values"),
    (
        "dspex_protocol.errors",
        "dspex_protocol.framing",
        "dspex_protocol.long_arrays",
        "dspex_protocol.tensor",
    ),
    ("dspex_protocol",),
]
# Above the bridge, whose specs and converters it uses; the bridge itself is another process.
SERVER_LAYERS: list[tuple[str, ...]] = [
    # Called by the command line, late: what stands below it is another package.
    ("dspex_server.serve",),
    ("dspex_server.api.web",),
    ("dspex_server.lifetime",),
    ("dspex_server.settings",),
    # The API is handed the app, which is made of all that stands below.
    ("dspex_server.api",),
    ("dspex_server.app", "dspex_server.membership"),
    ("dspex_server.jobs",),
    ("dspex_server.workflows",),
    ("dspex_server.batching", "dspex_server.optimizing"),
    ("dspex_server.executing",),
    (
        "dspex_server.bridges",
        "dspex_server.events",
        "dspex_server.importing",
        "dspex_server.interrupting",
        "dspex_server.known_revisions",
        "dspex_server.relay",
    ),
    ("dspex_server.loaded",),
    ("dspex_server.resources",),
    ("dspex_server.db",),
    ("dspex_server", "dspex_server.errors", "dspex_server.ids"),
]
# The command line calls the server, late; nothing else below knows of it.
COMMAND: list[tuple[str, ...]] = [("dspex_bridge.cli", "dspex_bridge.__main__")]
LAYERS = COMMAND + SERVER_LAYERS + BRIDGE_LAYERS + PROTOCOL_LAYERS

# Packages whose modules have to be placed one by one: a new one must not slip in as a leaf.
PLACED_SINGLY = ("dspex_bridge", "dspex_protocol", "dspex_server")


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def layer_of(module: str) -> int:
    """The number of a module's row in the table, from below."""
    name = module
    while True:
        for height, row in enumerate(reversed(LAYERS)):
            if name in row and (name == module or name not in PLACED_SINGLY):
                return height
        assert "." in name, f"{module} has no place in the table of layers: give it one"
        name = name.rpartition(".")[0]


def imports_of(module: str) -> Iterator[str]:
    """What a module imports at run time, at once or late; not what is for mypy alone."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    pending: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(
                [*(above if node.level else []), *([node.module] if node.module else [])]
            )
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in MODULES else base
        pending.extend(ast.iter_child_nodes(node))


def test_a_module_imports_only_its_own_layer_and_those_below() -> None:
    upward = [
        f"{module} imports {name}"
        for module in sorted(MODULES)
        for name in imports_of(module)
        if name.partition(".")[0] in PACKAGES and layer_of(name) > layer_of(module)
    ]
    assert upward == []


def test_every_name_in_the_table_of_layers_is_a_module_and_stands_there_once() -> None:
    names = [name for row in LAYERS for name in row]
    assert len(names) == len(set(names))
    assert sorted(set(names) - set(MODULES)) == []


def test_only_the_engine_imports_dspy() -> None:
    importers = {
        module
        for module in MODULES
        for name in imports_of(module)
        if name.partition(".")[0] in ("dspy", "litellm")
    }
    assert importers
    # Jobs are the engine's work, in other processes.
    assert {
        module
        for module in importers
        if not module.startswith(("dspex_bridge.engine.", "dspex_bridge.jobs."))
    } == set()


def test_the_protocol_imports_msgpack_and_nothing_else_that_is_installed() -> None:
    foreign = {
        (module, name)
        for module in MODULES
        if module.startswith("dspex_protocol")
        for name in imports_of(module)
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "dspex_protocol"}
    }
    # tensor.py says what happens without NumPy.
    assert foreign == {("dspex_protocol.codec", "msgpack"), ("dspex_protocol.tensor", "numpy")}


def test_nothing_is_evaluated_unpickled_or_imported_by_a_name_that_is_data() -> None:
    offenders = []
    for module, path in MODULES.items():
        if {"pickle", "marshal", "shelve", "cloudpickle"} & set(imports_of(module)):
            offenders.append(module)
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("eval", "exec", "__import__") or called.endswith("import_module"):
                offenders.append(f"{module}:{node.lineno}")  # type: ignore[attr-defined]
    assert offenders == []


# The bridge's first answer comes within 40 ms of its start: these are what it needs for it, and
# each of the others would cost 5 to 60 ms.
LIGHT = [
    "dspex_protocol.codec",
    "dspex_protocol.connection",
    "dspex_protocol.errors",
    "dspex_protocol.framing",
    "dspex_protocol.messages",
    "dspex_protocol.tensor",
    "dspex_bridge.cli",
    "dspex_bridge.guard",
    "dspex_bridge.loop",
    "dspex_bridge.stdio",
]
HEAVY = {
    "argparse",
    "asyncio",
    "contextlib",
    "dataclasses",
    "decimal",
    "dspy",
    "enum",
    "inspect",
    "json",
    "litellm",
    "logging",
    "numpy",
    "pathlib",
    "pydantic",
    "re",
    "socket",
    "subprocess",
    "tempfile",
    "traceback",
    "typing",
}


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_of_the_first_answer_imports_nothing_heavy(module: str) -> None:
    loaded = loaded_by(module)
    assert loaded & HEAVY == set()
    foreign = loaded - sys.stdlib_module_names - set(PACKAGES)
    # Cython's own, which come with msgpack, are no files.
    assert {name for name in foreign if "cython" not in name} <= {"msgpack"}
    if module.startswith("dspex_protocol"):
        assert "threading" not in loaded


def loaded_by(module: str) -> set[str]:
    """The top-level modules that importing one brings into a fresh interpreter."""
    script = (
        "import json, sys\n"
        "before = set(sys.modules)\n"
        f"import {module}\n"
        "print(json.dumps(sorted({n.partition('.')[0] for n in set(sys.modules) - before})))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=30
    )
    return set(json.loads(run.stdout))


CORE = ["client", "codec", "connection", "errors", "framing", "messages", "peer", "tensor"]


@pytest.mark.parametrize("name", CORE)
def test_all_names_what_a_module_defines_for_others(name: str) -> None:
    module = importlib.import_module(f"dspex_protocol.{name}")
    tree = ast.parse(Path(str(module.__file__)).read_text())
    defined = set()
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            defined.add(node.name)
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target)]
            defined |= {name.id for name in names if isinstance(name, ast.Name)}
    public = {one for one in defined if not one.startswith("_")} - {"TYPE_CHECKING"}
    assert set(module.__all__) == public
    assert len(module.__all__) == len(set(module.__all__))
    for one in public:
        assert hasattr(module, one)


def test_a_module_with_anything_in_it_says_what_is_public() -> None:
    silent = []
    for module, path in MODULES.items():
        body = ast.parse(path.read_text()).body
        defines = any(isinstance(node, (ast.ClassDef, ast.FunctionDef)) for node in body)
        if defines and not any(ast.unparse(node).startswith("__all__ = ") for node in body):
            silent.append(module)
    assert silent == []
