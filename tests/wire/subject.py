"""A session under test, with a peer played by hand and a clock moved by hand."""

from __future__ import annotations

from typing import Any

from fullduplex.wire.opcodes import State
from fullduplex.wire.session import Fragment, Session
from wire.frames import KEY, Frame, frame, read_frames


class Subject:
    """The session, and what a driver does with it, a step at a time."""

    def __init__(self, server: bool, *, opened: bool = True, **settings: Any) -> None:
        self.session = Session(server, **settings)
        self.now = 1000.0
        if opened:
            self.session.open(self.now)

    def frame(self, opcode: int, payload: bytes = b"", **options: Any) -> bytes:
        """A frame as the peer of this session sends it."""
        return frame(opcode, payload, key=KEY if self.session.server else None, **options)

    def hear(self, *data: bytes) -> None:
        """These bytes come, each in a read of its own."""
        for part in data:
            self.session.receive(part, len(part), self.now)

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
        frames = list(read_frames(bytes(self.session.out)))
        self.session.out.clear()
        # Section 5.1: all of a client's frames are masked, none of a server's is.
        assert all(frame.masked is not self.session.server and not frame.rsv for frame in frames)
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


def state_of(subject: Subject) -> State:
    """A call: type checkers do not believe that an attribute changes between two lines."""
    return subject.session.state
