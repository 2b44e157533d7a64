"""The modules whose LM writes code, called as a job calls them: with a stand-in for Deno, which is
a process of its own (integration/deno_stand_in.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspex_bridge.engine.modules import build_module, deno
from dspex_bridge.engine.modules.interpreter import Interpreter
from dspex_bridge.engine.remote import RemoteLM
from dspex_bridge.engine.tools import TOOL_SETTING
from dspex_bridge.programs.creation import program_spec
from dspex_protocol.errors import (
    InvalidParamsError,
    LMError,
    RequestTimeoutError,
    SignatureError,
    ToolError,
    UnavailableError,
)
from dspy._vendor.lm15.serde import response_to_dict

from integration.deno_stand_in import stand_in
from integration.lifetime import seconds_until_gone
from integration.openai_server import Answer, OpenAIServer, Request, well_formed

SANDBOXED = ("program_of_thought", "code_act", "rlm", "flex")
FOREVER = "```python\nwhile True: pass\n```"


@pytest.fixture(autouse=True)
def no_known_deno() -> Iterator[None]:
    deno._version.cache_clear()
    yield
    deno._version.cache_clear()


@pytest.fixture
def with_deno(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{stand_in(tmp_path)}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def build(module: str, signature: Any = "question -> answer", **more: Any) -> Any:
    return build_module(program_spec({"signature": signature, "module": module, **more}))


def run(
    program: Any,
    script: Callable[[Request], Answer],
    inputs: Mapping[str, Any],
    tool: Callable[[str, dict[str, Any]], Any] | None = None,
) -> Any:
    async def call_tool(name: str, arguments: dict[str, Any]) -> Any:
        assert tool is not None
        return tool(name, arguments)

    with OpenAIServer(script) as server:
        lm = dspy.LM("openai/x", api_base=server.url, api_key=server.api_key, cache=False)
        with dspy.context(
            lm=lm, trace=[], allow_tool_async_sync_conversion=True, **{TOOL_SETTING: call_tool}
        ):
            return program(**inputs)


def saying(**fields: Any) -> Callable[[Request], Answer]:
    return lambda request: well_formed(request, {"reasoning": "so it is", **fields})


# Where there is no Deno


@pytest.mark.parametrize("module", SANDBOXED)
def test_without_deno_a_module_is_unavailable_with_what_to_install(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"none was found: .+ pip install 'dspy\[deno\]'"):
        build(module)


def test_a_deno_of_another_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{stand_in(tmp_path, '1.46.0')}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UnavailableError, match=r"Deno 2\.x only, and 1\.46\.0 was found"):
        build("rlm")


def test_deno_is_found_once_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    with pytest.raises(UnavailableError):
        build("rlm")
    stand_in(tmp_path)
    build("rlm")


# Where there is one


@pytest.mark.usefixtures("with_deno")
def test_program_of_thought_runs_the_code_that_its_lm_wrote() -> None:
    said = saying(generated_code="```python\nSUBMIT({'answer': 6 * 7})\n```", answer="It is 42.")
    result = run(build("program_of_thought"), said, {"question": "?"})
    assert result.answer == "It is 42."
    assert result.reasoning == "so it is"


@pytest.mark.usefixtures("with_deno")
def test_code_that_fails_is_written_again() -> None:
    told: list[str] = []

    def script(request: Request) -> Answer:
        told.append(request.turns[-1][1])
        code = "```python\nSUBMIT(1 / 0)\n```" if len(told) == 1 else "```python\nSUBMIT(1)\n```"
        return saying(generated_code=code, answer="one")(request)

    assert run(build("program_of_thought"), script, {"question": "?"}).answer == "one"
    assert "ZeroDivisionError" in told[1]


@pytest.mark.usefixtures("with_deno")
def test_code_that_always_fails_is_an_error_of_a_tool() -> None:
    program = build("program_of_thought", options={"max_iters": 2})
    with pytest.raises(ToolError, match="Max hops reached"):
        run(program, saying(generated_code="```python\nSUBMIT(1 / 0)\n```"), {"question": "?"})


TOOL = {
    "name": "lookup",
    "description": "Looks a word up.",
    "parameters": [{"name": "word", "type": "str"}, {"name": "limit", "type": "int", "default": 3}],
}
SCHEMA_TOOL = {
    **TOOL,
    "parameters": {
        "type": "object",
        "properties": {"word": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["word"],
    },
}


@pytest.mark.usefixtures("with_deno")
@pytest.mark.parametrize(("tool", "extra"), [(TOOL, {"limit": 3}), (SCHEMA_TOOL, {})])
def test_code_calls_the_tools_of_the_client(tool: dict[str, Any], extra: dict[str, Any]) -> None:
    calls: list[Any] = []

    def answer(name: str, arguments: dict[str, Any]) -> Any:
        calls.append((name, arguments))
        return {"meaning": "a pipe"}

    for module, code in (
        ("code_act", "```python\nprint(lookup('port')['meaning'])\n```"),
        ("rlm", "```python\nSUBMIT(lookup(word='port')['meaning'])\n```"),
    ):
        program = build(module, tools=[tool])
        said = saying(generated_code=code, code=code, finished=True, answer="a pipe")
        result = run(program, said, {"question": "?"}, answer)
        assert result.answer == "a pipe"
        assert "a pipe" in str(result.trajectory)
        assert calls.pop() == ("lookup", {"word": "port", **extra})


@pytest.mark.usefixtures("with_deno")
def test_the_error_of_a_tool_is_told_to_the_code() -> None:
    def fail(_name: str, _arguments: dict[str, Any]) -> Any:
        raise ToolError("the dictionary is closed")

    code = "```python\nprint(lookup('port'))\n```"
    program = build("code_act", tools=[TOOL], options={"max_iters": 1})
    said = saying(generated_code=code, finished=True, answer="-")
    trajectory = str(run(program, said, {"question": "?"}, fail).trajectory)
    assert "Execution error in lookup: the dictionary is closed" in trajectory
    assert ".py" not in trajectory


@pytest.mark.usefixtures("with_deno")
def test_rlm_sees_its_inputs_and_asks_the_lm_from_its_code() -> None:
    code = "```python\nprint(len(context))\nSUBMIT(llm_query('what is it?').strip())\n```"

    def script(request: Request) -> Answer:
        if request.turns[-1][1] == "what is it?":
            return Answer("a pipe")
        return saying(code=code)(request)

    result = run(
        build("rlm", "context, question -> answer"), script, {"context": "c", "question": "?"}
    )
    assert result.answer == "a pipe"
    assert result.final_reasoning == "so it is"
    assert result.trajectory[0]["code"].startswith("print(len(context))")


# DSPy's own facade asks an LM in a way that DSPy has deprecated.
@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message dictionaries:DeprecationWarning")
@pytest.mark.usefixtures("with_deno")
def test_flex_runs_its_own_source_in_the_sandbox() -> None:
    result = run(build("flex"), saying(answer="a pipe"), {"question": "?"})
    assert result.answer == "a pipe"


# What the code can reach


def told(code: str, module: str = "rlm", **more: Any) -> str:
    """What the code prints, its errors included, as rlm tells its LM."""
    block = f"```python\n{code}\n```"
    said = saying(code=block, answer="-", y="said", z="said")
    result = run(
        build(module, options={"max_iters": 1}, **more),
        said,
        {"question": "?"},
        lambda *_: "from the tool",
    )
    return str(result.trajectory)


HOSTS_OWN = "hunter2-of-the-host"

# Each in a sub-agent's place where DSPy's own facade would look something up by name.
REACHING = (
    'dspy.Predict("x: os.environ -> y")(x="1")',
    'dspy.Predict("x -> y: os.environ")(x="1")',
    'dspy.Predict("x: list[os.environ] -> y")(x="1")',
    'dspy.Predict("x: sys -> y")(x="1")',
    'dspy.Predict("x: self -> y")(x="1")',
    'dspy.Predict(dspy.Signature("x: os.environ -> y", "do"))(x="1")',
    'dspy.Predict("x -> y")(x="1", signature="x: os.environ -> y")',
    'dspy.RLM("x: os.environ -> y")(x="1")',
    'dspy.ReAct("x: os.environ -> y", tools=[])(x="1")',
    'dspy.ReActV2("x: os.environ -> y", tools=[])(x="1")',
    'dspy.ProgramOfThought("x: os.environ -> y")(x="1")',
    'dspy.CodeAct("x: os.environ -> y", tools=[])(x="1")',
)


# That the stand-in for Deno has it too is of no matter: the code does not look.
@pytest.mark.usefixtures("with_deno")
@pytest.mark.parametrize("reach", REACHING)
def test_code_reaches_no_object_of_the_host(reach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_TEST_VALUE", HOSTS_OWN)
    seen = told(
        f"try:\n    print({reach})\nexcept Exception as error:\n    print('refused', error)"
    )
    assert "refused" in seen
    assert HOSTS_OWN not in seen
    assert "environ(" not in seen


@pytest.mark.usefixtures("with_deno")
def test_code_imports_no_module_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dspex_test_trap.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    code = 'dspy.Predict("x: dspex_test_trap.Type -> y")(x="1")'
    assert "unknown type" in told(code)
    assert "dspex_test_trap" not in sys.modules


@pytest.mark.usefixtures("with_deno")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('dspy.Predict("x -> y", lm="openai/gpt-4o")(x="1")', "dspy.Predict: unknown parameter"),
        ('dspy.Predict("x -> y", callbacks=[1])(x="1")', "dspy.Predict: unknown parameter"),
        ('dspy.RLM("x -> y", sub_lm="x")(x="1")', "dspy.RLM: unknown parameter"),
        ('dspy.RLM("x -> y", max_iters=10**9)(x="1")', "an integer from 1 to 1000"),
        ('dspy.Predict("x -> y")(x="1", lm="x")', "unknown inputs: lm; the signature has x"),
        ('dspy.Predict("x -> y")(x="1", config={"api_base": "x"})', "unknown inputs: config"),
        ('dspy.RLM("x -> y")(x="1", interpreter_factory="os")', "unknown inputs: interpreter_fac"),
        ('dspy.Predict({"x": "str"})(x="1")', "a signature is a string such as"),
        ('dspy.Predict("x -> instructions")(x="1")', "is reserved"),
        ('dspy.CodeAct("x -> y", tools=[])(x="1")', "dspy.CodeAct is not to be had"),
        ('dspy.MIPROv2("x -> y")(x="1")', "MIPROv2"),
    ],
)
def test_code_is_told_what_its_predictors_do_not_take(call: str, message: str) -> None:
    assert message in told(call).replace("\\", "")


# DSPy's own facade asks an LM in a way that DSPy has deprecated.
@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message dictionaries:DeprecationWarning")
@pytest.mark.usefixtures("with_deno")
@pytest.mark.parametrize(
    "call",
    [
        'dspy.Predict("x, n: int | None -> y: Literal[\'said\']", temperature=0.5)(x="1", n=2)',
        'dspy.ChainOfThought("x: dict[str, Any] -> y: Optional[str]")(x={"a": 1})',
        'dspy.Predict(dspy.Signature("x -> y", "Be brief."))(x="1")',
    ],
)
def test_code_makes_predictors_of_the_grammars_types(call: str) -> None:
    assert "'output': 'said" in told(f"print({call}.y)")


@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message dictionaries:DeprecationWarning")
@pytest.mark.usefixtures("with_deno")
def test_an_agent_that_code_makes_uses_the_clients_tools() -> None:
    code = (
        "```python\nprint(dspy.ReAct('x -> y', tools=[lookup], max_iters=1)(x='1').trajectory)\n```"
    )
    calls: list[Any] = []

    def answer(name: str, arguments: dict[str, Any]) -> Any:
        calls.append((name, arguments))
        return "a pipe"

    said = saying(
        **{"code": code, "answer": "-", "y": "said", "next_thought": "look"},
        **{"next_tool_name": "lookup", "next_tool_args": '{"word": "port"}'},
    )
    program = build("rlm", tools=[TOOL], options={"max_iters": 1})
    assert "a pipe" in str(run(program, said, {"question": "?"}, answer).trajectory)
    assert calls == [("lookup", {"word": "port", "limit": 3})]


@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message dictionaries:DeprecationWarning")
@pytest.mark.usefixtures("with_deno")
def test_flex_has_the_types_of_its_own_signature_in_its_source() -> None:
    thing = {"type": "object", "title": "Thing", "properties": {"size": {"type": "integer"}}}
    signature = {
        "inputs": [{"name": "question", "type": "Optional[date]"}],
        "outputs": [
            {"name": "thing", "type": {"type": "array", "items": thing}},
            {"name": "costs", "type": "decimal"},
            {"name": "rest", "type": "any"},
        ],
    }
    program = build("flex", signature)
    source = program._module.module_src
    assert "thing: list[Thing], costs: Decimal, rest: Any" in source
    said = saying(thing='[{"size": 3}]', costs="1.5", rest="x")
    result = run(program, said, {"question": None})
    assert (result.thing[0].size, str(result.costs), result.rest) == (3, "1.5", "x")


def test_in_a_job_dspys_own_strings_name_no_module() -> None:
    script = (
        "import dspex_bridge.jobs.worker, dspy\n"
        "assert dspy.Signature('a: list[int] -> b').fields['a'].annotation == list[int]\n"
        "dspy.Signature('x: os.environ -> y')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ValueError: unknown type 'os'" in done.stderr


# Limits


@pytest.mark.usefixtures("with_deno")
@pytest.mark.parametrize("module", ["program_of_thought", "code_act", "rlm"])
def test_code_that_runs_too_long_ends_the_run(module: str) -> None:
    program = build(module, options={"code_timeout_ms": 300})
    said = saying(generated_code=FOREVER, code=FOREVER, finished=True, answer="-")
    with pytest.raises(RequestTimeoutError, match=r"a piece of code ran for 0\.3 s"):
        run(program, said, {"question": "?"})


@pytest.mark.timeout(30)
@pytest.mark.usefixtures("with_deno")
def test_time_in_tools_is_not_the_codes_own() -> None:
    def slow() -> str:
        time.sleep(0.4)  # the limit is shorter: this is what is being tested
        return "done"

    interpreter = Interpreter(0.3, {"slow": slow})
    try:
        assert interpreter.execute("slow()") == "done"
        process = interpreter.deno_process
        with pytest.raises(RequestTimeoutError):
            interpreter.execute("while True: pass")
        assert process.wait(10) != 0
    finally:
        interpreter.deno_process.kill()
        interpreter.shutdown()


@pytest.mark.usefixtures("with_deno")
def test_deno_ends_with_the_process_that_is_killed() -> None:
    """A job is killed alone, and what its Deno is at may never end."""
    script = (
        "from dspex_bridge.engine.modules.interpreter import Interpreter\n"
        "interpreter = Interpreter(1000)\n"
        "interpreter.start()\n"
        "print(interpreter.deno_process.pid, flush=True)\n"
        "interpreter.execute('while True: pass')\n"
    )
    job = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert job.stdout is not None
        deno_pid = int(job.stdout.readline())
        assert seconds_until_gone([deno_pid], 0.2) is None, "it runs"
    finally:
        job.kill()
        job.communicate()
    assert seconds_until_gone([deno_pid], 10) is not None


def test_a_deno_that_does_not_start_is_an_error_of_a_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "deno"
    command.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "deno 2.5.0" || exit 7\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ToolError, match="the code cannot be run: "):
        run(build("rlm"), saying(code="```python\nSUBMIT(1)\n```"), {"question": "?"})


# What is refused


@pytest.mark.usefixtures("with_deno")
@pytest.mark.parametrize("module", SANDBOXED)
def test_an_unknown_option_is_refused_with_those_that_there_are(module: str) -> None:
    with pytest.raises(InvalidParamsError, match=r"Valid: .*code_timeout_ms"):
        build(module, options={"interpreter": "os"})


@pytest.mark.usefixtures("with_deno")
@pytest.mark.parametrize(
    ("module", "signature"),
    [
        ("program_of_thought", "generated_code -> a"),
        ("code_act", "q -> trajectory"),
        ("rlm", "print -> a"),
        ("rlm", "q -> keys"),
        ("rlm", "interpreter_factory -> a"),
        ("flex", "prediction -> a"),
        ("flex", "q -> items"),
    ],
)
def test_names_that_the_module_has_itself_are_refused(module: str, signature: str) -> None:
    with pytest.raises(SignatureError, match="of its own"):
        build(module, signature)


@pytest.mark.usefixtures("with_deno")
@pytest.mark.parametrize("name", ["llm_query", "SUBMIT", "dspy", "question", "class", "a b"])
def test_names_that_the_code_has_already_are_no_tools(name: str) -> None:
    with pytest.raises(InvalidParamsError, match="cannot be the name of a tool"):
        build("rlm", tools=[{**TOOL, "name": name}])


# LMs of another process


class RefusingLM:
    """The bridge's side: too long is what has more than so many code outputs in it."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    def ask(self, _method: str, params: dict[str, Any]) -> Future[Any]:
        text = str(params["request"])
        self.requests.append(text)
        answer: Future[Any] = Future()
        if text.count("it has been seen") > 3:
            too_long = {"kind": "context_window", "model": "openai/x"}
            answer.set_exception(LMError("too long", data=too_long))
            return answer
        fields = {
            "generated_code": "```python\nprint('it has ' + 'been seen')\n```",
            "finished": "False",
            "reasoning": "so it is",
            "answer": "yes",
        }
        said = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())
        response = dspy.lm15.Response(
            id=None,
            model="openai/x",
            message=dspy.lm15.Message.assistant(said),
            finish_reason="stop",
            usage=dspy.lm15.Usage(),
        )
        answer.set_result({"response": response_to_dict(response)})
        return answer


@pytest.mark.usefixtures("with_deno")
def test_in_a_job_an_agent_goes_on_with_less_where_its_history_is_too_long() -> None:
    lm = RefusingLM()
    told = {
        "name": "main",
        "model": "openai/x",
        "kwargs": {},
        "supports_function_calling": False,
        "supports_reasoning": False,
        "supports_response_schema": False,
        "supported_params": [],
    }
    program = build("code_act", options={"max_iters": 4})
    with dspy.context(lm=RemoteLM(told, lm.ask), adapter=dspy.ChatAdapter(), trace=[]):
        assert program(question="?").answer == "yes"
    seen = [text.count("it has been seen") for text in lm.requests]
    assert seen == [0, 1, 2, 3, 4, 2]
