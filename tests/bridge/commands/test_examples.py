"""Rows of files and data sets become examples."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from dspex_bridge.commands.examples import read_examples
from dspex_bridge.commands.options import UsageError
from dspex_bridge.datasets import load
from dspex_protocol.signatures import parse_signature
from pyarrow import parquet

SIGNATURE = parse_signature("text, count: int -> label, sure: bool")
EXAMPLE = {"inputs": {"text": "7", "count": 7}, "outputs": {"label": "x", "sure": True}}


def read(path: Path | str, **options: Any) -> list[Any]:
    given = {"inputs": None, "outputs": None, "max_examples": None, **options}
    return read_examples(str(path), SIGNATURE, Namespace(**given))


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_cell_is_read_by_the_type_of_its_field(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "text,count,label,sure\n7,7,x,true\n")
    assert read(path) == [EXAMPLE]


def test_a_csv_cell_is_read_by_the_type_of_its_field_under_another_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "body,n,class,sure\n7,7,x,true\n")
    got = read(path, inputs={"text": "body", "count": "n"}, outputs={"label": "class"})
    assert got == [{"inputs": {"text": "7", "count": 7}, "outputs": {"label": "x"}}]


def test_an_empty_csv_cell_is_an_empty_str_or_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "text,count,label\n,,\n")
    assert read(path) == [{"inputs": {"text": "", "count": None}, "outputs": {"label": ""}}]


def test_a_csv_with_a_byte_order_mark_quotes_and_line_breaks_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", '\ufefftext,count,label\r\n"a, ""b""\nc",1,é\r\n')
    assert read(path)[0]["inputs"]["text"] == 'a, "b"\nc'


def test_a_cell_longer_than_the_csv_module_takes_by_itself_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", f"text,count,label\n{'a' * 200_000},1,x\n")
    assert len(read(path)[0]["inputs"]["text"]) == 200_000


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    line = json.dumps({"text": "7", "count": 7, "label": "x", "sure": True, "other": None})
    assert read(written(tmp_path, "a.jsonl", f"{line}\n\n{line}\n")) == [EXAMPLE, EXAMPLE]


def test_rows_that_are_examples_are_taken_as_they_are(tmp_path: Path) -> None:
    example = {"inputs": {"text": "a"}, "outputs": {"rationale": "because"}}
    assert read(written(tmp_path, "a.jsonl", json.dumps(example))) == [example]


def test_the_outputs_of_an_example_can_be_chosen() -> None:
    source = "support_messages:val"
    got = read(source, outputs={"team": "department"}, max_examples=3)
    assert got == [
        {"inputs": item["inputs"], "outputs": {"team": item["outputs"]["department"]}}
        for item in load("support_messages", "val")[:3]
    ]


def test_parquet_keeps_its_types_and_writes_dates_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    row = {**EXAMPLE["inputs"], "label": [date(2026, 1, 2)], "sure": at.replace(tzinfo=None)}
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "at": at}]), path)
    [got] = read(path, outputs={"label": "label", "sure": "sure", "at": "at"})
    assert got["inputs"] == EXAMPLE["inputs"]
    assert got["outputs"] == {"label": ["2026-01-02"], "sure": "2026-01-02T03:04:00", "at": at}


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'dspex\[data\]'"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "text,text\n1,2\n", "two columns have the same name: text, text"),
        ("a.csv", "text,count,label\n1,2\n", "a.csv, line 2: it has 2 cells, and the header has 3"),
        ("a.csv", 'text,count,label\n"1,2,x\n', "a.csv, line 2: unexpected end of data"),
        ("a.csv", "text,count,label\n", "there is no example in it"),
        ("a.csv", "", "there is no example in it"),
        ("a.csv", "text,count,class\n1,2,x\n", "there is no column label, sure, but: text, count"),
        ("a.jsonl", '{"text": 1}\n{"text"\n', "a.jsonl, line 2: it is no JSON"),
        ("a.jsonl", "[1]\n", r"a.jsonl, line 1: expected a map, got \[1\]"),
        ("a.jsonl", '{"inputs": 1, "outputs": {}}', "line 1: inputs and outputs must be maps"),
        ("a.parquet", "PAR1", "a.parquet: it is no Parquet that can be read"),
        ("a.txt", "", r"expected a file \(.jsonl, .csv, .parquet\) or support_messages:train"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        read(written(tmp_path, name, text))


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "text,count,label\n1,2,x\n")
    with pytest.raises(UsageError, match="no column body, but: text, count, label"):
        read(path, inputs={"text": "body"})


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: cannot be read: .*No such file"):
        read(tmp_path / name)


def test_bytes_that_are_no_utf_8_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,count,label\n\xff,1,x\n")
    with pytest.raises(UsageError, match="cannot be read: 'utf-8' codec"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("source", ["support_messages", "support_messages:dev", "other:train"])
def test_an_unknown_data_set_is_told_with_those_there_are(source: str) -> None:
    with pytest.raises(UsageError, match=r"support_messages:train\|val\|test"):
        read(source)
