"""One table of types as text, as JSON Schema and as Elixir terms: the first two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.grammar import parse_type
from dspex_protocol.schema_reader import field_of_schema
from dspex_protocol.schema_writer import schema_of
from dspex_protocol.types import DSPY_TYPES, SCALARS, has_text

TYPES = json.loads(
    (Path(__file__).parents[2] / "protocol" / "vectors" / "notations.json").read_text()
)["types"]
TEXTS = [row for row in TYPES if row["text"] is not None]


@pytest.mark.parametrize("row", TEXTS, ids=lambda row: row["elixir"])
def test_a_text_has_its_schema(row: dict[str, Any]) -> None:
    assert str(parse_type(row["text"])) == row["text"]
    assert schema_of(parse_type(row["text"]), row.get("constraints")) == row["schema"]


@pytest.mark.parametrize("row", TYPES, ids=lambda row: row["elixir"])
def test_a_schema_has_its_text(row: dict[str, Any]) -> None:
    read = field_of_schema(row["schema"])
    if row["text"] is None:
        assert not has_text(read.type)
        assert schema_of(read.type) == row["schema"]
    else:
        told = row.get("read", row)
        assert str(read.type) == told["text"]
        assert read.constraints == told.get("constraints", {})


def test_every_type_that_is_a_name_is_in_the_table() -> None:
    assert {row["text"] for row in TYPES} >= SCALARS | DSPY_TYPES
