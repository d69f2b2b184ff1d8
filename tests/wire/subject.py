"""A session under test, with a peer played by hand and a clock moved by hand; and extensions to test it with."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

from fullduplex.wire.errors import ConnectionClosedError, PayloadTooBig, ProtocolError
from fullduplex.wire.extensions import RSV1, Extension, ExtensionFactory, Parameters, Payload
from fullduplex.wire.opcodes import FIN, OPCODE, Close, CloseCode, State
from fullduplex.wire.receiver import Fragment
from fullduplex.wire.session import Session
from wire.frames import CLOSE, KEY, PING, TEXT, Frame, close_payload, frame, read_frames


class Subject:
    """The session, and what a driver does with it, a step at a time."""

    def __init__(
        self,
        server: bool,
        *,
        opened: bool = True,
        extension: Extension | None = None,
        now: float = 1000.0,
        **settings: Any,
    ) -> None:
        self.session = Session(server, **settings)
        self.now = now
        if opened:
            self.session.open(self.now, extension)

    def frame(self, opcode: int, payload: bytes = b"", **options: Any) -> bytes:
        """A frame as the peer of this session sends it."""
        return frame(opcode, payload, key=KEY if self.session.server else None, **options)

    def hear(self, *data: bytes | bytearray) -> None:
        """These bytes come, each in a read of its own."""
        for part in data:
            self.session.receive(part if isinstance(part, bytearray) else bytearray(part), len(part), self.now)

    def hear_bytewise(self, data: bytes) -> None:
        for i in range(len(data)):
            self.hear(data[i : i + 1])

    def take(self) -> list[str | bytes | tuple[str | bytes, bool]]:
        """The messages that came; a fragment is shown with its `fin`."""
        taken = []
        while self.session.inbox:
            item = self.session.take()
            taken.append((item.data, item.fin) if isinstance(item, Fragment) else item)
        assert self.session.inbox_size == self.session.inbox_head == 0
        return taken

    def said(self) -> list[tuple[int, bytes]]:
        """What left since the last call, as (opcode, payload) of unfragmented frames."""
        frames = self.said_frames()
        assert all(frame.fin for frame in frames)
        return [(frame.opcode, frame.payload) for frame in frames]

    def said_frames(self) -> list[Frame]:
        """What left since the last call. Section 5.1: all of a client's frames are masked, none of a server's is."""
        self.session.pace(self.now)
        frames = list(read_frames(bytes(self.session.out)))
        self.session.out.clear()
        extension = self.session.extension
        known = 0 if extension is None else extension.rsv >> 4
        assert all(frame.masked is not self.session.server and not frame.rsv & ~known for frame in frames)
        return frames

    def conclude(self) -> list[tuple[int, bytes]]:
        """The messages are handed over: carry out the verdict, if there is one."""
        self.session.conclude(self.now)
        return self.said()

    def expire(self, now: float) -> list[tuple[int, bytes]]:
        self.now = now
        self.session.expire(now)
        assert self.session.deadline() >= now
        return self.said()


Make = Callable[..., Subject]


def state_of(subject: Subject) -> State:
    """A call: type checkers do not believe that an attribute changes between two lines."""
    return subject.session.state


def assert_failed(subject: Subject, code: int, words: str) -> None:
    """The peer broke a rule: it is told the code, the rule is known, nothing more is heard, nothing was delivered."""
    session = subject.session
    failure = session.failure
    assert failure is not None
    assert (failure.code, failure.who) == (code, "remote")
    assert words in failure.rule
    assert session.deaf
    assert session.attention
    assert state_of(subject) is State.OPEN
    assert subject.take() == []
    assert subject.said() == []
    assert subject.conclude() == [(CLOSE, close_payload(code, failure.rule))]
    assert state_of(subject) is State.CLOSING
    assert session.over
    assert (session.sent, session.rcvd) == (Close(code, failure.rule), None)
    subject.hear(subject.frame(TEXT, b"later"), subject.frame(PING), subject.frame(CLOSE))
    assert subject.conclude() == []
    assert subject.take() == []
    error = session.error()
    assert type(error) is ConnectionClosedError
    assert error.__cause__ is failure
    assert (error.who, error.detail) == ("remote", failure.rule)


def peak(action: Callable[[], object]) -> int:
    """The most memory that was in use while it ran, beyond what was before. Needs the fixture `traced`."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    action()
    return tracemalloc.get_traced_memory()[1] - before


