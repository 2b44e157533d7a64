"""The connection, without any input or output: bytes in, events out; messages in, bytes out.

The bridge and the clients share it. What it guarantees, whoever uses it:

- every request that came in is answered exactly once: the first answer is sent, later ones are
  dropped, and so is any notification about a request that has been answered;
- a bad frame is answered once (here, by itself) and nothing else is disturbed by it;
- a late answer can never reach a newer request that was given the same id;
- nothing larger than the peer's limit is sent.

Receiving belongs to one thread; sending may be done from any.
"""

from __future__ import annotations

from _thread import allocate_lock

from .codec import EncodeError, decode, encode, recover_id
from .errors import (
    ConnectionLostError,
    DSPexError,
    FrameTooLargeError,
    InternalError,
    InvalidRequestError,
    ParseError,
)
from .framing import DEFAULT_MAX_FRAME_BYTES, FrameReader, Oversized, frame
from .messages import MAX_ID, Notification, Request, Response, UnanswerableError, parse_message

__all__ = ["Answered", "Connection", "Event", "Ignored", "Refused"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias


class Answered:
    """Our own request `id` was answered: `error` is None where it succeeded."""

    __slots__ = ("error", "id", "result")

    def __init__(self, id: int, error: DSPexError | None, result: Any) -> None:
        self.id = id
        self.error = error
        self.result = result

    def __repr__(self) -> str:
        return f"Answered({self.id}, {self.error!r}, {self.result!r})"


class Refused:
    """A bad frame came; the answer is queued already. `id` is the one it was sent with."""

    __slots__ = ("error", "id")

    def __init__(self, id: int | None, error: DSPexError) -> None:
        self.id = id
        self.error = error

    def __repr__(self) -> str:
        return f"Refused({self.id}, {self.error!r})"


class Ignored:
    """Something came that nobody can be told about: for the log."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"Ignored({self.reason!r})"


Event: TypeAlias = "Request | Notification | Answered | Refused | Ignored"


class Connection:
    """One end of a connection."""

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.peer_max_frame_bytes = DEFAULT_MAX_FRAME_BYTES
        self._reader = FrameReader(max_frame_bytes)
        self._lock = allocate_lock()
        self._incoming: dict[int, Request] = {}
        self._outgoing: set[int] = set()
        self._next_id = 0
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._closed = False

    @property
    def max_frame_bytes(self) -> int:
        return self._reader.max_frame_bytes

    # Receiving

    def receive_data(self, data: bytes) -> list[Event]:
        """What `data` completes, in order. Answers to bad frames are queued for sending."""
        return [self._event(item) for item in self._reader.feed(data)]

    def receive_eof(self) -> list[Event]:
        """The peer is gone: every request of ours that is open ends now, and sending stops."""
        with self._lock:
            self._closed = True
            lost = sorted(self._outgoing)
            self._outgoing.clear()
            self._incoming.clear()
            self._out.clear()
            self._out_bytes = 0
        error = ConnectionLostError("the connection ended before the answer came")
        events: list[Event] = [Answered(request_id, error, None) for request_id in lost]
        if not self._reader.at_boundary:
            events.append(Ignored("the connection ended in the middle of a frame"))
        return events

    def _event(self, item: bytes | Oversized) -> Event:
        if isinstance(item, Oversized):
            limit = self.max_frame_bytes
            too_large = FrameTooLargeError(
                f"a frame of {item.size} bytes is over the limit of {limit}",
                data={"size": item.size, "limit": limit},
            )
            return self._refuse(item.head, too_large)
        try:
            value = decode(item)
        except ParseError as error:
            return self._refuse(item, error)
        try:
            message = parse_message(value)
        except InvalidRequestError as error:
            return self._refuse(item, error)
        except UnanswerableError as error:
            return Ignored(str(error))
        if isinstance(message, Request):
            return self._open(message)
        if isinstance(message, Response):
            return self._settle(message)
        return message

    def _open(self, request: Request) -> Event:
        with self._lock:
            if request.id not in self._incoming:
                self._incoming[request.id] = request
                return request
        error = InvalidRequestError(
            f"request {request.id} is in flight already: choose another id",
            data={"id": request.id},
        )
        return self._answer_bad_frame(None, error)

    def _settle(self, response: Response) -> Event:
        if response.id is None:
            return Ignored(f"the peer refused a frame: {response.error}")
        with self._lock:
            if response.id not in self._outgoing:
                return Ignored(f"a response to request {response.id}, which is not in flight")
            self._outgoing.remove(response.id)
        return Answered(response.id, response.error, response.result)

    def _refuse(self, head: bytes, error: DSPexError) -> Event:
        """Answers a bad frame: with the id that it carries, unless another request has that id
        in flight, whose one answer this must not be."""
        request_id = recover_id(head)
        with self._lock:
            in_flight = request_id in self._incoming
        if in_flight:
            error.data = {**error.data, "id": request_id}
            request_id = None
        return self._answer_bad_frame(request_id, error)

    def _answer_bad_frame(self, request_id: int | None, error: DSPexError) -> Refused:
        answer = frame(encode(Response(request_id, error, None).to_wire()))
        with self._lock:
            self._queue(answer)
        return Refused(request_id, error)

    # Sending

    def send_request(self, method: str, params: dict[str, Any]) -> int:
        """Queues a request and returns its id.

        Raises EncodeError, FrameTooLargeError (over the peer's limit) or ConnectionLostError, with
        nothing sent.
        """
        with self._lock:
            request_id = self._next_id
            self._next_id = 0 if request_id == MAX_ID else request_id + 1
        data = self._framed(Request(request_id, method, params).to_wire())
        with self._lock:
            if self._closed:
                raise ConnectionLostError("the connection has ended")
            self._outgoing.add(request_id)
            self._queue(data)
        return request_id

    def send_result(self, request: Request, result: Any) -> bool:
        """Answers a request. False where it was answered before: nothing is sent then.

        A result that cannot be sent (no form on the wire, too large for the peer) becomes the
        error that says so: its request is answered all the same.
        """
        try:
            data = self._framed(Response(request.id, None, result).to_wire())
        except EncodeError as error:
            return self.send_error(request, InternalError(f"the result cannot be sent: {error}"))
        except FrameTooLargeError as error:
            return self.send_error(request, error)
        return self._send_answer(request, data)

    def send_error(self, request: Request, error: DSPexError) -> bool:
        """Answers a request with an error. False where it was answered before."""
        try:
            data = self._framed(Response(request.id, error, None).to_wire())
        except (EncodeError, FrameTooLargeError):
            # An error's data may quote anything; its code and a bounded message always fit.
            message = error.message[:1000].encode("utf-8", "replace").decode()
            bare = type(error)(message, retryable=error.retryable)
            data = self._framed(Response(request.id, bare, None).to_wire())
        return self._send_answer(request, data)

    def send_notification(
        self, method: str, params: dict[str, Any], *, about: Request | None = None
    ) -> bool:
        """Queues a notification. One `about` a request is dropped (False) once it is answered.

        Raises EncodeError or FrameTooLargeError, with nothing sent.
        """
        data = self._framed(Notification(method, params).to_wire())
        with self._lock:
            if self._closed or (about is not None and self._incoming.get(about.id) is not about):
                return False
            self._queue(data)
        return True

    def forget(self, request_id: int) -> None:
        """Gives up on a request of our own: its answer, should it come, is ignored."""
        with self._lock:
            self._outgoing.discard(request_id)

    def is_open(self, request: Request) -> bool:
        """Whether a request that came in is still unanswered."""
        with self._lock:
            return self._incoming.get(request.id) is request

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait in `data_to_send`."""
        return self._out_bytes

    def data_to_send(self) -> bytes:
        """Everything queued, in order; the queue is empty afterwards."""
        with self._lock:
            if not self._out:
                return b""
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out = []
            self._out_bytes = 0
        return data

    def _send_answer(self, request: Request, data: bytes) -> bool:
        with self._lock:
            if self._incoming.get(request.id) is not request:
                return False
            del self._incoming[request.id]
            self._queue(data)
        return True

    def _framed(self, message: list[Any]) -> bytes:
        payload = encode(message)
        limit = self.peer_max_frame_bytes
        if len(payload) > limit:
            raise FrameTooLargeError(
                f"a frame of {len(payload)} bytes is over the peer's limit of {limit}",
                data={"size": len(payload), "limit": limit},
            )
        return frame(payload)

    def _queue(self, data: bytes) -> None:
        if not self._closed:
            self._out.append(data)
            self._out_bytes += len(data)
