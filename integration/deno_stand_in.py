"""What takes Deno's place in tests: DSPy's interpreter speaks to it as it would to the real one.

DSPy's sandbox is Python in WebAssembly in Deno, whose packages come from hosts that tests must not
need. This program answers `deno --version`, `deno info` and `deno run …`, and runs the code that it
is sent with its own Python, in its own process: it is **no sandbox**, and is for code that a test
has written. `stand_in(folder)` makes the command `deno` in a folder, to be put on the PATH.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["stand_in"]

# DSPy's own numbers for errors of code; of other kinds of error the last one.
_CODES = {"SyntaxError": -32000, "NameError": -32001, "TypeError": -32002, "ValueError": -32003}
_OTHER = -32099


def stand_in(folder: Path, version: str = "2.5.0") -> Path:
    """The folder, with a command `deno` in it that is this program."""
    command = folder / "deno"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{__file__}" {version} "$@"\n')
    command.chmod(0o755)
    return folder


class _Final(BaseException):
    """SUBMIT was called."""


def _send(**message: Any) -> None:
    sys.__stdout__.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


class _Session:
    def __init__(self) -> None:
        self._calls = 0
        self._names: dict[str, Any] = {
            "__name__": "__main__",
            "SUBMIT": self._submitting(["output"]),
        }

    def serve(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message["method"] == "shutdown":
                return
            if message["method"] == "register":
                self._register(message["params"])
                _send(id=message["id"], result={})
            elif message["method"] == "execute":
                self._execute(message["params"]["code"], message["id"])

    def _register(self, params: dict[str, Any]) -> None:
        for tool in params.get("tools") or ():
            names = [parameter["name"] for parameter in tool["parameters"]]
            defaults = {p["name"]: p["default"] for p in tool["parameters"] if "default" in p}
            self._names[tool["name"]] = self._tool(tool["name"], names, defaults)
        if params.get("outputs"):
            self._names["SUBMIT"] = self._submitting([one["name"] for one in params["outputs"]])

    def _submitting(self, names: list[str]) -> Any:
        def submit(*values: Any, **named: Any) -> None:
            raise _Final(dict(zip(names, values, strict=False)) | named)

        return submit

    def _tool(self, name: str, names: list[str], defaults: dict[str, Any]) -> Any:
        def call(*values: Any, **named: Any) -> Any:
            self._calls += 1
            given = defaults | dict(zip(names, values, strict=False)) | named
            _send(method="tool_call", params={"name": name, "kwargs": given}, id=self._calls)
            answer = json.loads(sys.stdin.readline())
            if "error" in answer:
                raise RuntimeError(answer["error"]["message"])
            result = answer["result"]
            return json.loads(result["value"]) if result["type"] == "json" else result["value"]

        return call

    def _execute(self, code: str, request: Any) -> None:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                value = self._run(code)
        except _Final as final:
            _send(id=request, result={"final": final.args[0]})
        except Exception as error:  # noqa: BLE001 - whatever the code did, it is told
            kind = type(error).__name__
            data = {"type": kind, "args": [str(one) for one in error.args]}
            told = {"code": _CODES.get(kind, _OTHER), "message": str(error), "data": data}
            _send(id=request, error=told)
        else:
            _send(id=request, result={"output": printed.getvalue() if value is None else value})

    def _run(self, code: str) -> Any:
        """As Pyodide does: the value is that of the last statement, where it is an expression."""
        tree = ast.parse(code)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
        exec(compile(tree, "<sandbox>", "exec"), self._names)  # noqa: S102 - a test's own code
        if last is None:
            return None
        return eval(compile(last, "<sandbox>", "eval"), self._names)  # noqa: S307


def main(version: str, arguments: list[str]) -> None:
    if arguments[:1] == ["--version"]:
        print(f"deno {version} (a stand-in for tests)")
    elif arguments[:1] == ["info"]:
        print(json.dumps({"denoDir": "/nonexistent"}))
    else:
        _Session().serve()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