# Extensions.


class Spy(Extension):
    """Changes nothing, and notes what it is asked to do."""

    def __init__(self, rsv: int = 0, shared: str | None = None) -> None:
        self.rsv = rsv
        self.shared = shared
        self.calls: list[tuple[Any, ...]] = []

    def noted(self) -> list[tuple[Any, ...]]:
        """The calls since the last time."""
        calls, self.calls = self.calls, []
        return calls

    def encode(self, first: int, payload: Payload, compress: bool | None) -> tuple[int, Payload]:
        self.calls.append(("encode", first, bytes(payload), compress))
        return first, payload

    def begin(self, rsv: int) -> None:
        self.calls.append(("begin", rsv))

    def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
        assert type(data) is bytes
        self.calls.append(("decode", data, complete, limit))
        return data

    def pass_shared(self, first: int) -> None:
        self.calls.append(("pass_shared", first))

    def rest(self) -> None:
        self.calls.append(("rest",))


class Wrapped(Extension):
    """Has no reserved bit: makes every message x into name(x), and needs the whole of it to undo that."""

    def __init__(self, name: str) -> None:
        self._begin = f"{name}(".encode()
        self._held = b""
        self.shared = name

    def encode(self, first: int, payload: Payload, compress: bool | None) -> tuple[int, Payload]:
        begin = self._begin if first & OPCODE else b""
        return first, begin + bytes(payload) + (b")" if first & FIN else b"")

    def begin(self, rsv: int) -> None:
        self._held = b""

    def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
        self._held += data
        if not complete:
            return b""
        if not self._held.startswith(self._begin) or not self._held.endswith(b")"):
            raise ProtocolError(CloseCode.POLICY_VIOLATION, f"a message without its {self._begin.decode()})")
        message = self._held[len(self._begin) : -1]
        if len(message) > limit:
            raise PayloadTooBig(CloseCode.MESSAGE_TOO_BIG, "over the limit")
        return message


class Doubled(Extension):
    """Marks its messages with a reserved bit: each byte comes twice, which can be undone piece by piece."""

    def __init__(self, rsv: int = RSV1) -> None:
        self.rsv = rsv
        self._doubles = False
        self._half = b""

    def encode(self, first: int, payload: Payload, compress: bool | None) -> tuple[int, Payload]:
        if first & OPCODE:
            self._doubles = compress is not False
            if self._doubles:
                first |= self.rsv
        return first, double(payload) if self._doubles else payload

    def begin(self, rsv: int) -> None:
        assert rsv & self.rsv
        self._half = b""

    def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
        data = self._half + data
        whole = len(data) & ~1
        self._half = data[whole:]
        message = data[:whole:2]
        if message != data[1:whole:2] or (complete and self._half):
            raise ProtocolError(CloseCode.INVALID_DATA, "a byte that does not come twice")
        if len(message) > limit:
            raise PayloadTooBig(CloseCode.MESSAGE_TOO_BIG, "over the limit")
        return message


def double(payload: Payload) -> bytes:
    return bytes(byte for byte in bytes(payload) for _ in range(2))


class Growing(Extension):
    """What comes in becomes a hundred times as long."""

    rsv = RSV1
    made = 0  # bytes

    def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
        if len(data) * 100 > limit:
            raise PayloadTooBig(CloseCode.MESSAGE_TOO_BIG, "over the limit")
        self.made += len(data) * 100
        return data * 100


class Made(ExtensionFactory):
    """Agrees on whatever it is given, without parameters."""

    def __init__(self, name: str, make: Callable[[], Extension]) -> None:
        self.name = name
        self._make = make

    def accept(self, offer: Parameters) -> tuple[Parameters, Extension] | None:
        return [], self._make()

    def agree(self, offer: Parameters, answer: Parameters) -> Extension:
        return self._make()


class Slow(Extension):
    """Changes nothing; the peer wants no more than so many bytes a second."""

    shared = "slow"

    def __init__(self, send_rate: float) -> None:
        self.send_rate = send_rate
