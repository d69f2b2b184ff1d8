"""A link: one socket, the session that rides on it, and the owner that both serve.

    bytes in    engine.tick -> readable -> session.receive -> owner.received -> session.conclude
    bytes out   session.out -> flush -> socket, and where the kernel takes no more, `unsent` until `writable`

What is sent while input is served is corked and leaves in one write, when those that are ready together have been
served. A link that ends does so in one of three ways: `finish` (what waits is sent first), `abort` (at once), or the
peer does it.

The owner may let go of its link, and of itself, while it is called: compiled, an attribute that is called is not held.
So it is put into a variable first, which is.
"""

# Over 600 lines: how bytes come, how they go, and how it ends are one state.

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..wire import leaves
from ..wire.errors import Who
from ..wire.extensions import Extension, Payload
from ..wire.opcodes import CLOSED, CLOSING, CONNECTING
from ..wire.session import Session
from . import calls
from .poller import READ, WRITE
from .shares import BUFFER, SMALL
from .timers import NEVER, NO_SLOT
from .tls import TLS

if TYPE_CHECKING:
    from .engine import Engine

# A peer that has over `Limits.unsent` bytes to take, and takes less than a 16th of that number within
# `Limits.unsent_for` seconds, does not read. By default that is 6.5 KB a second: a slow line does not look like it.
PROGRESS: Final = 16

# What happens to TCP once everything is sent.
STAYS: Final = 0
HALF_CLOSES: Final = 1
CLOSES: Final = 2


class Owner:
    """Who a link works for: a connection object. Called inside the tick, on the loop's own thread.

    By itself it is nobody, who does not listen: whom a link works for once its connection is over.
    """

    __slots__ = ()

    def ready(self) -> None:
        """TCP, and TLS where it is wanted, are established: HTTP may begin."""

    def receive_opening(self, data: bytes) -> None:
        """Bytes came before the session was open."""

    def received(self) -> None:
        """There are messages in the inbox."""

    def is_behind(self) -> bool:
        """Messages wait to be taken: a verdict that came behind them has to wait, too."""
        return False

    def noticed(self) -> None:
        """The session has acknowledged pings, or is over."""

    def drained(self) -> None:
        """What waits to be sent is below `low_water` again."""

    def opening_expired(self) -> None:
        """The opening handshake took too long."""

    def ended(self, error: OSError | None) -> None:
        """TCP has ended, by this error if it was one. The last call."""


