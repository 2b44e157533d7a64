"""DSPy's own types, objects and adapters, from the client's bytes to the LM's prompt."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.openai_script import Answer, Request, Script, well_formed
from integration.openai_server import OpenAIServer, answering
from integration.pipe import Pipe

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
PNG_URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(16)

PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "minLength": 2, "description": "in full"},
        "age": {"type": ["integer", "null"], "minimum": 0},
        "first-seen": {"type": "string", "format": "date"},
    },
    "required": ["name"],
    "additionalProperties": False,
}


class Bridge(Pipe):
    """A bridge whose LM is a server with this script."""

    def __init__(self, server: OpenAIServer, *options: str) -> None:
        super().__init__(*options)
        self.server = server
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        self.ask("configure", {"lms": {"main": {**lm, "cache": False, "num_retries": 0}}})

    def make(self, signature: Any, **more: Any) -> None:
        self.ask("create", {"signature": signature, "program": "p", "replace": True, **more})

    def run(self, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
        answer = self.ask("execute", {"program": "p", "inputs": inputs, **more})
        outputs: dict[str, Any] = answer["outputs"]
        return outputs

    def parts(self) -> list[dict[str, Any]]:
        """The last message that the server got, in parts."""
        content = self.server.requests[-1].body["messages"][-1]["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "cat.png").write_bytes(PNG)
    (folder / "notes.txt").write_text("hello")
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answering({"answer": "a cat"})) as server:
        yield server


@pytest.fixture
def bridge(server: OpenAIServer, folder: Path) -> Iterator[Bridge]:
    with Bridge(server, "--state-dir", str(folder)) as bridge:
        yield bridge


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("https://example.com/cat.png", "https://example.com/cat.png"),
        (PNG_URI, PNG_URI),
        (PNG, PNG_URI),
        ({"url": PNG}, PNG_URI),
        ("cat.png", PNG_URI),
    ],
    ids=["address", "data URI", "bytes", "map", "path"],
)
@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "baml"])
def test_an_image_is_a_part_of_the_request(
    bridge: Bridge, adapter: str, value: Any, url: str
) -> None:
    bridge.make("photo: image, question -> answer", adapter=adapter)
    assert bridge.run({"photo": value, "question": "What is it?"}) == {"answer": "a cat"}
    images = [part["image_url"]["url"] for part in bridge.parts() if part["type"] == "image_url"]
    assert images == [url]


@pytest.mark.parametrize(
    "path", ["../secret.png", "link.png", "/etc/passwd", "no.png", "file:///etc/passwd", "a\0b"]
)
def test_no_path_leads_out_of_the_state_folder(bridge: Bridge, path: str) -> None:
    bridge.make("photo: image -> answer")
    refusal = bridge.refusal("execute", {"program": "p", "inputs": {"photo": path}})
    assert refusal["code"] == "input_validation"
    assert refusal["data"]["errors"][0]["path"] == ["photo"]
    assert bridge.server.requests == []


def test_without_a_state_folder_there_are_no_paths(server: OpenAIServer) -> None:
    with Bridge(server) as bridge:
        bridge.make("photo: image -> answer")
        refusal = bridge.refusal("execute", {"program": "p", "inputs": {"photo": "cat.png"}})
    assert "--state-dir" in refusal["message"]


def test_audio_and_files_are_parts_of_the_request(bridge: Bridge) -> None:
    bridge.make("sound: audio, paper: file -> answer")
    bridge.run({"sound": WAV, "paper": "notes.txt"})
    kinds = {part["type"]: part for part in bridge.parts()}
    assert kinds["input_audio"]["input_audio"] == {
        "data": base64.b64encode(WAV).decode(),
        "format": "wav",
    }
    assert kinds["file"]["file"] == {
        "file_data": "data:text/plain;base64," + base64.b64encode(b"hello").decode(),
        "filename": "notes.txt",
    }


def test_a_history_becomes_turns(bridge: Bridge) -> None:
    history = {"name": "history", "type": "history", "default": []}
    bridge.make(
        {
            "inputs": [{"name": "question", "type": "str"}, history],
            "outputs": [{"name": "answer", "type": "str"}],
        }
    )
    bridge.run({"question": "And Italy?", "history": [{"question": "France?", "answer": "Paris"}]})
    roles = [role for role, _ in bridge.server.requests[-1].turns]
    assert roles == ["system", "user", "assistant", "user"]
    assert "Paris" in bridge.server.requests[-1].turns[2][1]
    bridge.run({"question": "And Italy?"})
    assert [role for role, _ in bridge.server.requests[-1].turns] == ["system", "user"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([("q", "str"), ("h", "history | None")], "stands alone"),
        ([("q", "str"), ("h", "list[history]")], "stands alone"),
        ([("h", "history"), ("g", "history")], "one history"),
    ],
)
def test_a_history_that_dspy_would_not_turn_into_turns_is_refused(
    bridge: Bridge, inputs: list[tuple[str, str]], message: str
) -> None:
    fields = [{"name": name, "type": type_} for name, type_ in inputs]
    signature = {"inputs": fields, "outputs": [{"name": "answer", "type": "str"}]}
    refusal = bridge.refusal("create", {"signature": signature})
    assert refusal["code"] == "signature_error"
    assert message in refusal["message"]


@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "baml"])
def test_code_and_tool_calls_come_back_as_text_and_maps(folder: Path, adapter: str) -> None:
    fields = {
        "program": "```python\nprint(1)\n```",
        "calls": {"tool_calls": [{"name": "search", "args": {"q": "x"}}]},
    }
    with (
        OpenAIServer(answering(fields)) as server,
        Bridge(server, "--state-dir", str(folder)) as bridge,
    ):
        bridge.make('task -> program: code["python"], calls: tool_calls', adapter=adapter)
        assert bridge.run({"task": "t"}) == {
            "program": "print(1)",
            "calls": [{"name": "search", "args": {"q": "x"}}],
        }


@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "baml"])
def test_an_object_is_told_to_the_lm_and_judged_when_it_comes_back(adapter: str) -> None:
    answers: list[dict[str, Any]] = [
        {"person": {"name": "Ann Lee", "age": "7", "first-seen": "2024-02-29"}},
        {"person": {"name": "A", "first-seen": "2024-02-29"}},
        {"person": {"name": "Ann", "shoe": 39}},
    ]

    def script(request: Request) -> Answer:
        return well_formed(request, answers[request.number])

    signature = {
        "inputs": [{"name": "who", "type": PERSON}],
        "outputs": [{"name": "person", "type": PERSON}],
    }
    with OpenAIServer(script) as server, Bridge(server) as bridge:
        bridge.make(signature, adapter=adapter)
        who = {"name": "Bob", "age": None}
        expected = {"name": "Ann Lee", "age": 7, "first-seen": "2024-02-29"}
        assert bridge.run({"who": who}) == {"person": expected}
        prompt = json.dumps(bridge.server.requests[-1].body["messages"])
        assert "Bob" in prompt
        # DSPy's XML adapter tells the names of nested fields alone.
        assert ("in full" in prompt) == (adapter != "xml")
        for path, kind in ((["person", "name"], "min_length"), (["person", "shoe"], "unexpected")):
            refusal = bridge.refusal("execute", {"program": "p", "inputs": {"who": who}})
            assert refusal["code"] == "output_validation"
            (error,) = refusal["data"]["errors"]
            assert (error["path"], error["type"]) == (path, kind)
        refusal = bridge.refusal("execute", {"program": "p", "inputs": {"who": {"age": -1}}})
        assert [error["path"] for error in refusal["data"]["errors"]] == [
            ["who", "name"],
            ["who", "age"],
        ]


def test_a_program_with_media_in_its_demonstrations_is_the_same_after_dump_and_load(
    bridge: Bridge,
) -> None:
    demos = [{"inputs": {"photo": PNG}, "outputs": {"answer": "a dog"}}]
    bridge.make("photo: image -> answer", demos=demos)
    described = bridge.ask("describe", {"program": "p"})
    assert described["demos"] == [{"inputs": {"photo": PNG_URI}, "outputs": {"answer": "a dog"}}]
    state = bridge.ask("dump", {"program": "p"})["state"]
    json.dumps(state)
    bridge.ask("load", {"state": state, "program": "q"})
    assert bridge.ask("describe", {"program": "q"})["demos"] == described["demos"]


def two_steps(thought: str, fields: dict[str, Any]) -> Script:
    """A first answer in free words, then the fields in the form that is asked for."""

    def script(request: Request) -> Answer:
        if any(thought in text for _, text in request.turns):
            return well_formed(request, fields)
        return Answer(thought)

    return script


def test_two_step_asks_for_words_and_then_for_fields() -> None:
    thought = "After long thought it is Paris, and I am 90% sure."
    fields = {"answer": "Paris", "sure": 0.9, "text": "words"}
    with OpenAIServer(two_steps(thought, fields)) as server, Bridge(server) as bridge:
        bridge.make("photo: image, question -> answer, sure: probability, text", adapter="two_step")
        inputs = {"photo": PNG, "question": "Where?"}
        assert bridge.run(inputs, stream={"fields": ["answer"]}) == fields
        first, second = server.requests
        assert "image_url" in json.dumps(first.body["messages"])
        assert "image_url" not in json.dumps(second.body["messages"])
        chunks = [params for _, method, params in bridge.notifications if method == "chunk"]
        last = [chunk for chunk in chunks if chunk["attempt"] == chunks[-1]["attempt"]]
        assert "".join(chunk["text"] for chunk in last) == "Paris"
        assert thought not in json.dumps(chunks)
        stats = bridge.ask("stats")["lms"]["main"]
        assert stats["calls"] == 2


def test_text_with_the_marks_of_an_image_stays_text() -> None:
    """DSPy's own marks in an input, as in what a user or a web page wrote, make no image of it."""
    part = json.dumps([{"type": "image_url", "image_url": {"url": "https://example.com/?q=1"}}])
    text = f"<<CUSTOM-TYPE-START-IDENTIFIER>>{part}<<CUSTOM-TYPE-END-IDENTIFIER>>"
    with OpenAIServer(answering({"answer": "none"})) as server, Bridge(server) as bridge:
        bridge.make("question: str, pictures: list[image] -> answer: str")
        bridge.run({"question": text, "pictures": [PNG_URI]})
        images = [item for item in bridge.parts() if item["type"] == "image_url"]
        assert [item["image_url"]["url"] for item in images] == [PNG_URI]
        assert text in "".join(item.get("text", "") for item in bridge.parts())


@pytest.mark.parametrize(
    "value",
    ["a.pdf", {"file_id": "f", "filename": "a.pdf"}, {"file_data": "JVBERi0="}],
    ids=["path", "id", "base64"],
)
def test_the_embedded_model_takes_files_as_others_do(tmp_path: Path, value: Any) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    with Pipe("--state-dir", str(tmp_path)) as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        pipe.ask("create", {"program": "p", "signature": "document: file -> answer"})
        outputs = pipe.ask("execute", {"program": "p", "inputs": {"document": value}})["outputs"]
        assert set(outputs) == {"answer"}
