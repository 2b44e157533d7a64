"""The connection, without any input or output: bytes in, events out; messages in, bytes out.

The bridge and the clients share it. What it guarantees, whoever uses it:

- every request that came in is answered exactly once: the first answer is sent, later ones are
  dropped, and so is any notification about a request that has been answered;
- every request of ours ends exactly once: with its answer, with the error of an answer that could
  not be read, when it is given up, or when the connection ends;
- a bad frame is answered once (here, by itself) and nothing else is disturbed by it;
- a late answer can never reach a newer request that was given the same id;
- nothing larger than the peer's limit is sent.

Receiving belongs to one thread; sending may be done from any, but not from a signal handler: it may
have interrupted a thread that holds the lock.
"""

from __future__ import annotations

from _thread import allocate_lock

from .codec import EncodeError, decode, encode, encode_around, encode_text, recover_id, sendable
from .errors import (
    ConnectionLostError,
    DSPexError,
    FrameTooLargeError,
    InternalError,
    InvalidRequestError,
    ParseError,
)
from .framing import (
    DEFAULT_MAX_FRAME_BYTES,
    LARGEST_MAX_FRAME_BYTES,
    PREFIX_BYTES,
    SMALLEST_MAX_FRAME_BYTES,
    FrameReader,
    Oversized,
    prefix,
)
from .messages import (
    MAX_ID,
    NOTIFICATION,
    REQUEST,
    RESPONSE,
    Notification,
    Request,
    Response,
    UnanswerableError,
    parse_message,
)

