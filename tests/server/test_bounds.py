"""What one caller can ask for does not take what all the others need."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from dspex_bridge.commands.rows import READERS
from dspex_protocol.errors import InvalidParamsError, NotFoundError
from dspex_server.api.loaders import Loaders
from dspex_server.api.schema import SCHEMA
from dspex_server.app import App
from dspex_server.bridges import BridgeOptions, Bridges
from dspex_server.db.database import parse_url
from dspex_server.db.migrate import migrate
from dspex_server.db.models import Program
from dspex_server.events import MAX_NEWS, Events
from dspex_server.executing import Call, Executor
from dspex_server.importing import MAX_PARQUET_ROWS, read_rows
from dspex_server.resources.datasets import create_dataset
from dspex_server.resources.executions import begin_execution
from dspex_server.resources.program_creation import create_program
from dspex_server.resources.signatures import create_signature
from pyarrow import parquet
from sqlalchemy import event, select

from tests.server.background import on_a_loop
from tests.server.resources import begin, make_program, opened

if TYPE_CHECKING:
    from dspex_server.db.database import Database

    from integration.postgres import Postgres

EVERYTHING = """{ executions(page: {first: 500}) { totalCount nodes {
  transitions { at } program { transitions { at } revisions { number } } } } }"""


@on_a_loop
async def test_a_query_of_many_nodes_takes_a_few_connections(url: str) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)
        for _ in range(30):
            await begin(database, program_id)
        taken = most = 0

        def take(*_: object) -> None:
            nonlocal taken, most
            taken += 1
            most = max(most, taken)

        def give(*_: object) -> None:
            nonlocal taken
            taken -= 1

        event.listen(database.engine.sync_engine, "checkout", take)
        event.listen(database.engine.sync_engine, "checkin", give)
        context = {"app": _app(database), "loaders": Loaders(database)}
        answer = await SCHEMA.execute(EVERYTHING, context_value=context)
        assert answer.errors is None
        assert answer.data is not None
        assert len(answer.data["executions"]["nodes"]) == 30
        assert taken == 0
        assert 1 <= most <= 4


PAGE = """{ executions(page: {first: 50}) { nodes {
  id transitions { source target } program { name revisions { number }
  signature { name transitions { target } } } } } }"""


@on_a_loop
async def test_a_page_of_executions_with_their_programs_is_a_statement_a_field(url: str) -> None:
    async with opened(url) as database:
        async with database.write() as session:
            signature = await create_signature(session, "qa", "question -> answer")
            for name in "abc":
                await create_program(session, {}, name=name, signature=signature)
        begun = [await begin(database, name) for name in await _ids(database) for _ in range(20)]
        found, statements = await _counted(database, PAGE)
        # The page; the histories, programs, revisions, signatures, and the signatures' histories.
        assert statements == 6
        nodes = found["executions"]["nodes"]
        assert [node["id"] for node in nodes] == begun[:-51:-1]
        for node in nodes:
            assert [move["target"] for move in node["transitions"]] == ["pending", "running"]
            assert node["program"]["revisions"] == [{"number": 1}]
            assert node["program"]["signature"]["name"] == "qa"
            assert node["program"]["signature"]["transitions"] == [
                {"target": "draft"},
                {"target": "active"},
            ]
        assert {node["program"]["name"] for node in nodes} == {*"abc"}


@on_a_loop
async def test_a_page_of_datasets_with_some_of_their_rows_is_two_statements(url: str) -> None:
    async with opened(url) as database:
        async with database.write() as session:
            for name in "abc":
                rows = [{"inputs": {"q": f"{name}{n}"}, "outputs": {"a": "!"}} for n in range(9)]
                await create_dataset(session, name, rows)
        query = "{ datasets { nodes { name rows(first: 2, skip: 5) { inputs } } } }"
        found, statements = await _counted(database, query)
        assert statements == 2
        for dataset in found["datasets"]["nodes"]:
            assert [row["inputs"]["q"] for row in dataset["rows"]] == [
                f"{dataset['name']}5",
                f"{dataset['name']}6",
            ]


async def _counted(database: Database, query: str) -> tuple[dict[str, Any], int]:
    """The data, and how many statements it took to read it."""
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", count)
    context = {"app": _app(database), "loaders": Loaders(database)}
    answer = await SCHEMA.execute(query, context_value=context)
    assert answer.errors is None
    assert answer.data is not None
    return answer.data, len(statements)


async def _ids(database: Database) -> list[str]:
    async with database.read() as session:
        return list(await session.scalars(select(Program.id).order_by(Program.name)))


def test_a_small_parquet_of_too_many_rows_is_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(READERS, ".parquet", lambda _path: pytest.fail("it was read"))
    rows = MAX_PARQUET_ROWS + 1
    for column in (pa.nulls(rows, pa.string()), pa.array([[1] * 1_000] * 1_001)):
        file = io.BytesIO()
        parquet.write_table(pa.table({"q": column}), file, compression="zstd")
        with pytest.raises(InvalidParamsError, match=f"at most {MAX_PARQUET_ROWS} rows"):
            read_rows("a.parquet", file.getvalue(), inputs=["q"], outputs=[])


@on_a_loop
async def test_who_does_not_read_the_news_misses_the_oldest() -> None:
    events = Events()
    with events.listening("program") as news:
        for number in range(MAX_NEWS + 5):
            events.changed(str(number), "program")
        async for first in news:
            assert first == "5"
            break


@on_a_loop
async def test_a_program_that_is_deleted_before_its_execution_is_written_is_not_found(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLite has one writer: nobody deletes it in between.
    url = postgres.new_database()
    migrate(parse_url(url))
    async with opened(url) as database:
        program_id = await make_program(database)

        def late(*arguments: Any, **more: Any) -> str:
            with psycopg.connect(url) as other:
                other.execute("DELETE FROM programs")
            return begin_execution(*arguments, **more)

        monkeypatch.setattr("dspex_server.executing.begin_execution", late)
        with pytest.raises(NotFoundError):
            await _app(database).executor.execute(program_id, {"question": "?"}, Call())


def _app(database: Any) -> App:
    events = Events()
    bridges = Bridges(BridgeOptions(size=1, lms={}, default_lm=""))
    return App(database, bridges, events, Executor(database, bridges, events, "me"), None)  # type: ignore[arg-type]
