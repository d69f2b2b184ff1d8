"""The engine: one poller for all links of a thread, served in ticks.

A host - an event loop's adapter - watches the poller's descriptor and calls `tick` when it turns readable, or when the
time it was asked for has come. One tick reads each ready socket once, into one shared buffer, and writes the answers,
some together; then it accepts, then writes what was said elsewhere meanwhile, and then looks at the clock: so bytes
that waited while the loop was blocked are seen before a peer is called silent. A link that has always been alone is
read before the poller is asked, unless something was left last time, and on while its reads are full.

Handlers run inside a tick. They may close any link, or all of them: closed links leave `links` at once, and their
descriptors are closed at the end of the tick only, so that no newcomer can get a number that still has an event in the
batch.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from ..wire.opcodes import OPEN, CloseCode
from . import calls
from .link import Link
from .poller import READ, WRITE, Poller, Watcher, make_poller, system
from .shares import ACCEPT_PAUSE, BATCH, BUFFER, LOOK, SLICE, SOLE, SPELL, TOGETHER
from .timers import NEVER, NO_SLOT, Timed, Wheel

logger = logging.getLogger("fullduplex.engine")


class Host(Protocol):
    """What an engine needs of the loop that it hangs in."""

    def attach(self, engine: Engine) -> None:
        """Call `engine.tick` whenever its poller has something ready, `engine.close` when the loop ends."""

    def detach(self, engine: Engine) -> None:
        """No more."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the loop's next iteration."""

    def wake_in(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` after so long; replaces what was asked before."""


class Acceptor:
    """A listening socket, and who takes what it accepts."""

    __slots__ = ("accepted", "engine", "fd", "resume_at", "slot", "sock")

    def __init__(self, engine: Engine, sock: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
        self.engine = engine
        self.sock = sock
        self.fd = sock.fileno()
        self.accepted = accepted
        self.slot = NO_SLOT
        self.resume_at = NEVER

    def pause(self) -> None:
        """Leave connections in the backlog for a moment."""
        self.resume_at = self.engine.now + ACCEPT_PAUSE
        self.engine.poller.unregister(self.fd)
        self.engine.wheel.add(self)

    def deadline(self) -> float:
        return self.resume_at

    def expire(self, now: float) -> None:
        if self.fd in self.engine.acceptors:
            self.engine.poller.register(self.fd, READ)
            self.resume_at = NEVER


class Engine(Watcher):
    """See above. `now` is when the current tick began, `time()` is this moment; both in seconds of `time.monotonic`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.poller: Poller = make_poller()
        is_epoll = type(self.poller) is getattr(system, "epoll", None)
        self._epoll = self.poller.fileno() if is_epoll else -1  # for `calls`
        self.links: list[Link | None] = []  # by their descriptors
        self._count = 0  # of links
        self._sole: Link | None = None  # who has been alone since it came, as a client's often is
        self.unasked = False  # the sole link likely has something: asking the poller would keep its peer waiting
        self.several = False  # small messages came in the last read
        self.most = BUFFER  # bytes to read at once from a link without TLS and without a meter
        self.acceptors: dict[int, Acceptor] = {}
        self.wheel = Wheel()
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)
        self.now = self.time()
        self.spell = SPELL
        self.closed = False
        self._ticking = False
        self._unwatched: set[int] = set()
        self._replies: list[Link] = []  # who was served, and has something to say
        self._reply_by = NEVER
        self._dirty: list[Link] = []
        self._told = bytearray()  # by descriptors: 1 for whose link was given a shared frame
        self._telling = False  # there are some
        self._tell_next = 0  # the descriptor to go on with
        self._again: set[Link] = set()
        self._graveyard: list[socket.socket] = []
        self._knocking: list[Acceptor] = []  # where there are connections to accept
        self._asked = False  # the host was asked for another tick soon
        self._wake_at = NEVER
        host.attach(self)

    def time(self) -> float:
        return calls.now() if self._epoll >= 0 else monotonic()

    def tick(self) -> None:
        """Serve every socket that is ready, then the clock."""
        if self.closed:
            return
        self.now = self.time()
        self._ticking = True
        end = self.now + self.spell
        self.most = SOLE if self.several and self._sole is not None else BUFFER
        try:
            while not self.closed:
                self._reply_by = self.now + SLICE
                sole = self._sole if self.unasked and not self._again else None
                self.unasked = False
                if sole is not None and sole.established and sole.unsent is None and not sole.session.paused:
                    self.serve(sole.fd, READ)
                    count = -1  # not asked
                else:
                    count = calls.poll(self.poller, self._epoll, BATCH, self)
                if self._replies:
                    self._reply()
                if self._again:
                    self._serve_again()
                if self._knocking:
                    self._accept_all()
                if self._dirty:
                    self._flush()
                if self._telling:
                    self._tell()
                self.now = self.time()
                if not count:
                    self.unasked = True  # the next tick is for the sole link, mostly
                    break
                if self.now >= end and (count > 0 or self.unasked):
                    self.unasked = False  # others may wait by now
                    break
                self._bury_all()
            if self.wheel.next() <= self.now:
                self._expire()
        finally:
            self._ticking = False
            self._tidy()

    def serve(self, fd: int, events: int) -> None:
        link = self.links[fd] if fd < len(self.links) else None
        if link is None:
            if fd in self.acceptors:
                self._knocking.append(self.acceptors[fd])
            return
        try:
            if events & WRITE:
                link.writable()
            if events & ~WRITE and link.fd >= 0:
                link.readable()
        except Exception as error:
            self._broken(link, error)
        if self._replies and (len(self._replies) >= TOGETHER or self.time() >= self._reply_by):
            self._reply()

    def _tidy(self) -> None:
        """Between two ticks: bury the dead, and see to what is still to do."""
        self._bury_all()
        if not self._count and not self.acceptors:
            self.close()
            return
        if self._dirty or self._telling or self._again or self._replies:
            self._ask()
        when = self.wheel.next()
        if when < self._wake_at:
            self._wake_at = when
            self.host.wake_in(max(0.0, when - self.time()), self._wake)

    def _wake(self) -> None:
        self._wake_at = NEVER
        self.tick()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self.host.call_soon(self._answer)

    def _answer(self) -> None:
        self._asked = False
        self.tick()

    def _broken(self, timed: Timed, error: Exception) -> None:
        """A mistake of ours must not stop the others."""
        logger.error("error while serving a connection", exc_info=error)
        try:
            if isinstance(timed, Link):
                timed.abort("local", "internal error")
        except Exception:
            logger.exception("error while ending a connection")

    # Links.

    def add(self, link: Link) -> None:
        """Serve `link` from now on."""
        self.poller.register(link.fd, link.events())
        more = link.fd + 1 - len(self.links)
        self.links += [None] * more
        self._told += bytes(max(0, more))
        self.links[link.fd] = link
        self._count += 1
        self._sole = link if self._count == 1 else None
        self.wheel.add(link)
        if not self._ticking:
            self._tidy()

    def connect(self, link: Link, address: object) -> None:
        """Begin to connect the link's socket; its owner hears `ready` or `ended`. None: it is connected."""
        link.connects()
        self.add(link)
        try:
            code = 0 if address is None else link.sock.connect_ex(address)  # type: ignore[arg-type]
            if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
                raise OSError(code, f"cannot connect to {address}: {os.strerror(code)}")
        except OSError as error:
            link.abort("network", "connect failed", error)

    def watch(self, link: Link, events: int) -> None:
        """Change what the link's socket is watched for."""
        if link.fd in self._unwatched:
            self._unwatched.discard(link.fd)
            self.poller.register(link.fd, events)
        else:
            self.poller.modify(link.fd, events)

    def unwatch(self, link: Link) -> None:
        """Hear nothing of the link's socket, not even its end, until it is watched again."""
        self._unwatched.add(link.fd)
        self.poller.unregister(link.fd)

    def forget(self, link: Link) -> None:
        """The link is closed."""
        self.links[link.fd] = None
        self._count -= 1
        self._sole = None
        if link.fd in self._unwatched:
            self._unwatched.discard(link.fd)
        else:
            self.poller.unregister(link.fd)
        self.wheel.remove(link)
        self._bury(link.sock)

    def _bury_all(self) -> None:
        if self._graveyard:
            graveyard, self._graveyard = self._graveyard, []
            for sock in graveyard:
                sock.close()

    def _bury(self, sock: socket.socket) -> None:
        """Close `sock`; in a tick, when nothing of it can be in what was polled."""
        self._graveyard.append(sock)
        if not self._ticking:
            self._tidy()

    def add_reply(self, link: Link) -> None:
        """Flush `link`, which was served, when those that are ready together with it have been, too."""
        self._replies.append(link)

    def add_dirty(self, link: Link) -> None:
        """Flush `link` at the end of this tick, or in the loop's next iteration."""
        self._dirty.append(link)
        if not self._ticking:
            self._ask()

    def add_told(self, link: Link) -> None:
        """Flush `link`, which has a shared frame now, when its turn comes; where there are many, after some ticks."""
        self._told[link.fd] = 1
        self._telling = True
        if not self._ticking:
            self._ask()

    def serve_again(self, link: Link) -> None:
        """Read `link` once more, whatever the poller says: OpenSSL may hold bytes that it cannot see."""
        self._again.add(link)
        if not self._ticking:
            self._ask()

    def _serve_again(self) -> None:
        again, self._again = self._again, set()
        for link in again:
            if link.fd >= 0 and not link.session.paused:
                self.serve(link.fd, READ)
        self._reply()

    def _reply(self) -> None:
        replies, self._replies = self._replies, []
        try:
            for link in replies:
                self._flush_one(link)
        except BaseException:  # ^C; once more does no harm
            self._replies += replies
            raise
        self._reply_by = self.time() + SLICE

    def _flush_one(self, link: Link) -> None:
        try:
            if link.fd >= 0:
                link.flush()
        except Exception as error:
            self._broken(link, error)

    def _flush(self) -> None:
        """Write what was said elsewhere, the first first, for a slice of time; the rest comes in the next tick."""
        dirty, self._dirty = self._dirty, []
        end = self.time() + SLICE
        count = 0
        try:
            for count, link in enumerate(dirty, 1):
                link.dirty = False
                self._flush_one(link)
                if count % LOOK == 0 and self.time() >= end:
                    break
        finally:
            self._dirty = dirty[count:] + self._dirty

    def _tell(self) -> None:
        """Write shared frames, likewise; in the order of descriptors, as what belongs to them lies in memory."""
        told = self._told
        end = self.time() + SLICE
        count = 0
        while True:
            fd = self._tell_next
            if fd >= len(told) or not told[fd]:
                fd = told.find(1, fd)
            if fd < 0:  # from the beginning again
                fd = told.find(1)
            if fd < 0:
                self._telling = False
                break
            told[fd] = 0
            self._tell_next = fd + 1
            link = self.links[fd]
            if link is not None:
                try:
                    link.write_shared()
                except Exception as error:
                    self._broken(link, error)
            count += 1
            if count % LOOK == 0 and self.time() >= end:
                break

    def _expire(self) -> None:
        for timed in self.wheel.due(self.now, self._find):
            try:
                timed.expire(self.now)
            except Exception as error:
                self._broken(timed, error)

    def _find(self, fd: int) -> Timed | None:
        """Who has this descriptor."""
        link = self.links[fd] if fd < len(self.links) else None
        return self.acceptors.get(fd) if link is None else link

    # Acceptors.

    def listen(self, acceptor: Acceptor) -> None:
        """Accept from `acceptor`, whose socket listens and does not block."""
        self.acceptors[acceptor.fd] = acceptor
        self.poller.register(acceptor.fd, READ)

    def unlisten(self, acceptor: Acceptor) -> None:
        """Accept no more; close the listening socket."""
        if self.acceptors.pop(acceptor.fd, None) is None:
            return
        if acceptor.resume_at == NEVER:
            self.poller.unregister(acceptor.fd)
        self.wheel.remove(acceptor)
        self._bury(acceptor.sock)

    def _accept_all(self) -> None:
        knocking, self._knocking = self._knocking, []
        for acceptor in knocking:
            self._accept(acceptor)

    def _accept(self, acceptor: Acceptor) -> None:
        for _ in range(BATCH):
            if acceptor.fd not in self.acceptors:
                return
            try:
                sock, _address = acceptor.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptors or no memory; or the listening socket itself has failed, and stays ready for ever.
                logger.error("cannot accept connections for %g s: %s", ACCEPT_PAUSE, error)
                acceptor.pause()
                return
            try:
                sock.setblocking(False)
                acceptor.accepted(sock)
            except Exception as error:
                logger.error("error while accepting a connection", exc_info=error)
                sock.close()

    # The end.

    def close(self) -> None:
        """Close everything. Peers of links that are still open are told so, if their sockets take it."""
        if self.closed:
            return
        self.closed = True
        self._ticking = True  # sockets are buried below, and the host is asked for nothing more
        self.host.detach(self)
        for link in filter(None, list(self.links)):
            if link.session.state is OPEN:
                link.session.pacer = None  # a goodbye cannot wait any more
                link.session.close(CloseCode.GOING_AWAY, "", self.time())
            link.flush()
            link.abort("local", "the event loop ended")
        for acceptor in list(self.acceptors.values()):
            self.unlisten(acceptor)
        self._bury_all()
        self.view.release()
        self.poller.close()