__all__ = ["Answered", "Connection", "Event", "Ignored", "Refused"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias


# Of a message that is cut so that its error can be sent: at most 4 bytes each.
_CUT_MESSAGE_CHARS = 500

# A larger payload is queued as it is, behind its length: a copy costs more than a second write.
_COPIED_BYTES = 256 * 1024


class Answered:
    """Our own request `id` ended: `error` is None where it succeeded.

    `waiter` is what `send_request` was given to find whoever waits.
    """

    __slots__ = ("error", "id", "result", "waiter")

    def __init__(self, id: int, error: DSPexError | None, result: Any, waiter: Any) -> None:
        self.id = id
        self.error = error
        self.result = result
        self.waiter = waiter

    def __repr__(self) -> str:
        return f"Answered({self.id}, {self.error!r}, {type(self.result).__name__})"


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
        self._reader = FrameReader(max_frame_bytes)
        self._peer_max_frame_bytes = DEFAULT_MAX_FRAME_BYTES
        self._lock = allocate_lock()
        self._incoming: dict[int, Request] = {}
        self._outgoing: dict[int, Any] = {}
        self._given_up: set[int] = set()
        self._next_id = 0
        self._out: list[bytes] = []
        #: Bytes that wait in `data_to_send`.
        self.queued_bytes = 0
        self._closed = False

    @property
    def max_frame_bytes(self) -> int:
        return self._reader.max_frame_bytes

    @property
    def peer_max_frame_bytes(self) -> int:
        """What the peer said its limit is; the default until it does."""
        return self._peer_max_frame_bytes

    @peer_max_frame_bytes.setter
    def peer_max_frame_bytes(self, limit: int) -> None:
        if limit < SMALLEST_MAX_FRAME_BYTES:
            raise ValueError(
                f"a limit of {limit} bytes a frame: at least {SMALLEST_MAX_FRAME_BYTES} are needed"
            )
        self._peer_max_frame_bytes = min(limit, LARGEST_MAX_FRAME_BYTES)

    # Receiving

    def receive_data(self, data: bytes) -> list[Event]:
        """What `data` completes, in order. Answers to bad frames are queued for sending."""
        return list(self.events(data))

    def events(
        self, data: bytes, answer_at_once: Callable[[Request], bool] | None = None
    ) -> Iterator[Event]:
        """The same one by one: what is done about one is done before the next is looked at.

        `answer_at_once` is asked about each request first. Where it has sent the result, by
        `send_at_once`, it says True, and there is no event: such a request is never in flight.
        """
        items = self._reader.feed(data)
        items.reverse()
        while items:
            # Taken out: nobody holds the bytes of a large frame while its request is answered.
            event = self._event(items.pop())
            if isinstance(event, Request):
                is_new = event.id not in self._incoming
                if is_new and answer_at_once is not None and answer_at_once(event):
                    continue
                event = self._opened(event)
            if event is not None:
                yield event

    def receive_eof(self) -> list[Event]:
        """The peer is gone: every request of ours that is open ends now, and sending stops."""
        with self._lock:
            if self._closed:
                return []
            self._closed = True
            lost, self._outgoing = self._outgoing, {}
            self._given_up.clear()
            self._incoming.clear()
            self._out.clear()
            self.queued_bytes = 0
        events: list[Event] = []
        for request_id, waiter in lost.items():
            # One each: a traceback belongs to whoever raises it.
            error = ConnectionLostError("the connection ended before the answer came")
            events.append(Answered(request_id, error, None, waiter))
        if not self._reader.at_boundary:
            events.append(Ignored("the connection ended in the middle of a frame"))
        return events

    def _event(self, item: bytes | Oversized) -> Event | None:
        if isinstance(item, Oversized):
            limit = self.max_frame_bytes
            too_large = FrameTooLargeError(
                f"a frame of {item.size} bytes is over the limit of {limit}",
                data={"size": item.size, "limit": limit},
            )
            return self._refuse(item.head, too_large)
        try:
            message = parse_message(decode(item))
        except (ParseError, InvalidRequestError) as error:
            return self._refuse(item, error)
        except UnanswerableError as error:
            return self._unreadable(item, InternalError(str(error))) or Ignored(str(error))
        if isinstance(message, Response):
            return self._settle(message)
        return message

    def _opened(self, request: Request) -> Event:
        """The request, in flight from now on, or the refusal of an id that another one has."""
        # One step: other threads answer meanwhile.
        if self._incoming.setdefault(request.id, request) is request:
            return request
        taken = InvalidRequestError(
            f"request {request.id} is in flight already: choose another id",
            data={"id": request.id},
        )
        return self._answer_bad_frame(None, taken)

    def _settle(self, response: Response) -> Event | None:
        if response.id is None:
            return Ignored(f"the peer refused a frame: {response.error!s:.500}")
        with self._lock:
            if response.id in self._outgoing:
                waiter = self._outgoing.pop(response.id)
                return Answered(response.id, response.error, response.result, waiter)
            if response.id in self._given_up:
                self._given_up.remove(response.id)
                return None
        return Ignored(f"a response to request {response.id}, which is not in flight")

    def _refuse(self, head: bytes, error: DSPexError) -> Event:
        """Answers a bad frame: with the id that it carries, unless another request has that id
        in flight, whose one answer this must not be."""
        request_id = recover_id(head, REQUEST)
        with self._lock:
            in_flight = request_id in self._incoming
        if in_flight:
            error.data = {**error.data, "id": request_id}
            request_id = None
        refused = self._answer_bad_frame(request_id, error)
        return self._unreadable(head, error) or refused

    def _unreadable(self, head: bytes, error: DSPexError) -> Answered | None:
        """Ends the request of ours that a bad frame was to answer: no other answer will come."""
        request_id = recover_id(head, RESPONSE)
        with self._lock:
            if request_id is None or request_id not in self._outgoing:
                return None
            return Answered(request_id, error, None, self._outgoing.pop(request_id))

    def _answer_bad_frame(self, request_id: int | None, error: DSPexError) -> Refused:
        answer = encode(Response(request_id, error, None).to_wire())
        with self._lock:
            self._queue(answer)
        return Refused(request_id, error)

    # Sending

    def send_request(self, method: str, params: dict[str, Any], *, waiter: Any = None) -> int:
        """Queues a request and returns its id; its Answered brings `waiter` back.

        The waiter is handed over here because another thread may receive the answer before this
        call has returned. Raises EncodeError, FrameTooLargeError (over the peer's limit) or
        ConnectionLostError, with nothing sent.
        """
        with self._lock:
            request_id = self._next_id
            self._next_id = 0 if request_id == MAX_ID else request_id + 1
        payload = self._payload([REQUEST, request_id, method, params], params)
        with self._lock:
            if self._closed:
                raise ConnectionLostError(
                    "the connection has ended: make a new one", retryable=True
                )
            self._outgoing[request_id] = waiter
            self._queue(payload)
        return request_id

    def send_result(
        self, request: Request, result: Any, *, error_data: dict[str, Any] | None = None
    ) -> bool:
        """Answers a request. False where it was answered before: nothing is sent then.

        A result that cannot be sent (no form on the wire, too large for the peer) becomes the
        error that says so, with `error_data` in its data: its request is answered all the same.
        """
        try:
            payload = self._payload([RESPONSE, request.id, None, result], result)
        except EncodeError as error:
            failed: DSPexError = InternalError(f"the result cannot be sent: {error}")
        except FrameTooLargeError as error:
            failed = error
        else:
            return self._send_answer(request, payload)
        failed.data = {**failed.data, **(error_data or {})}
        return self.send_error(request, failed)

    def send_at_once(self, request: Request, result: dict[str, Any], content: Any) -> None:
        """Answers a request that `events` asks about, before there is an event. Of the values of
        the result only `content` is from elsewhere. Raises EncodeError or FrameTooLargeError, with
        nothing sent."""
        payload = self._payload([RESPONSE, request.id, None, result], content, 3)
        self._lock.acquire()  # here and in data_to_send: `with` takes twice as long
        try:
            self._queue(payload)
        finally:
            self._lock.release()

    def send_error(self, request: Request, error: DSPexError) -> bool:
        """Answers a request with an error. False where it was answered before."""
        try:
            wire_error = error.to_wire()
            payload = self._payload([RESPONSE, request.id, wire_error, None], wire_error)
        except (EncodeError, FrameTooLargeError):
            # An error's data may quote anything; its code and a cut message always fit.
            message = sendable(error.message[:_CUT_MESSAGE_CHARS])
            cut = {**error.to_wire(), "message": message, "data": {}}
            payload = self._payload([RESPONSE, request.id, cut, None], cut)
        return self._send_answer(request, payload)

    def send_notification(
        self, method: str, params: dict[str, Any], *, about: Request | None = None
    ) -> bool:
        """Queues a notification. One `about` a request is dropped (False) once it is answered.

        Raises EncodeError or FrameTooLargeError, with nothing sent.
        """
        payload = self._payload([NOTIFICATION, method, params], params)
        with self._lock:
            if self._closed or (about is not None and self._incoming.get(about.id) is not about):
                return False
            self._queue(payload)
        return True

    def text_notifications(
        self, method: str, params: dict[str, Any], name: str, *, about: Request
    ) -> Callable[[str], bool]:
        """Queues one for each text that it is then given, as `send_notification` does, with the
        text as `name` beside `params`, which are encoded once. Of the text half a character goes
        as '?'.
        """
        # The text comes last, and an empty one is one byte.
        head = encode([NOTIFICATION, method, {**params, name: ""}])[:-1]

        def send(text: str) -> bool:
            payload = self._within_limit(head + encode_text(text))
            with self._lock:
                if self._closed or self._incoming.get(about.id) is not about:
                    return False
                self._queue(payload)
            return True

        return send

    def offer_notification(self, method: str, params: dict[str, Any]) -> bool:
        """Queues a notification, or says False where that would have to wait.

        For what may be said at any moment, by a thread that is in the middle of one of these
        methods, too: a finalizer that a collection runs there, and that logs.
        """
        payload = self._payload([NOTIFICATION, method, params], params)
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if not self._closed:
                self._queue(payload)
        finally:
            self._lock.release()
        return True

    def give_up(self, request_id: int) -> bool:
        """Gives up a request of our own: its answer is dropped. False where it has ended before."""
        with self._lock:
            if request_id not in self._outgoing:
                return False
            del self._outgoing[request_id]
            self._given_up.add(request_id)
        return True

    def is_open(self, request: Request) -> bool:
        """Whether a request that came in is still unanswered."""
        return self._incoming.get(request.id) is request

    def data_to_send(self, enough: int | None = None) -> bytes:
        """Everything queued, in order; the queue is empty afterwards.

        Where that is more than `enough` bytes, only what comes first: so many messages that they
        are no more than that, or a single one, of which no copy is made.
        """
        self._lock.acquire()
        try:
            if enough is None or self.queued_bytes <= enough:
                out, self._out = self._out, []
                self.queued_bytes = 0
            else:
                size = count = 0
                for waiting in self._out:
                    if count and size + len(waiting) > enough:
                        break
                    size += len(waiting)
                    count += 1
                out = self._out[:count]
                del self._out[:count]
                self.queued_bytes -= size
        finally:
            self._lock.release()
        return out[0] if len(out) == 1 else b"".join(out)

    def _send_answer(self, request: Request, payload: bytes) -> bool:
        with self._lock:
            if self._incoming.get(request.id) is not request:
                return False
            del self._incoming[request.id]
            self._queue(payload)
        return True

    def _payload(self, message: list[Any], content: Any, depth: int = 2) -> bytes:
        return self._within_limit(encode_around(message, content, depth))

    def _within_limit(self, payload: bytes) -> bytes:
        limit = self._peer_max_frame_bytes
        if len(payload) > limit:
            raise FrameTooLargeError(
                f"a frame of {len(payload)} bytes is over the peer's limit of {limit}",
                data={"size": len(payload), "limit": limit},
            )
        return payload

    def _queue(self, payload: bytes) -> None:
        size = len(payload)
        if size > _COPIED_BYTES:
            self._out += (prefix(size), payload)
        else:
            self._out.append(prefix(size) + payload)
        self.queued_bytes += PREFIX_BYTES + size
