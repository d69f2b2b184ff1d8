"""An engine on a bench: its loop is turned by hand, and sockets are told what to answer where no kernel would."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from fullduplex.engine import link
from fullduplex.engine.engine import Engine
from fullduplex.engine.link import Link
from fullduplex.engine.timers import NEVER, RESOLUTION
from fullduplex.wire.extensions import Extension
from fullduplex.wire.session import Session
from wire.frames import KEY, Frame, frame, read_frames

TURNS = 200  # far beyond what anything here takes: who needs more is ready all the time, and never served
PATIENCE = 20.0  # seconds; only a hang meets them


class HandHost:
    """A loop that does nothing by itself."""

    def __init__(self) -> None:
        self.attached = False
        self.soon: list[Callable[[], None]] = []
        self.timer: tuple[float, Callable[[], None]] | None = None  # on the engine's clock

    def attach(self, engine: Engine) -> None:
        self.attached = True
        self.engine = engine

    def detach(self, engine: Engine) -> None:
        self.attached = False
        self.timer = None

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def wake_in(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timer = (self.engine.time() + seconds, callback)


class HandEngine(Engine):
    """An engine whose clock is moved by hand."""

    clock = 1000.0
    step = 0.0  # by which each look at it moves it

    def time(self) -> float:
        self.clock += self.step
        return self.clock


class Owner(link.Owner):
    """What a link tells, in order. `on` holds what to do then, by name of the call."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.on: dict[str, Callable[[], Any]] = {}
        self.behind = False
        self.link: Link
        self.peer: socket.socket

    def _hear(self, name: str, *what: Any) -> None:
        self.heard.append((name, *what) if what else name)
        if name in self.on:
            self.on[name]()

    def ready(self) -> None:
        self._hear("ready")

    def receive_opening(self, data: bytes) -> None:
        self._hear("receive_opening", data)

    def is_behind(self) -> bool:
        return self.behind

    def received(self) -> None:
        session = self.link.session
        messages = []
        while session.inbox:
            messages.append(session.take())
        self._hear("received", *messages)

    def noticed(self) -> None:
        self._hear("noticed")

    def drained(self) -> None:
        self._hear("drained")

    def opening_expired(self) -> None:
        self._hear("opening_expired")

    def ended(self, error: OSError | None) -> None:
        self._hear("ended", type(error).__name__ if error else None)

    @property
    def script(self) -> dict[str, list[Any]]:
        """What the link's socket answers."""
        assert isinstance(self.link.sock, Scripted)
        return self.link.sock.script

    # The other end of the socket.

    def say(self, *frames: tuple[int, bytes]) -> None:
        """The peer of a server's link sends these frames."""
        self.peer.sendall(b"".join(frame(opcode, payload, key=KEY) for opcode, payload in frames))

    def read(self) -> bytes:
        """All that has come to the peer so far."""
        data = b""
        while True:
            try:
                part = self.peer.recv(1 << 20)
            except (BlockingIOError, ssl.SSLWantReadError):
                return data
            if not part:
                return data
            data += part

    def read_frames(self) -> list[Frame]:
        return list(read_frames(self.read()))

    def is_eof(self) -> bool:
        """Nothing but the end of TCP has come to the peer."""
        try:
            return self.peer.recv(1) == b""
        except BlockingIOError:
            return False


class Scripted:
    """The answers of a socket, by name of the call: exceptions are raised, bytes received. Then it is a real one."""

    script: dict[str, list[Any]]

    def answer(self, name: str, otherwise: Callable[[], Any]) -> Any:
        if not self.script.get(name):
            return otherwise()
        answer = self.script[name].pop(0)
        if isinstance(answer, BaseException):
            try:
                raise answer
            finally:
                del answer  # no cycle with its own traceback: views in there would live on
        return answer


class Plain(Scripted, socket.socket):
    """A socket without TLS that can be told what to answer."""

    def __init__(self, fd: int, family: int = -1) -> None:
        super().__init__(family, fileno=fd)
        self.script = {}
        self.setblocking(False)

    def recv_into(self, buffer: Any, *args: Any) -> int:
        data = self.answer("recv_into", lambda: None)
        if data is None:
            return super().recv_into(buffer, *args)
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: Any, *args: Any) -> int:
        count: int = self.answer("send", lambda: super(Plain, self).send(data, *args))
        return count

    def shutdown(self, how: int) -> None:
        self.answer("shutdown", lambda: super(Plain, self).shutdown(how))

    def connect_ex(self, address: Any) -> int:
        code: int = self.answer("connect_ex", lambda: super(Plain, self).connect_ex(address))
        return code

    def accept(self) -> Any:
        return self.answer("accept", super().accept)


