"""How the values of options are read."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

import pytest
from dspex_bridge.commands import optimize
from dspex_bridge.commands.options import (
    UsageError,
    add_bridge_options,
    add_data_options,
    json_or_text,
    limits,
    metric,
    new_parser,
    pair,
    prepare_file,
    read_text,
)
from dspex_bridge.commands.session import named


def parsed(*arguments: str) -> Namespace:
    parser = new_parser("test", "", "")
    add_bridge_options(parser)
    add_data_options(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("exact_match", {"name": "exact_match"}),
        ("f1:answer", {"name": "f1", "field": "answer"}),
        ('{"judge": {"signature": "a -> b"}}', {"judge": {"signature": "a -> b"}}),
    ],
)
def test_a_metric_is_a_name_with_a_field_or_a_map(text: str, value: object) -> None:
    assert metric(text) == value


@pytest.mark.parametrize("text", ["", ":answer", "f1:", "{"])
def test_what_is_no_metric_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        metric(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("[1]", [1]),
        ("light", "light"),
        ("", ""),
        ('"3"', "3"),
    ],
)
def test_a_parameter_is_json_or_a_text(text: str, value: object) -> None:
    got = json_or_text(text)
    assert got == value
    assert type(got) is type(value)


def test_a_pair_is_cut_at_the_first_equals_sign() -> None:
    assert pair("a=b=c") == ("a", "b=c")
    for text in ("a", "=b", ""):
        with pytest.raises(ArgumentTypeError, match="expected NAME=VALUE"):
            pair(text)


def test_columns_are_fields_with_other_names_where_they_are_given() -> None:
    options = parsed("--inputs", "text=body,count", "--outputs", "label")
    assert options.inputs == {"text": "body", "count": "count"}
    assert options.outputs == {"label": "label"}


@pytest.mark.parametrize("text", ["", "a,", "a=", "=a", "a,a"])
def test_columns_without_a_name_or_twice_are_bad_usage(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        parsed("--inputs", text)
    assert exited.value.code == 2
    assert "expected FIELD or FIELD=COLUMN" in capsys.readouterr().err


def test_lms_have_names_and_the_first_one_is_main_without() -> None:
    options = parsed(
        *("--lm", "openai/gpt-5-mini", "--lm", "teacher=openai/gpt-5"),
        *("--lm", 'cold={"model": "openai/gpt-5", "temperature": 0}'),
    )
    assert named(options.lm) == {
        "main": {"model": "openai/gpt-5-mini"},
        "teacher": {"model": "openai/gpt-5"},
        "cold": {"model": "openai/gpt-5", "temperature": 0},
    }


def test_two_lms_without_a_name_are_bad_usage() -> None:
    with pytest.raises(UsageError, match="b: give each but the first a name"):
        named(parsed("--lm", "a", "--lm", "b").lm)


def test_limits_are_numbers() -> None:
    options = parsed("--limit", "max_cost_usd=0.5", "--limit", "max_calls=9")
    assert limits(options) == {"max_cost_usd": 0.5, "max_calls": 9}
    assert limits(parsed()) is None


def test_a_text_with_an_at_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("é", encoding="utf-8")
    assert read_text("--input a", f"@{tmp_path}/a") == "é"
    assert read_text("--input a", "b@c") == "b@c"
    with pytest.raises(UsageError, match=r"--input a: cannot read .*/none"):
        read_text("--input a", f"@{tmp_path}/none")


def test_a_file_that_cannot_be_written_is_told_before_anything_is_done(tmp_path: Path) -> None:
    prepare_file("--save", tmp_path / "new.json")
    prepare_file("--save", None)
    with pytest.raises(UsageError, match=r"--save: .* is a folder"):
        prepare_file("--save", tmp_path)
    with pytest.raises(UsageError, match=r"--html: there is no folder .*/none"):
        prepare_file("--html", tmp_path / "none" / "a.html")


def test_an_unknown_optimizer_is_bad_usage_with_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exited:
        optimize.main(["--signature", "a -> b", "--optimizer", "magic"])
    assert exited.value.code == 2
    assert "mipro_v2" in capsys.readouterr().err


def test_a_program_is_a_signature_or_a_file_and_not_both(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        optimize.main(["--signature", "a -> b", "--program", "x", "--optimizer", "gepa"])
    assert "not allowed with argument" in capsys.readouterr().err
