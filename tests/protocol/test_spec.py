"""protocol/SPEC.md says what the code does, all of it and nothing else."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dspex_bridge import catalog, fork_server, forked, health, limits, shapes, state_dir, variables
from dspex_bridge.conformance.literals import from_json, is_same
from dspex_bridge.engine import connections, lms
from dspex_bridge.engine import errors as engine_errors
from dspex_bridge.engine.metrics import METRICS
from dspex_bridge.engine.modules import MODULES, kinds, sandboxed
from dspex_bridge.host import DEFAULT_MAX_IN_FLIGHT
from dspex_bridge.jobs.comparison import comparison
from dspex_bridge.logs import MAX_EVENTS_PER_SECOND
from dspex_bridge.methods import METHODS, control, many
from dspex_bridge.optimizers import OPTIMIZERS
from dspex_bridge.params import COMMON, MAX_NAME_CHARS, MAX_TOOLS, Check
from dspex_bridge.programs import (
    bundles,
    converters,
    json_forms,
    media,
    signatures,
    spec,
    value_errors,
    wire_values,
)
from dspex_bridge.streams import DEFAULT_MAX_CHARS, DEFAULT_WINDOW, MAX_WINDOW
from dspex_bridge.writer import BACKLOG_HIGH
from dspex_protocol import (
    codec,
    constraints,
    framing,
    grammar,
    json_values,
    schema_keywords,
    schema_kinds,
    schema_overlap,
    schema_reader,
    signature_size,
    tensor,
    types,
)
from dspex_protocol import signatures as wire_signatures
from dspex_protocol.codec import decode, encode
from dspex_protocol.errors import ERRORS, InputValidationError, InvalidParamsError
from dspex_protocol.framing import FrameReader, frame
from dspex_protocol.messages import Notification, Request, Response, parse_message
from dspex_protocol.signatures import parse_signature

from tests.protocol.spec_page import TEXT, code, codes, examples, headings, render, table, tables

SOURCE = Path(__file__).parents[2] / "bridge" / "dspex_bridge"

# Parameters that let a check get as far as the ones beside them.
REQUIRED: dict[str, dict[str, Any]] = {
    "initialize": {"protocol_version": 1},
    "create": {"signature": "q -> a"},
    "execute": {"program": "p", "inputs": {}},
    "batch": {"program": "p", "inputs": []},
    "evaluate": {"program": "p", "devset": [], "metric": {"name": "f1"}},
    "optimize": {"program": "p", "optimizer": {"name": "gepa"}},
    "save": {"program": "p", "path": "f"},
    "describe": {"program": "p"},
    "delete": {"program": "p"},
    "dump": {"program": "p"},
}

PIPELINE: dict[str, Any] = {"inputs": [], "steps": [], "outputs": []}


def known(check: Check, value: dict[str, Any], *path: str | int) -> list[str]:
    """The parameters that a check takes, as it lists them itself when it is given another."""
    place: Any = value
    for step in path:
        place = place[step]
    place["no such"] = 1
    with pytest.raises(InvalidParamsError, match="unknown parameter 'no such'") as refusal:
        check(value, "m")
    listed = re.fullmatch(r".*Valid: (.*)\.", str(refusal.value))
    assert listed is not None
    return [] if listed[1] == "none" else listed[1].split(", ")


def offered(check: Check, value: dict[str, Any], *path: str | int) -> list[str]:
    """Those of them that are not only known, and refused until a later version."""
    place: Any = value
    for step in path:
        place = place[step]
    names = known(check, value, *path)
    del place["no such"]
    return [name for name in names if not is_later(check, value, place, name)]


def is_later(check: Check, value: dict[str, Any], place: dict[str, Any], name: str) -> bool:
    before = dict(place)
    place[name] = True
    try:
        check(value, "m")
    except InvalidParamsError as error:
        return "is not supported by this version" in str(error)
    finally:
        place.clear()
        place.update(before)
    return False


def is_required(check: Check, method: str, name: str) -> bool:
    """Whether a method is refused without the parameter, and with nil for it."""
    params = REQUIRED.get(method, {})
    answers = []
    for given in ({k: v for k, v in params.items() if k != name}, {**params, name: None}):
        try:
            check(given, method)
        except InvalidParamsError as error:
            answers.append(bool(error.data["param"] == name))
        else:
            answers.append(False)
    assert answers[0] == answers[1], f"{method}: {name}"
    return answers[0]


def rows_of(*words: str) -> list[str]:
    return [code(row[0]) for row in table(*words).rows]


def required_of(*words: str) -> list[str]:
    return [code(row[0]) for row in table(*words).rows if row[2].startswith("required")]


# Examples


@pytest.mark.parametrize("example", examples(), ids=lambda example: str(example.literal)[:40])
def test_the_bytes_of_an_example_are_its_message(example: Any) -> None:
    message = from_json(example.literal)
    (payload,) = FrameReader().feed(example.frame)
    assert isinstance(payload, bytes)
    assert is_same(decode(payload), message)
    assert frame(encode(message)) == example.frame
    assert isinstance(parse_message(message), Request | Response | Notification)
    assert example.shown == render(example.literal), "write it anew: spec_page says how"


def calls() -> dict[str, tuple[dict[str, Any], Any]]:
    """By method: the params of the request that is an example, and the result that follows it."""
    messages = [parse_message(from_json(example.literal)) for example in examples()]
    return {
        message.method: (message.params, answer.result)
        for message, answer in pairwise(messages)
        if isinstance(message, Request) and isinstance(answer, Response)
        if message.id == answer.id and answer.error is None
    }


def test_every_method_has_an_example_of_its_request_and_its_result() -> None:
    missing = {*METHODS, *headings("9. Requests of the bridge")} - set(calls())
    assert not missing, "write the JSON of both, and their bytes as spec_page says"


@pytest.mark.parametrize("name", METHODS)
def test_the_example_of_a_method_is_what_it_takes_and_has_the_keys_of_its_result(name: str) -> None:
    params, result = calls()[name]
    own = {key: value for key, value in params.items() if key not in COMMON}
    METHODS[name].check(own, name)
    rows = table("result", name).rows
    always = [r for r in rows if "where `include`" not in r[2] and "of a pipeline" not in r[2]]
    assert sorted(result) == sorted(code(row[0]) for row in always)


def test_every_kind_of_message_has_an_example() -> None:
    messages = [parse_message(from_json(example.literal)) for example in examples()]
    assert any(isinstance(m, Response) and m.error is not None and m.id for m in messages)
    assert any(isinstance(m, Response) and m.id is None for m in messages)
    shown = {m.method for m in messages if isinstance(m, Notification)}
    assert shown == {
        code(row[0])
        for found in tables()
        for row in found.rows
        if "notification" in found.header[0]
    }
    asked = {m.method for m in messages if isinstance(m, Request)} - set(METHODS)
    assert asked == {*headings("9. Requests of the bridge"), "fork"}


@pytest.mark.parametrize("row", table("value").rows, ids=lambda row: row[1])
def test_the_bytes_of_a_value_are_that_value(row: tuple[str, str, str]) -> None:
    value, data = from_json(json.loads(code(row[0]))), bytes.fromhex(code(row[1]))
    assert is_same(decode(data), value)
    assert (encode(value) == data) is not row[2].startswith("read only")


# Errors


def test_every_error_code_is_there_with_whether_it_is_retryable() -> None:
    told = {code(row[0]): row[1] for row in table("code").rows}
    assert list(told) == list(ERRORS)
    words = {name: "yes" if error.retryable else "no" for name, error in ERRORS.items()}
    assert told == {**words, "lm_error": "by kind"}


def test_every_kind_of_lm_error_is_there() -> None:
    told = {code(row[0]): row[1] == "yes" for row in table("kind of `lm_error`").rows}
    assert told == {
        "content_filter": False,  # which is a bad_request with a reason
        **{kind: again for _, kind, again in engine_errors._KINDS},
    }


def test_every_type_of_a_validation_error_is_there() -> None:
    told = [name for row in table("validation type").rows for name in codes(row[0])]
    assert sorted(told) == sorted([*value_errors.ERROR_TYPES, "unreadable"])


def test_every_key_of_a_validation_error_is_there() -> None:
    converter = converters.InputConverter(parse_signature("a -> b"))
    with pytest.raises(InputValidationError) as refusal:
        converter.convert({})
    assert rows_of("validation key") == list(refusal.value.data["errors"][0])


def test_every_key_of_an_error_is_there() -> None:
    assert rows_of("error key") == list(ERRORS["timeout"]("late").to_wire())


# Methods


def test_every_method_is_there() -> None:
    told = headings("7. Methods")
    assert sorted(told) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_parameters_of_a_method_are_those_that_it_takes(name: str) -> None:
    check = METHODS[name].check
    params = offered(check, dict(REQUIRED.get(name, {})))
    if not params:
        assert all(t.header[0] != "parameter" or name not in t.section for t in tables())
        return
    told = rows_of("parameter", name)
    assert sorted(told) == sorted(params)
    needed = [param for param in params if is_required(check, name, param)]
    assert sorted(required_of("parameter", name)) == sorted(needed)


def test_what_every_request_may_carry_is_there() -> None:
    assert rows_of("common parameter") == list(COMMON)


def test_the_methods_that_are_answered_as_they_are_read_are_named() -> None:
    inline = [name for name, method in METHODS.items() if method.is_inline]
    assert sorted(inline) == ["initialize", "ping", "shutdown", "stats"]
    assert "`initialize`, `ping`, `stats` and `shutdown` take effect as" in TEXT


@pytest.mark.parametrize(
    ("words", "method", "value", "path"),
    [
        ("key of an LM", "configure", {"lms": {"a": {"model": "m"}}}, ("lms", "a")),
        (
            "key of an embedder",
            "configure",
            {"embedders": {"a": {"model": "m"}}},
            ("embedders", "a"),
        ),
        ("key of `limits`", "configure", {"limits": {}}, ("limits",)),
        ("key of `config`", "create", {"signature": "q -> a", "config": {}}, ("config",)),
        ("key of `stream`", "execute", {"program": "p", "inputs": {}, "stream": {}}, ("stream",)),
        ("key of a tool", "create", {"signature": "q -> a", "tools": [{}]}, ("tools", 0)),
        ("key of a step", "create", {**PIPELINE, "steps": [{}]}, ("steps", 0)),
        (
            "key of a variable",
            "create",
            {"signature": "q -> a", "variables": {"v": {}}},
            ("variables", "v"),
        ),
    ],
)
def test_the_keys_of_a_shape_are_those_that_it_takes(
    words: str, method: str, value: dict[str, Any], path: tuple[str | int, ...]
) -> None:
    assert rows_of(words) == offered(METHODS[method].check, value, *path)


def test_a_pipeline_takes_its_own_parameters_and_those_of_every_program() -> None:
    of_module, of_pipeline = {"signature", "module", "options", "demos", "tools"}, set(PIPELINE)
    check = METHODS["create"].check
    programs = set(offered(check, {"signature": "q -> a"})) - of_module - {"instructions"}
    assert set(offered(check, dict(PIPELINE))) == programs | of_pipeline
    assert rows_of("parameter of a pipeline") == list(PIPELINE) == list(shapes.PIPELINE)


def test_the_keys_of_a_signature_a_field_and_a_state_are_those_that_are_read() -> None:
    assert rows_of("key of a signature") == list(wire_signatures._SIGNATURE_KEYS)
    assert rows_of("key of a field") == list(wire_signatures._FIELD_KEYS)
    state = known(bundles._STATE, {})
    assert sorted(rows_of("key of a state")) == sorted(state)
    written = bundles.dump(spec.ProgramSpec(parse_signature("a -> b")))
    assert sorted(rows_of("key of a state")) == sorted(written)
    assert sorted(rows_of("tag")) == sorted([*json_forms._TAGS, "$map"])


def test_every_module_is_there_with_its_options_and_its_own_outputs() -> None:
    told = {code(row[0]): row for row in table("module").rows}
    assert sorted(told) == sorted(MODULES) == sorted(catalog.MODULES)
    for name, module in MODULES.items():
        _, options, tools, outputs = told[name]
        assert codes(options) == known(module.options, {})
        assert tools == ("yes" if module.has_tools else "no")
        assert codes(outputs) == list(spec.EXTRA_OUTPUTS.get(name, ()))


def test_every_built_in_metric_is_there_with_its_params() -> None:
    told = {code(row[0]): codes(row[1]) for row in table("built-in metric").rows}
    assert list(told) == list(METRICS)
    assert told == {name: known(kind.params, {}) for name, kind in METRICS.items()}


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_refused_until_a_later_version(name: str) -> None:
    check, params = METHODS[name].check, dict(REQUIRED.get(name, {}))
    assert known(check, dict(params)) == offered(check, params)


def test_every_optimizer_is_there_with_its_params_and_whether_it_needs_a_metric() -> None:
    told = {code(row[0]): row for row in table("optimizer").rows}
    assert list(told) == list(OPTIMIZERS) == list(catalog.OPTIMIZERS)
    for name, optimizer in OPTIMIZERS.items():
        assert codes(told[name][1]) == known(optimizer.params, {}), name
        assert ("needs no metric" in told[name][2]) is not optimizer.needs_metric, name


def test_every_target_of_a_variable_is_there_with_its_kinds() -> None:
    told = {code(row[0]): codes(row[1]) for row in table("target").rows}
    assert {name: kinds for name, kinds in told.items() if kinds} == {
        name: list(kinds) for name, (kinds, _) in variables.TARGETS.items()
    }
    assert f"There are at most {variables.MAX_VARIABLES} variables" in TEXT


def test_every_key_of_a_comparison_is_there() -> None:
    assert rows_of("key of a comparison") == list(comparison([0.0], [1.0]))


def test_the_options_of_the_command_line_are_those_that_it_takes() -> None:
    source = (SOURCE / "cli.py").read_text(encoding="utf-8")
    assert rows_of("option of `dspex bridge`") == re.findall(r'^ {8}"(--[a-z-]+)",$', source, re.M)


# Notifications and callbacks


def sources(pattern: str = "**/*.py") -> str:
    return "\n".join(path.read_text("utf-8") for path in SOURCE.glob(pattern))


def notified(source: str) -> list[str]:
    return re.findall(r'connection\.(?:send|offer|text)_notifications?\(\s*"(\w+)"', source)


def test_every_notification_of_the_bridge_is_there() -> None:
    sent = set(notified(sources())) - set(notified(sources("fork_server.py")))
    assert set(rows_of("notification", "From the bridge")) == sent


def test_a_fork_server_has_what_is_told_of_it() -> None:
    told = [code(row[0]).split()[0] for row in table("method of a fork server").rows]
    assert told == list(fork_server.METHODS)
    sent = notified(sources("fork_server.py"))
    assert rows_of("notification", "A fork server") == sent
    assert f"once, within {forked.ACCEPT_WITHIN_S:g} seconds" in TEXT


def test_every_notification_to_the_bridge_is_there() -> None:
    source = (SOURCE / "dispatch.py").read_text(encoding="utf-8")
    read = re.findall(r'notification\.method == "(\w+)"', source)
    assert rows_of("notification", "To the bridge") == read


def test_the_parameters_of_call_tool_are_those_that_are_sent() -> None:
    assert rows_of("callback parameter", "call_tool") == sent_by("call_tool")


def test_the_parameters_of_call_metric_are_those_that_are_sent() -> None:
    assert rows_of("callback parameter", "call_metric") == sent_by("call_metric")


def sent_by(callback: str) -> list[str]:
    source = (SOURCE / "methods" / "call_client.py").read_text(encoding="utf-8")
    start = source.index(f"async def {callback}")
    end = source.index("callbacks.request", start)
    return re.findall(r'^ {12}(?:\*\*.*\{)?"(\w+)":', source[start:end], re.M)


def test_every_request_of_the_bridge_is_there() -> None:
    sent = set(re.findall(r'callbacks\.request\("(\w+)"', sources()))
    assert set(headings("9. Requests of the bridge")) == sent


# Types


def schema_rows() -> list[Any]:
    return [(code(row[0]), code(row[2])) for row in table("type").rows if row[2]]


@pytest.mark.parametrize(("text", "schema"), schema_rows())
def test_a_type_has_the_schema_that_the_page_says(text: str, schema: str) -> None:
    made = signatures.input_schema(parse_signature(f"x: {text} -> y"))
    assert made["properties"]["x"] == json.loads(schema)


def test_every_name_of_a_type_is_there() -> None:
    start = TEXT.index("### The grammar of types")
    words = re.findall(r"`([^`\n]*)`", TEXT[start : TEXT.index("### Constraints")])
    names = {name for word in words for name in re.findall(r"[A-Za-z_]+", word)}
    assert set(types.TYPE_NAMES) <= names


def test_every_keyword_that_is_read_of_a_schema_is_there() -> None:
    told = " ".join(name for row in table("keywords").rows for cell in row for name in codes(cell))
    assert set(re.findall(r"\$?\w+", told)) >= schema_keywords.KNOWN - {"$schema"}


def test_every_type_of_dspy_is_there_with_its_forms() -> None:
    assert {code(row[0]) for row in table("DSPy's type").rows} == types.DSPY_TYPES


def test_every_constraint_is_there_with_the_types_that_take_it() -> None:
    rows = table("constraint").rows
    assert sorted(code(row[0]) for row in rows) == sorted(constraints.CONSTRAINTS)
    previous: set[str] = set()
    for row in rows:
        name, of = code(row[0]), set(codes(row[1]))
        if row[1] == "the same":
            of = previous
        if row[1] == "`str` and the numbers":
            of = {"str"} | taking("min")
        assert of == taking(name), name
        previous = of
    assert [name for row in rows if code(row[0]) == "format" for name in codes(row[2])] == list(
        constraints.FORMATS
    )


def taking(constraint: str) -> set[str]:
    """The types, by their bare names, that take a constraint."""
    bare = {"set": "set[str]", "tuple": "tuple[str]", "Literal": 'Literal["a"]'}
    names = [*types.SCALARS, "list", "dict", "embedding", *bare]
    return {
        name
        for name in names
        if constraint in constraints.constraints_of(grammar.parse_type(bare.get(name, name)))
    }


def test_every_reserved_name_is_there() -> None:
    start = TEXT.index("Some are reserved")
    named = codes(TEXT[start : TEXT.index("\n\n", start)])
    assert sorted(named) == sorted(
        [*wire_signatures.RESERVED_NAMES, *wire_signatures.RESERVED_PREFIXES]
    )


def test_every_dtype_is_there_with_its_size() -> None:
    told = {name: int(row[1]) for row in table("dtype").rows for name in codes(row[0])}
    assert told == {name: size for name, (size, _) in tensor.DTYPES.items()}


# Numbers


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (framing.DEFAULT_MAX_FRAME_BYTES, "16 MiB\n({:,} bytes)"),
        (framing.SMALLEST_MAX_FRAME_BYTES, "never less than {:,}"),
        (framing.HEAD_BYTES, "its first {} bytes"),
        (BACKLOG_HIGH // 2**20, "more than\n  {} MiB"),
        (control.DEFAULT_DRAIN_MS, "| `drain_ms` | integer, 0 or more | {:,} |"),
        (MAX_NAME_CHARS, "a string of 1 to {} characters"),
        (value_errors.MAX_ERRORS, "a list of at most {}"),
        (wire_values.MAX_GOT_LENGTH, "in at most {} characters"),
        (codec.MAX_BIGINT_BYTES, "At most {:,} bytes (over 600,000 digits)"),
        (codec.MAX_DECIMAL_CHARS, "ASCII, at most {:,} characters"),
        (codec.MAX_DEPTH_WRITTEN, "{} levels of arrays"),
        (tensor.MAX_DIMENSIONS, "at most {} of them"),
        (wire_signatures.MAX_FIELDS, "| required; 1 to {} |"),
        (wire_signatures.MAX_NAME_LENGTH, "at most {} characters"),
        (json_values.MAX_DEFAULT_DEPTH, "nested at most {} deep"),
        (wire_signatures.MAX_SIGNATURE_LENGTH, "A string has at most {:,} characters"),
        (grammar.MAX_TYPE_LENGTH, "A type has at most {:,} characters"),
        (grammar.MAX_TYPE_DEPTH, "and {} brackets"),
        (grammar.MAX_TYPE_DEPTH, "A\nschema nests at most {} deep"),
        (schema_reader.MAX_ALTERNATIVES, "at most\n{:,} schemas"),
        (schema_overlap.MAX_COMPARISONS, "at most {:,} comparisons"),
        (signature_size.MAX_TYPES, "at most {:,} types"),
        (signature_size.MAX_VALUES, "{:,} values in enums"),
        (signature_size.MAX_CHARS, "{:,} characters in the texts"),
        (schema_reader.MAX_ENUM_VALUES, "at most {:,} values"),
        (schema_kinds.MAX_PROPERTIES, "at most {} properties"),
        (media.MAX_MEDIA_BYTES, "Bytes have at most {:,} bytes"),
        (types.MAX_EMBEDDING_DIMENSIONS, "1 to {:,} |"),
        (constraints.MAX_PATTERN_LENGTH, "at most {:,} characters |"),
        (limits.BREAKER_FAILURES, "After {} failures"),
        (limits.BREAKER_OPEN_S, "alone for {:g} seconds"),
        (lms.DEFAULT_RETRIES, "| {}; of failures"),
        (connections.DEFAULT_TIMEOUT_MS, "| {:,}; for one call"),
        (MAX_TOOLS, "at most {} tools"),
        (shapes.MAX_STEPS, "list of steps | required; 1 to {}"),
        (sandboxed._DEFAULT_CODE_TIMEOUT_MS, "longer than `code_timeout_ms` ({:,})"),
        (sandboxed._MAX_CODE_TIMEOUT_MS, "`code_timeout_ms`: integer, 1 to {:,}"),
        (kinds._MAX_ATTEMPTS, "`N`: integer, 1 to {},"),
        (kinds._MAX_CHAINS, "`M`: integer, 2 to {},"),
        (kinds._DEFAULT_CHAINS, "makes `M` ({}) chains"),
        (kinds._DEFAULT_CHAIN_TEMPERATURE, "at `temperature` ({})"),
        (kinds._MAX_ITERATIONS, "`max_iters`: integer, 1 to {}"),
        (DEFAULT_WINDOW, "| {}; how many chunks"),
        (MAX_WINDOW, "integer, 1 to {}"),
        (DEFAULT_MAX_CHARS, "at most {:,} characters (fewer"),
        (DEFAULT_MAX_IN_FLIGHT, "| {} | requests at work"),
        (health.DEFAULT_MAX_STUCK, "| {} | see `unhealthy`: cancelled"),
        (MAX_EVENTS_PER_SECOND, "most {:,} events a second"),
        (many.DEFAULT_CONCURRENCY, "| {}; how many run at once"),
        (many.DEFAULT_CONCURRENCY, "| {}; how many examples"),
        (many.MAX_CONCURRENCY, "integer, 1 to {} |"),
        (state_dir.MAX_FILE_BYTES, "of at most {:,} bytes |"),
        (bundles.FORMAT_VERSION, "| `format_version` | integer | {} |"),
    ],
)
def test_a_number_of_the_page_is_the_number_of_the_code(number: int, sentence: str) -> None:
    assert sentence.format(number) in TEXT


# The page itself


def test_every_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    folder = Path(__file__).parents[2] / "protocol"
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`\n]*`", "", TEXT)):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https:"):
            assert (folder / target).exists(), target


def test_no_table_is_without_a_check() -> None:
    checked = {"code", "kind of `lm_error`", "validation type", "validation key", "error key"}
    checked |= {"parameter", "common parameter", "result", "value", "notification", "type"}
    checked |= {"key of an LM", "key of `config`", "key of `stream`", "key of a tool", "module"}
    checked |= {"key of `limits`", "key of an embedder"}
    checked |= {"key of a signature", "key of a field", "key of a state", "tag", "constraint"}
    checked |= {"option of `dspex bridge`", "callback parameter", "method of a fork server"}
    checked |= {"dtype", "key of a variable", "target", "key of a comparison", "optimizer"}
    checked |= {"built-in metric", "parameter of a pipeline", "key of a step"}
    checked |= {"keywords", "DSPy's type"}
    # What vectors, sessions and the tests of the converters hold the code to.
    prose = {"kind", "what came", "to"}
    unchecked = [t.header for t in tables() if t.header[0] not in checked | prose]
    assert unchecked == []