class Shaken(Scripted):
    """An OpenSSL that encrypts nothing, and answers by script: an `ssl.SSLContext` and its `ssl.SSLObject` in one.

    Its handshake is a "hello" from either side, its close_notify a "bye".
    """

    def __init__(self) -> None:
        self.script = {}
        self.incoming: ssl.MemoryBIO
        self.outgoing: ssl.MemoryBIO

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **_: object) -> Shaken:
        self.incoming, self.outgoing = incoming, outgoing
        outgoing.write(b"hello")
        return self

    def do_handshake(self) -> None:
        self.answer("do_handshake", lambda: None)
        if self.incoming.pending < 5:
            raise ssl.SSLWantReadError
        assert self.incoming.read(5) == b"hello"

    def read(self, most: int, buffer: Any) -> int:
        data: bytes = self.answer("read", lambda: self.incoming.read(most) or self.wait_for_more())[:most]
        buffer[: len(data)] = data
        return len(data)

    def wait_for_more(self) -> bytes:
        raise ssl.SSLWantReadError

    def write(self, data: Any) -> int:
        count: int = self.answer("write", lambda: len(data))
        self.outgoing.write(bytes(data[:count]))
        return count

    def unwrap(self) -> None:
        self.outgoing.write(b"bye")
        self.answer("unwrap", lambda: None)


class Bench:
    """The engine, and what is needed to have it do something."""

    def __init__(self) -> None:
        self.host = HandHost()
        self.engine = HandEngine(self.host)
        self.engine.spell = 0.0  # a tick is one batch
        self.peers: list[socket.socket] = []

    def pair(self, kind: Any = Plain) -> tuple[Any, socket.socket]:
        """A socket for a link, and its peer's."""
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        self.peers.append(peer)
        return kind(ours.detach()), peer

    def link(
        self,
        kind: Any = Plain,
        *,
        sock: Any = None,
        tls: Any = None,
        opened: bool = True,
        server: bool = True,
        open_deadline: float = NEVER,
        address: object = None,
        extension: Extension | None = None,
        **settings: Any,
    ) -> Owner:
        """A link that is served, and its owner. It is a server's, open; with an `address` it connects."""
        owner = Owner()
        if sock is None:
            sock, owner.peer = self.pair(kind)
        settings.setdefault("ping_interval", None)
        owner.link = Link(self.engine, sock, Session(server, **settings), owner, open_deadline)
        if tls is not None:
            owner.link.secure(tls)
        if opened:
            owner.link.open(extension)
        if address is None:
            self.engine.add(owner.link)
        else:
            self.engine.connect(owner.link, address)
        return owner

    def tcp(self) -> tuple[socket.socket, socket.socket]:
        """A connected pair that can be reset."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
        peer.setblocking(False)
        self.peers.append(peer)
        return Plain(ours.detach()), peer

    def tick(self) -> None:
        self.engine.tick()

    def wait(self) -> None:
        """Wait until the poller has something, then tick."""
        assert select.select([self.engine.poller], [], [], PATIENCE)[0], "nothing happens"
        self.tick()

    def settle(self) -> None:
        """Turn the loop until there is nothing to do; a poller that is ready all the time is found out."""
        for _ in range(TURNS):
            soon, self.host.soon = self.host.soon, []
            for callback in soon:
                callback()
            if self.engine.closed:
                return
            if select.select([self.engine.poller], [], [], 0)[0]:
                self.tick()
            elif not self.host.soon:
                return
        raise AssertionError("busy for ever")

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until `condition` holds."""
        while not condition():
            self.settle()
            if not condition():
                self.wait()

    def pass_time(self, seconds: float) -> None:
        """The clock moves, and the timer is called if it was set for then."""
        self.engine.clock += seconds
        if self.host.timer is not None and self.host.timer[0] <= self.engine.clock:
            callback = self.host.timer[1]
            self.host.timer = None
            callback()
        self.settle()

    def steps(self, seconds: float = 30.0) -> Iterator[float]:
        """Pass time in small steps, for a loop that ends before so many seconds have passed: gives the seconds."""
        start = self.engine.clock
        while (passed := self.engine.clock - start) < seconds:
            yield passed
            self.pass_time(RESOLUTION)
        raise AssertionError("it takes too long")

    def close(self) -> None:
        self.engine.close()
        for peer in self.peers:
            peer.close()