class Link:
    """See above. `open_deadline` is on the clock of `Engine.now`; a session that is open has its own deadlines."""

    __slots__ = (
        "engine sock fd _direct tls session owner slot open_deadline connecting established reading resting "
        "corked dirty shared followed unsent slow_since slow_size low_water draining ending"
    ).split()

    def __init__(
        self, engine: Engine, sock: socket.socket, session: Session, owner: Owner, open_deadline: float = NEVER
    ) -> None:
        self.engine = engine
        self.sock = sock
        self.fd = sock.fileno()
        self._direct = self.fd if type(sock) is socket.socket else -1  # for `calls`
        self.tls: TLS | None = None
        self.session = session
        self.owner = owner
        self.slot = NO_SLOT
        self.open_deadline = open_deadline
        # How far it has come.
        self.connecting = False  # TCP comes up
        self.established = True  # so is TLS, where it is wanted: HTTP may be spoken
        # Read state.
        self.reading = True  # the owner takes what comes ...
        self.resting = False  # ... but it came faster than it may
        # Write state.
        self.corked = False
        self.dirty = False
        self.shared: bytes | None = None  # a frame that many are sent; it goes before `session.out`
        self.followed = False  # by what is in `session.out`, which nobody else is going to flush
        self.unsent: bytearray | None = None
        self.slow_since = NEVER  # when too much began to wait, or the peer took a part of it last ...
        self.slow_size = 0  # ... and how much it was then
        self.low_water = 0
        self.draining = False  # the owner wants to hear of low water
        self.ending = STAYS

    def secure(self, context: ssl.SSLContext, hostname: str | None = None) -> None:
        """Speak TLS; to be called before the engine serves the link. Raises what `SSLContext.wrap_bio` does."""
        self.tls = TLS(self.sock, self._direct, context, self.session.server, hostname)
        self.established = False

    def is_closed(self) -> bool:
        """The socket is closed."""
        return self.fd < 0

    # Bytes in.

    def readable(self) -> None:
        """The socket has bytes, its end, or an error."""
        if not self.established:
            self._establish()
            return
        engine = self.engine
        session = self.session
        if session.paused:
            # Unasked, so it is a hang-up. Its bytes and its error keep until reading goes on.
            engine.unwatch(self)
            return
        if session.rest is not None:
            self._serve(0)
            return
        try:
            if session.meter is not None or self.tls is not None:
                size = self._read_some()
            else:
                size = calls.read(self.sock, self._direct, engine.buffer, engine.most)
                engine.unasked = size == engine.most  # there may be more
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        if size > 0:
            self._serve(size)
        elif not size:
            self._half_ended()

    def _serve(self, size: int) -> None:
        """Hand over what was read, or for a `size` of 0 what is left of it."""
        engine = self.engine
        session = self.session
        self.corked = True
        try:
            if session.state is not CONNECTING:
                if size:
                    session.receive(engine.buffer, size, engine.now)
                    engine.several = session.completed > 1 and size <= session.completed * SMALL
                else:
                    session.go_on()
                if session.inbox:
                    owner = self.owner
                    owner.received()
                if session.attention:
                    self.attend()
            elif not session.deaf:
                owner = self.owner
                owner.receive_opening(bytes(engine.view[:size]))
            tls = self.tls
            if session.rest is not None or (tls is not None and tls.more):
                engine.serve_again(self)
        finally:
            self.corked = False
        if self.ending or session.pacer is not None:
            self.flush()
        elif session.out:
            engine.add_reply(self)

    def _half_ended(self) -> None:
        """The peer has ended its half of TCP. What is still to be said goes to the other half first."""
        session = self.session
        self.flush()
        if session.verdict is not None:
            self.pause_reading()
        elif session.over and self.buffered():
            self.pause_reading()
            self.ending = CLOSES
        elif self.fd >= 0:
            self._ended("remote", "the peer ended TCP without a close frame")

    def open(self, extension: Extension | None = None) -> None:
        """The opening handshake succeeded, and `extension` was agreed on."""
        self.session.open(self.engine.time(), extension)
        self.engine.wheel.add(self)

    def feed(self, data: bytes) -> None:
        """These bytes came right behind the opening handshake: they belong to the session."""
        session = self.session
        if data:
            session.receive(bytearray(data), len(data), self.engine.time())
            if session.inbox:
                owner = self.owner
                owner.received()
            if session.rest is not None:
                self.engine.serve_again(self)
        if session.attention:
            self.attend()

    def attend(self) -> None:
        """See to what is more than messages: a verdict, pongs, the end."""
        session = self.session
        if self.fd < 0:
            return
        now = self.engine.time()
        owner = self.owner
        if session.verdict is not None and session.state is not CLOSING and owner.is_behind():
            session.hold(now)
            self.engine.wheel.add(self)
        else:
            session.conclude(now)
        session.attention = False
        if session.state is CLOSING:
            self.engine.wheel.add(self)
            if self.resting:  # the peer's close frame must not wait
                self.resting = False
                self._set_paused()
            if session.over and self.ending is STAYS:
                # Section 7.1.1: the server ends TCP first, the client waits for it. After a failure the peer may still
                # be sending; closing now would reset the connection and lose our close frame.
                if session.failure is not None:
                    self.ending = HALF_CLOSES
                elif session.server:
                    self.ending = CLOSES
        elif session.resume_at > now and not self.resting:
            self.resting = True
            self._set_paused()
            self.engine.wheel.add(self)
        owner.noticed()

    def pause_reading(self) -> None:
        """Stop reading: too much waits for the owner."""
        if self.reading:
            self.reading = False
            self._set_paused()

    def resume_reading(self) -> None:
        if not self.reading and self.fd >= 0:
            self.reading = True
            self._set_paused()

    def _set_paused(self) -> None:
        session = self.session
        before = session.paused
        session.paused = self.resting or not self.reading
        if session.paused is not before:
            self._watch()
            if before and (self.tls is not None or session.rest is not None):
                self.engine.serve_again(self)

    def _watch(self) -> None:
        if self.fd >= 0:
            self.engine.watch(self, self.events())

    def events(self) -> int:
        """What the socket is to be watched for."""
        # Where TLS wants the one, the other may be ready all the time, and of no use.
        tls = self.tls
        wants_read, wants_write = (False, False) if tls is None else (tls.wants_read, tls.wants_write)
        reads = not self.session.paused and not self.connecting and not wants_write
        writes = wants_write or self.connecting or (self.unsent is not None and not wants_read)
        return (READ if reads else 0) | (WRITE if writes else 0)

    # Bytes out.

    def touch(self) -> None:
        """There is something in `session.out`: it leaves at the end of this iteration of the loop."""
        if not self.dirty and not self.corked and self.fd >= 0:
            self.dirty = True
            self.engine.add_dirty(self)

    def flush(self) -> None:
        """Write what the session has to say, as far as the peer wants it now and the kernel takes it."""
        session = self.session
        waited = 0
        if self.unsent is None and self.established:
            if session.pacer is not None:
                waited = session.waiting
                session.pace(self.engine.time())
                self.engine.wheel.add(self)
            out = session.out
            if self.shared is not None:
                out[:0] = self.shared
                self.shared = None
                self.followed = False
            if out:
                try:
                    sent = self._write(out)
                except OSError as error:
                    self._lost(error)
                    return
                if sent == len(out):
                    leaves.empty(out)
                else:
                    del out[:sent]
                    self.unsent = out
                    session.out = bytearray()
                    session.blocked = True
                    self._watch()
            if self.ending and self.unsent is None and not session.waiting:
                self._end()
        if self.unsent is not None or session.pacer is not None:
            self._check_slow()
            if session.waiting < waited:
                self._check_drained()

    def send_shared(self, first: int, payload: Payload, frame: bytes) -> None:
        """As `session.send_shared`; it leaves soon, but others are served meanwhile. Raises as that does.

        Where nothing waits, the frame is not copied. Whatever is said before it leaves goes behind it.
        """
        session = self.session
        if self.shared is None and self.unsent is None and session.say_shared(first):
            self.shared = frame
            self.engine.add_told(self)
        else:
            session.send_shared(first, payload, frame)
            if self.shared is None:
                self.touch()
            else:
                self.followed = True

    def write_shared(self) -> None:
        """Write the shared frame, if it has not left yet, without a look at anything else of the connection."""
        shared = self.shared
        if shared is None:
            return
        sent = 0
        if self.tls is None:
            try:
                sent = calls.write(self.sock, self._direct, shared)
            except OSError as error:
                self._lost(error)
                return
        if sent == len(shared) and not self.followed:
            self.shared = None
        else:
            self.followed = False
            self.shared = shared[sent:]
            self.flush()

    def flush_with(self, payload: bytes | bytearray | memoryview) -> None:
        """Write what the session has to say and, behind it, a payload, which is copied only if it has to wait."""
        if self.shared is not None:
            self.flush()
            if self.fd < 0:
                return
        out = self.session.out
        sent = 0
        if self.unsent is None and self.established and self.tls is None:
            try:
                sent = calls.write_both(self.sock, self._direct, out, payload)
            except OSError as error:
                self._lost(error)
                return
        head = len(out)
        if sent == head + len(payload):
            leaves.empty(out)
        else:
            out += payload
            del out[:sent]
            self.flush()

    def writable(self) -> None:
        """The socket takes bytes again."""
        if not self.established:
            self._establish()
            return
        tls = self.tls
        unsent = self.unsent
        try:
            if tls is not None and tls.wants_write and tls.flush():
                tls.wants_write = False
                self._watch()
                self.engine.serve_again(self)
            if unsent is None:
                return
            sent = self._write(unsent)
        except OSError as error:
            self._lost(error)
            return
        if sent:
            # A sign of life: the pong to a ping of ours comes after all that lies before it.
            self.session.received_at = self.engine.now
            self.session.active = True
            del unsent[:sent]
        if not unsent:
            self.unsent = None
            self.session.unblock()
            self.flush()
            if self.unsent is None and self.fd >= 0:
                self._watch()
        self._check_slow()
        self._check_drained()

    def _check_drained(self) -> None:
        if self.draining and self.buffered() <= self.low_water:
            self.draining = False
            owner = self.owner
            owner.drained()

    def _check_slow(self) -> None:
        """Note since when more than `limits.unsent` waits for the peer, and it takes next to nothing of it."""
        waiting = self.buffered()
        most = self.session.limits.unsent
        if most is None or waiting <= most:
            self.slow_since = NEVER
        elif self.slow_since == NEVER or waiting <= self.slow_size - most / PROGRESS:
            self.slow_since = self.engine.time()
            self.slow_size = waiting
            self.engine.wheel.add(self)

    def buffered(self) -> int:
        """Bytes that wait to be sent."""
        session = self.session
        waiting = len(session.out) + session.waiting
        if self.shared is not None:
            waiting += len(self.shared)
        return waiting if self.unsent is None else waiting + len(self.unsent)

    def is_blocked(self) -> bool:
        """What is sent has to wait: for the kernel, or for the rate that the peer asked for."""
        return self.unsent is not None or self.session.pacer is not None

    # TCP and TLS come up.

    def connects(self) -> None:
        """TCP is not established yet."""
        self.connecting = True
        self.established = False

    def _establish(self) -> None:
        """Go on with connecting, then with TLS's handshake."""
        try:
            if self.connecting:
                code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, f"cannot connect: {os.strerror(code)}")
                self.connecting = False
            tls = self.tls
            self.established = tls is None or tls.shake()
        except OSError as error:
            self._lost(error)
            return
        self._watch()
        if not self.established:
            return
        self.corked = True
        try:
            owner = self.owner
            owner.ready()
        finally:
            self.corked = False
        self.flush()
        if self.tls is not None and self.fd >= 0:
            self.engine.serve_again(self)  # bytes may wait inside OpenSSL already

    def _read_some(self) -> int:
        """Read into the engine's buffer, but no more than the session wants at once."""
        engine = self.engine
        meter = self.session.meter
        most = len(engine.buffer) if meter is None else meter.read_size
        tls = self.tls
        if tls is None:
            return self.sock.recv_into(engine.view[:most])
        wanted = tls.wants_read
        size = tls.read(engine, most)
        if wanted or tls.wants_write:
            self._watch()
        return size

    def _write(self, data: bytearray) -> int:
        tls = self.tls
        if tls is None:
            return calls.write(self.sock, self._direct, data)
        sent = tls.write(data)
        if tls.wants_read:
            self._watch()
        return sent

    # Time.

    def deadline(self) -> float:
        if self.session.state is CONNECTING:
            return self.open_deadline
        due = min(self.session.deadline(), self.slow_since + self.session.limits.unsent_for)
        return min(due, self.session.resume_at) if self.resting else due

    def expire(self, now: float) -> None:
        """A deadline may have passed."""
        session = self.session
        if self.fd < 0:
            return
        if session.state is CONNECTING:
            if now >= self.open_deadline:
                self.open_deadline = NEVER
                if session.deaf:
                    self.abort("remote", "the peer did not end TCP")
                else:
                    owner = self.owner
                    owner.opening_expired()
        else:
            if self.resting and now >= session.resume_at:
                self.resting = False
                self._set_paused()
            if now - self.slow_since >= session.limits.unsent_for:
                self._cut_off(now)
                return
            session.expire(now)
            if session.state is CLOSED:
                self.flush()
                self._close(None)
                return
            if session.attention:
                self.attend()
            self.flush()
            self._check_drained()
        if self.fd >= 0:
            self.engine.wheel.add(self)

    def _cut_off(self, now: float) -> None:
        """The peer does not read. A close frame would wait behind what it does not read, so there is none."""
        session = self.session
        if session.failure is None:
            session.limit = "unsent"
        past = f"{now - self.slow_since:.1f} s ago"
        self.abort("remote", f"the peer does not read: {self.buffered()} bytes wait for it, hardly fewer than {past}")

    # The end.

    def finish(self, deadline: float) -> None:
        """End TCP once what waits is sent, and the peer has had until `deadline` to end it too."""
        self.ending = HALF_CLOSES
        self.open_deadline = deadline
        self.session.deaf = True
        self.engine.wheel.add(self)
        self.touch()

    def abort(self, who: Who, detail: str, error: OSError | None = None) -> None:
        """End TCP now; what waits is lost."""
        if self.fd >= 0:
            self.session.end(who, detail)
            self._close(error)

    def _end(self) -> None:
        """Everything is sent: end TCP, or our half of it."""
        if self.ending == CLOSES and not self._has_unread():
            self._ended("local", "")
            return
        self.ending = STAYS
        try:
            if self.tls is not None:
                self.tls.end()
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lost(error)
        else:
            self.resume_reading()

    def _has_unread(self) -> bool:
        """Bytes behind the close frame: closing now would reset the connection, and might lose our own."""
        if self.tls is not None:
            return False
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:  # none yet, or none any more
            return False

    def _lost(self, error: OSError) -> None:
        """The network failed under us, or TLS did."""
        if self.tls is not None and isinstance(error, ssl.SSLError):
            # The peer learns why by TLS's alert. Bytes left unread would have the kernel reset the connection instead.
            with suppress(OSError):
                self.tls.flush()
                calls.read(self.sock, self._direct, self.engine.buffer, BUFFER)
        self.abort("network", f"network: {error}", error)

    def _ended(self, who: Who, detail: str) -> None:
        """TCP ends by a FIN."""
        if self.tls is not None:
            self.tls.end()
        self.session.end(who, detail)
        self._close(None)

    def _close(self, error: OSError | None) -> None:
        if self.fd < 0:
            return
        self.engine.forget(self)
        self.fd = -1
        self.shared = None
        self.unsent = None
        self.draining = False
        self.session.out = bytearray()  # not cleared: the traceback of `error` may hold a view of it
        self.session.pacer = None
        owner = self.owner
        owner.ended(error)
