"""The whole way: GraphQL or JSON, the resources, a bridge, DSPy, and back."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from dspex_bridge.testing.scripted_lm import Prompt, ScriptedLM

from integration.server_process import ServerProcess
from tests.server.background import on_a_loop

if TYPE_CHECKING:
    pass

CREATE = """
mutation ($input: ProgramInput!) {
  createProgram(input: $input) {
    __typename
    ... on Program { id name state revision signature { name version } }
    ... on Problem { code message retryable }
    ... on InvalidInput { param position }
  }
}
"""
EXECUTE = """
mutation ($input: ExecuteInput!) {
  executeProgram(input: $input) {
    __typename
    ... on Execution { id state outputs totalTokens lm error { code data } }
    ... on Problem { code message }
    ... on InvalidValues { executionId errors { path type expected got } }
    ... on WrongState { currentState allowed }
    ... on NotFound { kind name }
  }
}
"""
EXECUTION = """
query ($id: ID!) {
  execution(id: $id) { id state outputs error { code } transitions { source target } }
}
"""
WAIT_S = 30
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def lm(module_lm: ScriptedLM) -> ScriptedLM:
    module_lm.always({"answer": "4"})
    return module_lm


@pytest.fixture
def server(module_server: ServerProcess, lm: ScriptedLM) -> ServerProcess:
    """One for all tests; each has programs of its own."""
    return module_server


def create(server: ServerProcess, **given: Any) -> Any:
    given = {"signature": "question -> answer", **given}
    return server.graphql(CREATE, input=given)["createProgram"]


def execute(server: ServerProcess, program: str, inputs: Any, **given: Any) -> Any:
    asked = {"program": program, "inputs": inputs, **given}
    return server.graphql(EXECUTE, input=asked)["executeProgram"]


def test_a_program_is_made_run_and_its_execution_read_back(server: ServerProcess) -> None:
    program = create(server, name="first")
    assert (program["__typename"], program["state"], program["revision"]) == ("Program", "READY", 1)
    done = execute(server, "first", {"question": "2 + 2?"})
    assert (done["state"], done["outputs"], done["lm"]) == ("COMPLETED", {"answer": "4"}, "main")
    assert done["totalTokens"] > 0
    read = server.graphql(EXECUTION, id=done["id"])["execution"]
    assert read["outputs"] == {"answer": "4"}
    assert [item["target"] for item in read["transitions"]] == ["pending", "running", "completed"]


def test_inputs_that_do_not_fit_are_told_field_by_field(server: ServerProcess) -> None:
    create(server, name="typed", signature="n: int, when: date -> answer")
    problem = execute(server, "typed", {"n": "x", "when": 3})
    assert problem["__typename"] == "InvalidValues"
    assert [error["path"] for error in problem["errors"]] == [["n"], ["when"]]
    read = server.graphql(EXECUTION, id=problem["executionId"])["execution"]
    assert (read["state"], read["error"]["code"]) == ("FAILED", "input_validation")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"signature": "a -> b: nonsense"}, {"code": "signature_error", "position": 8}),
        ({"module": "predct"}, {"code": "invalid_params"}),
        ({"name": " "}, {"code": "invalid_params", "param": "name"}),
        ({"signatureId": "x"}, {"code": "invalid_params", "param": "signature"}),
    ],
)
def test_a_program_that_cannot_be_is_an_answer_and_no_failure(
    server: ServerProcess, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    problem = create(server, **given)
    assert problem["__typename"] == "InvalidInput"
    assert expected.items() <= problem.items()


def test_a_program_of_an_lm_that_is_not_configured_is_not_made(server: ServerProcess) -> None:
    query = CREATE.replace(
        "... on InvalidInput", "... on NotFound { kind missing: name } ... on InvalidInput"
    )
    given = {"name": "misspelt", "signature": "question -> answer", "lm": "mian"}
    problem = server.graphql(query, input=given)["createProgram"]
    assert problem["__typename"] == "NotFound"
    assert (problem["kind"], problem["missing"]) == ("lm", "mian")
    assert problem["message"].startswith("createProgram: there is no LM 'mian'; configured: main")
    refused = server.http.post("/v1/programs", json=given)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert refused.json()["error"]["data"] == {"kind": "lm", "name": "mian", "param": "lm"}
    called = server.http.post(
        "/v1/calls/create", json={**given, "name": None, "program": "misspelt"}
    )
    assert "there is no LM 'mian'" in called.text
    assert server.http.get("/v1/programs/misspelt").status_code == 404
    assert create(server, name="named", lm="main")["state"] == "READY"


def test_what_is_not_there_and_what_is_not_allowed_are_answers(server: ServerProcess) -> None:
    missing = execute(server, "nobody", {})
    assert (missing["__typename"], missing["kind"]) == ("NotFound", "program")
    create(server, name="draft", draft=True)
    refused = execute(server, "draft", {"question": "?"})
    assert (refused["__typename"], refused["currentState"]) == ("WrongState", "draft")
    assert "ready" in refused["allowed"]


def test_programs_are_made_of_named_signatures(server: ServerProcess) -> None:
    made = server.graphql(
        'mutation { createSignature(input: {name: "qa", text: "question -> answer"}) {'
        " ... on Signature { id version state } } }"
    )["createSignature"]
    assert (made["version"], made["state"]) == (1, "ACTIVE")
    given = {"name": "of-signature", "signatureId": made["id"]}
    program = server.graphql(CREATE, input=given)["createProgram"]
    assert program["signature"] == {"name": "qa", "version": 1}


def test_a_list_is_walked_page_by_page_in_both_directions(server: ServerProcess) -> None:
    names = [f"page-{index}" for index in range(5)]
    for name in names:
        create(server, name=name)
    query = """
    query ($page: Page, $direction: Direction!) {
      programs(filter: {nameContains: "page-"}, sort: NAME, direction: $direction, page: $page) {
        totalCount nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
      }
    }
    """
    for direction, expected in (("ASC", names), ("DESC", names[::-1])):
        seen: list[str] = []
        page: dict[str, Any] = {"first": 2}
        while True:
            found = server.graphql(query, page=page, direction=direction)["programs"]
            assert found["totalCount"] == 5
            seen += [node["name"] for node in found["nodes"]]
            if not found["pageInfo"]["hasNextPage"]:
                break
            page = {"first": 2, "after": found["pageInfo"]["endCursor"]}
        assert seen == expected
        back = {"last": 2, "before": found["pageInfo"]["startCursor"]}
        found = server.graphql(query, page=back, direction=direction)["programs"]
        assert [node["name"] for node in found["nodes"]] == expected[2:4]
        assert found["pageInfo"]["hasPreviousPage"]
    wrong = server.ask(query, page={"after": "x"}, direction="ASC")
    assert wrong["errors"][0]["extensions"]["code"] == "invalid_params"


def test_executions_are_filtered(server: ServerProcess) -> None:
    program = create(server, name="filtered")
    execute(server, "filtered", {"question": "?"})
    execute(server, "filtered", {})
    query = """
    query ($filter: ExecutionFilter) { executions(filter: $filter) { nodes { state } } }
    """
    for states, expected in ((["COMPLETED"], 1), (["FAILED"], 1), (None, 2), (["PENDING"], 0)):
        asked = {"programId": program["id"], "state": states}
        found = server.graphql(query, filter=asked)["executions"]["nodes"]
        assert len(found) == expected


def test_a_program_goes_from_deployed_to_archived_and_is_deleted(server: ServerProcess) -> None:
    create(server, name="lived")
    execute(server, "lived", {"question": "?"})
    for mutation, state in (
        ('deployProgram(id: "lived")', "DEPLOYED"),
        ('rollbackProgram(id: "lived", revision: 1)', "DEPLOYED"),
        ('archiveProgram(id: "lived")', "ARCHIVED"),
    ):
        query = f"mutation {{ done: {mutation} {{ ... on Program {{ state }} }} }}"
        assert server.graphql(query)["done"]["state"] == state
    deleted = server.graphql(
        'mutation { deleteProgram(id: "lived") { __typename ... on DeletedProgram { id } } }'
    )
    assert deleted["deleteProgram"]["__typename"] == "DeletedProgram"
    assert server.graphql('{ program(id: "lived") { id } }')["program"] is None


@on_a_loop
async def test_a_stream_gives_the_text_and_then_the_execution(
    server: ServerProcess, lm: ScriptedLM
) -> None:
    lm.always({"answer": "one two three four"})
    create(server, name="streamed")
    query = """
    subscription ($input: ExecuteInput!) {
      executionStream(input: $input) {
        __typename
        ... on Chunk { field attempt text done }
        ... on Execution { state outputs }
      }
    }
    """
    asked = {"program": "streamed", "inputs": {"question": "?"}}
    async with server.subscribe(query, input=asked) as events:
        told = [event["executionStream"] async for event in events]
    *chunks, execution = told
    assert chunks
    assert "".join(chunk["text"] for chunk in chunks) == "one two three four"
    assert execution["state"] == "COMPLETED"
    assert execution["outputs"] == {"answer": "one two three four"}


@on_a_loop
async def test_an_execution_is_followed_and_cancelled_while_it_runs(
    server: ServerProcess, lm: ScriptedLM
) -> None:
    import asyncio

    asked, go_on = threading.Event(), threading.Event()

    def wait(_prompt: Prompt) -> dict[str, str]:
        asked.set()
        assert go_on.wait(WAIT_S)
        return {"answer": "late"}

    lm.answer(wait)
    program = create(server, name="followed")
    query = """
    subscription ($id: ID!) { executionUpdates(programId: $id) { id state } }
    """
    async with server.subscribe(query, id=program["id"]) as events:
        running = asyncio.create_task(
            asyncio.to_thread(execute, server, "followed", {"question": "?"})
        )
        told = (await anext(events))["executionUpdates"]
        assert told["state"] == "RUNNING"
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        cancelled = await asyncio.to_thread(
            server.graphql,
            "mutation ($id: ID!) { cancelExecution(id: $id) { ... on Execution { state } } }",
            id=told["id"],
        )
        assert cancelled["cancelExecution"]["state"] == "CANCELLED"
        assert (await running)["state"] == "CANCELLED"
        go_on.set()
        assert (await anext(events))["executionUpdates"]["state"] == "CANCELLED"


def test_what_fails_inside_is_told_without_its_inside(server: ServerProcess) -> None:
    # A text that PostgreSQL and JSON take, and that no row has.
    answer = server.ask('{ program(id: "\\u0000") { id } }')
    assert "Traceback" not in str(answer)
    response = server.http.post("/graphql", json={"query": "{ nonsense }"})
    assert "nonsense" in response.json()["errors"][0]["message"]
    assert server.http.get("/graphql?query={__typename}").status_code in (400, 405)
    assert server.http.post("/graphql", content=b"{").status_code == 400
    deep = "{" * 1 + "programs { nodes { signature { id } } }" + "}"
    assert "errors" not in server.ask(deep)
    assert server.http.post("/graphql", content=b"x" * (17 * 2**20)).status_code == 413


def test_the_servers_own_address_names_what_is_there(server: ServerProcess) -> None:
    told = server.http.get("/")
    assert (told.status_code, told.json()["name"]) == (200, "dspex")
    places = told.json()["places"]
    documented = server.http.get("/v1/openapi.json").json()["paths"]
    assert places.keys() == {"/graphql", "/healthz", "/v1/openapi.json", *documented}
    for path in ("/v1/calls/{method}", "/v1/datasets/{dataset}", "/v1/executions/{execution}"):
        assert path in places
    page = server.http.get("/", headers=BROWSER)
    assert page.headers["content-type"].startswith("text/html")
    for path in places:
        assert path in page.text
        # Where something has to be filled in there is nothing to be clicked on.
        assert (f'href="{path}"' in page.text) is ("{" not in path)
        if "{" not in path:
            assert server.http.get(path, headers=BROWSER).status_code == 200, path


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/v1/executions", 404, "there is nothing at '/v1/executions': GET / names what"),
        ("POST", "/v1/executions", 404, "there is nothing at '/v1/executions'"),
        ("PUT", "/v1/programs", 405, "'/v1/programs' takes no PUT, but GET, HEAD, POST"),
        ("GET", "/v1/calls/execute", 405, "'/v1/calls/execute' takes no GET, but POST"),
        ("POST", "/", 405, "'/' takes no POST, but GET, HEAD"),
        ("DELETE", "/graphql", 405, "'/graphql' takes no DELETE, but GET, HEAD, POST"),
    ],
)
def test_a_path_or_a_method_that_is_not_there_is_answered_as_other_errors_are(
    server: ServerProcess, method: str, path: str, status: int, told: str
) -> None:
    answer = server.http.request(method, path)
    error = answer.json()["error"]
    assert (answer.status_code, error.keys()) == (status, {"code", "message", "retryable", "data"})
    assert error["code"] == {404: "not_found", 405: "method_not_allowed"}[status]
    assert error["message"].startswith(told)
    if status == 405:
        assert answer.headers["allow"] == ", ".join(error["data"]["allowed"])


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("programs", "", "the body is empty: a map is expected, as JSON"),
        ("programs", "name=x", "the body is no JSON: Expecting value: line 1 column 1 (char 0)"),
        ("programs", "[]", "the body must be a map, got a list"),
        ("programs/any/execute", '{"inputs": {"a": -1e999}}', "the body has a number that is too"),
        (
            "programs",
            '{"name": "\\ud800"}',
            r"the body has a text with half a surrogate pair (\ud800)",
        ),
        ("programs", '{"name": 5}', "createProgram: name must be a string, got an integer (5)"),
        ("programs", '{"draft": 5}', "createProgram: draft must be true or false, got an integer"),
        ("programs", '{"program": "x"}', "createProgram: unknown parameter 'program'. Valid: name"),
        ("programs", '{"name": "x"}', "createProgram: the parameter 'signature' is missing"),
        ("programs/any/execute", "{}", "executeProgram: the parameter 'inputs' is missing"),
        ("programs/any/execute", '{"inputs": 5}', "executeProgram: inputs must be a map, got an"),
        (
            "programs/any/execute",
            '{"inputs": {}, "config": 5}',
            "executeProgram: config must be a map, got an integer",
        ),
        (
            "programs/any/execute",
            '{"inputs": {}, "timeout_ms": 0}',
            "executeProgram: timeout_ms must be an integer of at least 1, got an integer (0)",
        ),
        (
            "calls/execute",
            '{"inputs": "\\uDFFF"}',
            "the body has a text with half a surrogate pair",
        ),
    ],
)
def test_a_body_that_cannot_be_is_told_with_what_is_wrong_in_it(
    server: ServerProcess, path: str, body: str, told: str
) -> None:
    answer = server.http.post(f"/v1/{path}", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_params")
    assert error["message"].startswith(told)


def test_what_graphql_cannot_read_is_answered_as_an_error_of_graphqls(
    server: ServerProcess,
) -> None:
    for content, told in (
        (b"{", "the body is no JSON"),
        (b'{"query": "{ x }", "variables": {"a": "\\ud800"}}', "the body has a text with half a"),
        (b"[" * 100_000, "a value is nested too deep"),
        (b'{"query": "{ x }", "variables": {"a": 1e999}}', "the body has a number that is too lar"),
        (b"null", "the body must be a map"),
        (b'"{ x }"', "the body must be a map"),
        (b"{}", "No GraphQL query found in the request"),
    ):
        headers = {"content-type": "application/json"}
        answer = server.http.post("/graphql", content=content, headers=headers)
        (error,) = answer.json()["errors"]
        assert answer.status_code == 400
        assert error["message"].startswith(told)
        assert "POST /graphql takes a map of query" in error["message"]
    assert "content-type: application/json" in server.http.post("/graphql", content=b"{}").text


def test_a_number_that_json_cannot_hold_is_refused_in_a_document_too(
    server: ServerProcess,
) -> None:
    query = (
        'mutation { executeProgram(input: {program: "any", inputs: {a: [1e999]}}) { __typename } }'
    )
    (error,) = server.http.post("/graphql", json={"query": query}).json()["errors"]
    assert "a number is too large for JSON" in error["message"]


def test_a_program_is_replaced_over_json(server: ServerProcess) -> None:
    given = {"name": "replaced", "signature": "question -> answer"}
    assert server.http.post("/v1/programs", json=given).json()["revision"] == 1
    known = server.http.post("/v1/programs", json=given)
    assert (known.status_code, known.json()["error"]["code"]) == (409, "already_exists")
    again = {**given, "signature": "question -> answer: int", "replace": True}
    assert server.http.post("/v1/programs", json=again).json()["revision"] == 2


def test_a_browser_has_graphiql_whose_scripts_are_those_that_they_were(
    server: ServerProcess,
) -> None:
    page = server.http.get("/graphql", headers=BROWSER)
    assert (page.status_code, page.headers["x-frame-options"]) == (200, "DENY")
    foreign = re.findall(r"<(?:script|link)[^>]*https:[^>]*>", page.text)
    assert len(foreign) > 3
    assert all("integrity=" in tag and "crossorigin" in tag for tag in foreign)
    # Nobody else has a page where an answer is expected.
    assert server.http.get("/graphql").status_code in (400, 405)
    assert server.http.get("/graphql?query={__typename}", headers=BROWSER).status_code in (400, 405)


def test_a_server_says_where_its_database_lies(server: ServerProcess) -> None:
    (told,) = [line for line in server.output if line.startswith("The database is ")]
    assert Path(told.strip().removeprefix("The database is ")).name == "dspex.sqlite"


def test_a_page_of_another_site_is_not_let_in(server: ServerProcess) -> None:
    response = server.http.get("/healthz", headers={"host": "evil.example"})
    assert response.status_code == 400
    assert "ask 127.0.0.1 or localhost" in response.json()["error"]["message"]
    assert server.http.get("/healthz").json() == {"status": "ok"}
    form = server.http.post("/graphql", data={"query": "{ __typename }"})
    assert form.status_code == 400


def test_the_json_api_does_the_same(server: ServerProcess, lm: ScriptedLM) -> None:
    http = server.http
    made = http.post("/v1/programs", json={"name": "plain", "signature": "question -> answer"})
    assert (made.status_code, made.json()["state"]) == (201, "ready")
    assert http.post("/v1/programs", json={"name": "plain", "signature": "a->b"}).status_code == 409
    done = http.post(
        "/v1/programs/plain/execute",
        json={"inputs": {"question": "?"}},
        headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"},
    )
    assert (done.status_code, done.json()["outputs"]) == (200, {"answer": "4"})
    assert done.json()["trace_id"] == "ab" * 16
    read = http.get(f"/v1/executions/{done.json()['id']}")
    assert read.json() == done.json()
    invalid = http.post("/v1/programs/plain/execute", json={"inputs": {"question": 1}})
    assert (invalid.status_code, invalid.json()["state"]) == (422, "failed")
    assert http.post("/v1/programs/plain/execute", json={"input": {}}).status_code == 400
    assert http.post("/v1/programs/plain/execute", content=b"[NaN]").status_code == 400
    assert http.post(f"/v1/executions/{done.json()['id']}/cancel").status_code == 409
    assert http.get("/v1/programs/nobody").status_code == 404
    assert any(one["name"] == "plain" for one in http.get("/v1/programs").json()["programs"])
    assert http.delete("/v1/programs/plain").status_code == 204
    assert http.get("/v1/openapi.json").json()["openapi"] == "3.1.0"


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_file_becomes_a_dataset_and_the_same_file_no_new_version(
    server: ServerProcess, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"sums.{ending}"
    if ending == "jsonl":
        path.write_text('{"question": "1 + 1?", "answer": "2"}\n{"question": "é", "answer": "3"}\n')
    elif ending == "csv":
        path.write_text("question,answer\n1 + 1?,2\né,3\n")
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"question": ["1 + 1?", "é"], "answer": ["2", "3"]}), path)
    query = {"file": path.name, "inputs": "question", "outputs": "answer"}

    def put(**more: str) -> httpx.Response:
        data = path.read_bytes()
        return server.http.put(f"/v1/datasets/{ending}", params={**query, **more}, content=data)

    made = put()
    assert (made.status_code, made.json()["version"], made.json()["size"]) == (201, 1, 2)
    assert put().json()["id"] == made.json()["id"]
    rows = server.graphql(
        "query ($id: ID!) { dataset(id: $id) { rows { inputs outputs } } }", id=ending
    )["dataset"]["rows"]
    assert rows == [
        {"inputs": {"question": "1 + 1?"}, "outputs": {"answer": "2"}},
        {"inputs": {"question": "é"}, "outputs": {"answer": "3"}},
    ]
    wrong = put(outputs="anser")
    assert wrong.status_code == 400
    assert "there is no column 'anser'" in wrong.json()["error"]["message"]
    assert f"sums.{ending}" in wrong.json()["error"]["message"]
    assert put(file="sums.xlsx").status_code == 400
    path.write_bytes(b"\xff{")
    broken = put()
    assert (broken.status_code, "dspex-import" in broken.text) == (400, False)
