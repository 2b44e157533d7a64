from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dspex_bridge.streams import ChunkStream


class Client:
    """Takes chunks until it hangs up."""

    def __init__(self, window: int, max_chars: int = 1000) -> None:
        self.chunks: list[dict[str, Any]] = []
        self.listens = True
        self.prepared = 0
        self.stream = ChunkStream(self._prepare, window, lambda: max_chars)
        self.stream.begin_attempt(("answer", "other", "a", "b"))

    def _prepare(self, chunk: dict[str, Any]) -> Callable[[str], bool]:
        self.prepared += 1

        def take(text: str) -> bool:
            if self.listens:
                self.chunks.append({**chunk, "text": text})
            return self.listens

        return take

    def texts(self) -> list[str]:
        return [chunk["text"] for chunk in self.chunks]


def test_chunks_go_at_once_while_there_is_credit() -> None:
    client = Client(window=3)
    client.stream.put("answer", "a")
    client.stream.put("answer", "b", done=True)
    assert client.chunks == [
        {"field": "answer", "attempt": 1, "text": "a", "done": False},
        {"field": "answer", "attempt": 1, "text": "b", "done": True},
    ]


def test_what_the_chunks_of_an_attempt_share_is_prepared_once() -> None:
    client = Client(window=1000)
    for _ in range(100):
        client.stream.put("a", "x")
        client.stream.put("b", "y")
    assert client.prepared == 2
    client.stream.begin_attempt(["a"])
    for field, done in (("a", False), ("b", False), ("a", True), ("b", True)):
        client.stream.put(field, "z", done=done)
    assert client.chunks[-4:] == [
        {"field": "a", "attempt": 2, "text": "z", "done": False},
        {"field": "b", "attempt": 1, "text": "z", "done": False},
        {"field": "a", "attempt": 2, "text": "z", "done": True},
        {"field": "b", "attempt": 1, "text": "z", "done": True},
    ]


def test_without_credit_text_gathers_per_field_in_order() -> None:
    client = Client(window=1)
    for field, text in (("a", "1"), ("a", "2"), ("b", "x"), ("a", "3"), ("b", "y")):
        client.stream.put(field, text)
    assert client.texts() == ["1"]
    client.stream.grant(1)
    assert client.texts() == ["1", "23"]
    client.stream.grant(5)
    assert client.texts() == ["1", "23", "xy"]


def test_no_more_than_the_window_is_ever_outstanding() -> None:
    client = Client(window=4)
    for number in range(100):
        client.stream.put(f"field{number % 7}", "x")
        assert len(client.chunks) <= 4
    client.stream.grant(2)
    assert len(client.chunks) == 6


def test_finish_sends_the_rest_whatever_the_credit() -> None:
    client = Client(window=1)
    for text in "abcdef":
        client.stream.put("answer", text)
    client.stream.put("answer", "", done=True)
    client.stream.finish()
    assert client.texts() == ["a", "bcdef"]
    assert client.chunks[-1]["done"] is True


def test_a_new_attempt_drops_what_waited_for_the_old_one() -> None:
    client = Client(window=1)
    client.stream.put("answer", "wrong")
    client.stream.put("answer", " and waiting")
    client.stream.begin_attempt(["answer"])
    client.stream.put("answer", "right")
    client.stream.finish()
    assert [(chunk["attempt"], chunk["text"]) for chunk in client.chunks] == [
        (1, "wrong"),
        (2, "right"),
    ]


def test_text_that_gathered_goes_in_chunks_of_a_bounded_size() -> None:
    client = Client(window=1, max_chars=4)
    client.stream.put("answer", "ab")
    client.stream.put("answer", "cdefghij", done=True)
    client.stream.put("other", "x")
    client.stream.grant(1)
    client.stream.finish()
    assert client.texts() == ["ab", "cdef", "ghij", "x"]
    assert [chunk["done"] for chunk in client.chunks] == [False, False, True, False]


def test_nothing_gathers_for_a_client_that_has_hung_up() -> None:
    client = Client(window=1)
    client.stream.put("a", "1")
    client.listens = False
    client.stream.put("a", "2")
    client.stream.put("b", "3")
    client.stream.finish()
    client.listens = True
    client.stream.finish()
    assert client.texts() == ["1"]


def test_text_that_gathers_costs_the_same_however_much_has_gathered() -> None:
    def seconds(count: int) -> float:
        best = float("inf")
        for _ in range(3):
            client, piece = Client(window=1, max_chars=1_000_000_000), "x" * 100
            client.stream.put("answer", "first")
            started = time.thread_time()
            for _ in range(count):
                client.stream.put("answer", piece)
            client.stream.finish()
            best = min(best, time.thread_time() - started)
            assert [len(text) for text in client.texts()] == [5, count * len(piece)]
        return best

    # 16 times the text; one that copied all of it at each piece would take 256 times as long.
    assert seconds(8000) < 80 * max(seconds(500), 0.0005)
