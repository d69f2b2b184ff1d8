"""A client's and a server's session, wired to each other in memory.

    pair = Pair()
    pair.client.session.send(TEXT_FRAME, b"hello")
    pair.run()
    assert pair.server.messages == ["hello"]
    pair.server.session.close(1000, "", pair.now)
    pair.run()
    assert pair.client.closed and pair.server.closed

Each `End` drives its session as an engine does. What networks and programs do to a connection is done to it by hand:
`run` and `deliver` move bytes (`Pair(cut=1)`: one at a time), `pass_time` and `jump` move the clock, `End.block` and
`End.pause` stop one direction, `End.reset` ends it, `Pair.dead` is a cable that was cut. With `Pair(extensions=...)`
both have the same extensions to agree on, and do.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..wire.errors import Who
from ..wire.extensions import ExtensionFactory, accept_offers, check_answer, check_factories
from ..wire.opcodes import State
from ..wire.receiver import Fragment
from ..wire.session import Session


class End:
    """One end: a session, and what stands for its socket."""

    def __init__(self, pair: Pair, session: Session) -> None:
        self._pair = pair
        self.session = session
        self.messages: list[str | bytes | Fragment] = []  # received
        self.acknowledged: list[tuple[bytes, float]] = []  # pings, and their round trips
        self.sent = bytearray()  # everything, from the beginning
        self.arriving = bytearray()  # sent by the peer, and not received yet
        self.closed = False  # TCP has ended here
        self._reading = True  # nobody has paused us ...
        self._resting = False  # ... but what comes came faster than it may
        self._ending = False  # our half of TCP ends once everything is sent
        self._finished = False  # behind what is arriving, TCP ends
        self._unsent = b""  # from before we were blocked

    @property
    def peer(self) -> End:
        pair = self._pair
        return pair.client if self is pair.server else pair.server

    def deliver(self, size: int) -> bool:
        """Receive up to `size` bytes, or the end of TCP. Tell whether there was anything to receive."""
        session = self.session
        if self.closed or session.paused or not (self.arriving or self._finished):
            return False
        if self.arriving:
            if session.meter is not None:
                size = min(size, session.meter.read_size)
            data = bytes(self.arriving[:size])
            del self.arriving[: len(data)]
            session.receive(bytearray(data), len(data), self._pair.now)
            self.attend()
            while session.rest is not None:
                session.go_on()
                self.attend()
        else:
            self._end("remote", "the peer ended TCP without a close frame")
        return True

    def attend(self) -> None:
        """Hand messages over, carry out a verdict, send what is to be sent."""
        session = self.session
        while session.inbox:
            self.messages.append(session.take())
        if session.attention:
            session.attention = False
            session.conclude(self._pair.now)
            self.acknowledged += session.acknowledged or ()
            session.acknowledged = None
            self._ending = session.over and (session.server or session.failure is not None)
            if session.resume_at > self._pair.now:
                self._resting = True
                self._set_paused()
        self.flush()

    def flush(self) -> None:
        """Send what the session has to say."""
        session = self.session
        if self.closed or session.blocked:
            return
        session.pace(self._pair.now)
        self._send(session.out)
        session.out.clear()
        if self._ending and not session.waiting:
            if session.failure is None:
                self._end("local", "")
            else:
                self._finish()

    def _send(self, data: bytes | bytearray) -> None:
        self.sent += data
        if not self._pair.dead and not self.peer.closed:
            self.peer.arriving += data

    def _finish(self) -> None:
        if not self._pair.dead:
            self.peer._finished = True

    def block(self) -> None:
        """From now on nothing can be written."""
        if not self.session.blocked:
            self.session.blocked = True
            self._unsent, self.session.out = bytes(self.session.out), bytearray()

    def unblock(self) -> None:
        """It can be written again."""
        if self.session.blocked:
            self.session.unblock()
            if not self.closed:
                self._send(self._unsent)
                self.flush()

    def pause(self) -> None:
        """From now on nothing is read."""
        self._reading = False
        self._set_paused()

    def resume(self) -> None:
        """It is read again, as soon as the limits of the session allow it."""
        self._reading = True
        self._set_paused()

    def _set_paused(self) -> None:
        self.session.paused = self._resting or not self._reading

    def deadline(self) -> float:
        """When `expire` wants to be called; infinity for never."""
        due = self.session.deadline()
        return min(due, self.session.resume_at) if self._resting else due

    def expire(self) -> None:
        """Look at the clock."""
        if self._resting and self._pair.now >= self.session.resume_at:
            self._resting = False
            self._set_paused()
        self.session.expire(self._pair.now)
        if self.session.state is State.CLOSED:
            self._close()
        else:
            self.attend()

    def reset(self, detail: str = "reset") -> None:
        """The network fails: at once here, and behind what is on its way there."""
        self._end("network", detail)

    def _end(self, who: Who, detail: str) -> None:
        self.session.end(who, detail)
        self._close()

    def _close(self) -> None:
        if not self.closed:
            self._ending = False
            self.flush()
            self.closed = True
            self.arriving.clear()
            self._finish()


class Pair:
    """Both ends, open, and the clock of both.

    `cut` is how many bytes are received at a time. `extensions` is what both are willing to agree on, as for `serve`.
    Raises TypeError and ValueError for extensions that could not work.
    """

    def __init__(
        self,
        client: Session | None = None,
        server: Session | None = None,
        *,
        cut: int = 65_536,
        extensions: Iterable[ExtensionFactory] = (),
    ) -> None:
        self.now = 0.0
        self.cut = cut
        self.dead = False  # the cable is cut: what is sent is lost, and nobody is told
        self.client = End(self, Session(False) if client is None else client)
        self.server = End(self, Session(True) if server is None else server)
        self.ends = (self.client, self.server)
        factories = check_factories(extensions)
        offers = [(factory.name, offer) for factory in factories for offer in factory.offers()]
        answer, agreed = accept_offers(factories, offers)
        self.client.session.open(self.now, check_answer(factories, answer))
        self.server.session.open(self.now, agreed)

    def run(self) -> None:
        """Move bytes until there are none to move."""
        moved = True
        while moved:
            for end in self.ends:
                end.attend()
            moved = False
            for end in self.ends:
                moved |= end.deliver(self.cut)

    def pass_time(self, seconds: float) -> None:
        """Move the clock from deadline to deadline, and the bytes at each: nothing is late."""
        until = self.now + seconds
        self.run()
        while (due := min(end.deadline() for end in self.ends)) <= until:
            self._expire(max(due, self.now))
            self.run()
        self.now = until

    def jump(self, seconds: float) -> None:
        """Move the clock at once, as for a program that was blocked so long. No byte is received."""
        self._expire(self.now + seconds)

    def _expire(self, now: float) -> None:
        self.now = now
        for end in self.ends:
            end.expire()
