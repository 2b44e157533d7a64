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
}

# Who may import whom at run time: what stands in a row may import its own row and those below it.
# A name covers the modules inside it; the longest name that fits counts.
BRIDGE_LAYERS: list[tuple[str, ...]] = [
    ("dspex_bridge.cli", "dspex_bridge.__main__"),
    # The commands beside `bridge`: clients of it, but for the tables that they show or check.
    ("dspex_bridge.run", "dspex_bridge.doctor", "dspex_bridge.conformance"),
    ("dspex_bridge.loop",),
    # The host is what the methods share; they are handed it, and name its class for mypy only.
    ("dspex_bridge.dispatch", "dspex_bridge.host"),
    ("dspex_bridge.methods",),
    ("dspex_bridge.programs.registry", "dspex_bridge.programs.bundles"),
    ("dspex_bridge.engine",),
    # Specs, annotations and converters: data and pure functions, which the engine reads too.
    ("dspex_bridge.programs",),
    (
        "dspex_bridge",
        "dspex_bridge.callbacks",
        "dspex_bridge.catalog",
        "dspex_bridge.environment",
        "dspex_bridge.guard",
        "dspex_bridge.logs",
        "dspex_bridge.params",
        "dspex_bridge.redaction",
        "dspex_bridge.runner",
        "dspex_bridge.stats",
        "dspex_bridge.stdio",
        "dspex_bridge.streams",
        "dspex_bridge.timers",
        "dspex_bridge.writer",
    ),
]
PROTOCOL_LAYERS: list[tuple[str, ...]] = [
    ("dspex_protocol.client",),
    ("dspex_protocol.connection", "dspex_protocol.signatures"),
    ("dspex_protocol.constraints",),
    ("dspex_protocol.codec", "dspex_protocol.messages", "dspex_protocol.types"),
    ("dspex_protocol.errors", "dspex_protocol.framing", "dspex_protocol.tensor"),
    ("dspex_protocol",),
]
LAYERS = BRIDGE_LAYERS + PROTOCOL_LAYERS

# Packages whose modules have to be placed one by one: a new one must not slip in as a leaf.
PLACED_SINGLY = ("dspex_bridge", "dspex_protocol")


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


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_its_own_layer_and_those_below(module: str) -> None:
    own = layer_of(module)
    upward = sorted(
        {
            name
            for name in imports_of(module)
            if name.partition(".")[0] in PACKAGES and layer_of(name) > own
        }
    )
    assert upward == []


def test_every_name_in_the_table_of_layers_is_a_module_and_stands_there_once() -> None:
    names = [name for row in LAYERS for name in row]
    assert len(names) == len(set(names))
    assert sorted(set(names) - set(MODULES)) == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_engine_imports_dspy(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports_of(module)}
    if not module.startswith("dspex_bridge.engine"):
        assert not roots & {"dspy", "litellm"}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.startswith("dspex_protocol")))
def test_the_protocol_imports_msgpack_and_nothing_else_that_is_installed(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports_of(module)}
    foreign = roots - sys.stdlib_module_names - {"dspex_protocol"}
    # NumPy where it is there: tensor.py says what happens where it is not.
    assert foreign <= ({"numpy"} if module == "dspex_protocol.tensor" else {"msgpack"})


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_is_evaluated_unpickled_or_imported_by_a_name_that_is_data(module: str) -> None:
    assert not {"pickle", "marshal", "shelve", "cloudpickle"} & set(imports_of(module))
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            assert called not in {"eval", "exec", "__import__", "import_module"}, node.lineno


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


CORE = ["client", "codec", "connection", "errors", "framing", "messages", "tensor"]


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


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_with_anything_in_it_says_what_is_public(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    defines = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    has_all = any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for node in tree.body
    )
    assert has_all or not defines
