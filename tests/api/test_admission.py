"""The limits of a server as a whole: who is refused, what the refused see, and that every place is given back."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clocks import use_clock
from e2e.tools import until
from fullduplex import (
    InvalidStatus,
    Listener,
    Request,
    Response,
    Server,
    ServerConnection,
    connect,
    serve,
    unix_connect,
    unix_serve,
)
from fullduplex.api import admission
from fullduplex.api.admission import IPV4_MAPPED, LOG_INTERVAL, REFUSAL_TIME, Statistics, find_place
from fullduplex.api.host import get_engine
from fullduplex.wire.limits import Limits
from peers import HOST, REQUEST, Raw, echo, port_of, raw_client, tls, url
from support import LoopFactory, asynchronous, run

BODY = b"Failed to open a WebSocket connection: too many connections.\n"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection


class Clock:
    """The engine's time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def move(self, seconds: float) -> None:
        self.now += seconds
        get_engine().tick()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    use_clock(monkeypatch, lambda: clock.now)
    return clock


async def refusal(server: Server, scheme: str = "ws", **options: Any) -> Response:
    """What the server answers instead of 101."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(url(server, scheme), **options)
    return caught.value.response


async def check_refused(server: Server, retry_after: str = "1", **options: Any) -> None:
    response = await refusal(server, **options)
    assert (response.status_code, response.body) == (503, BODY)
    headers = response.headers
    assert (headers["Retry-After"], headers["Connection"]) == (retry_after, "close")
    assert headers["Content-Length"] == str(len(BODY))
    assert "Date" in headers


async def check_closed(raw: Raw) -> None:
    """The server has said 503 and nothing else."""
    said = await raw.reader.read()
    assert said.startswith(b"HTTP/1.1 503 ")
    assert said.endswith(b"\r\n\r\n" + BODY)


def check_law(statistics: Statistics) -> None:
    """Each connection that was accepted is counted once more."""
    refused, rejected = sum(statistics.refused.values()), sum(statistics.rejected.values())
    ended = refused + rejected + statistics.abandoned
    assert statistics.accepted == statistics.handshakes + statistics.opened + ended
    assert 0 <= statistics.connections <= statistics.opened


# Each limit.


@asynchronous
async def test_connections(loop_factory: LoopFactory) -> None:
    async with serve(echo, HOST, 0, limits=Limits(connections=2)) as server:
        async with connect(url(server)) as ws:
            async with raw_client(server, b"GET") as opening:
                await until(lambda: server.statistics().handshakes)
                await check_refused(server)
                await ws.send("those inside are served")
                assert await ws.recv() == "those inside are served"
                opening.reset()
            await until(lambda: not server.statistics().handshakes)
            async with connect(url(server)):
                await check_refused(server)
        await until(lambda: not server.connections)
        async with connect(url(server)), connect(url(server)):
            assert server.statistics() == Statistics(
                accepted=7,
                handshakes=0,
                opened=4,
                connections=2,
                refused={"connections": 2},
                rejected={},
                abandoned=1,
                timed_out=0,
                closed={},
                dropped=0,
            )


@asynchronous
async def test_connections_of_an_address() -> None:
    async with serve(echo, HOST, 0, limits=Limits(connections_per_address=1)) as server:
        async with connect(url(server)), connect(url(server), local_addr=("127.0.0.2", 0)):
            await check_refused(server)
            await check_refused(server, local_addr=("127.0.0.2", 0))
            assert server.statistics().refused == {"connections_per_address": 2}
        await until(lambda: not server.connections)
        async with connect(url(server)):
            pass


@asynchronous
async def test_unix_sockets_have_no_address(tmp_path: Any) -> None:
    path = tmp_path / "socket"
    limits = Limits(connections_per_address=1, connections=2)
    async with unix_serve(echo, path, limits=limits) as server, unix_connect(path), unix_connect(path):
        with pytest.raises(InvalidStatus):
            await unix_connect(path)
        assert server.statistics().refused == {"connections": 1}


@asynchronous
async def test_handshakes() -> None:
    async with serve(echo, HOST, 0, limits=Limits(handshakes=1)) as server, connect(url(server)) as ws:
        async with raw_client(server, b"GET / HTTP/1.1\r\n") as slow:
            await until(lambda: server.statistics().handshakes)
            async with raw_client(server) as raw:
                await check_closed(raw)
                assert not server.admission.refusals  # the least effort
            await (await ws.ping())
            slow.write(REQUEST[16:])
            assert (await slow.head()).startswith(b"HTTP/1.1 101 ")
        async with connect(url(server)):
            assert server.statistics().refused == {"handshakes": 1}


@pytest.mark.parametrize(("rate", "first", "retry_after"), [(2.0, 2, "1"), (0.125, 1, "8")])
@asynchronous
async def test_handshakes_a_second(rate: float, first: int, retry_after: str, clock: Clock) -> None:
    limits = Limits(handshakes_per_second=rate, connections_per_address=first + 1)
    async with serve(echo, HOST, 0, limits=limits) as server, AsyncExitStack() as stack:
        for _ in range(first):
            await stack.enter_async_context(connect(url(server)))
        clock.move(0.25)
        await check_refused(server, retry_after)  # in whole seconds, and not too early
        clock.move(1 / rate)
        await stack.enter_async_context(connect(url(server)))
        await check_refused(server)  # by its address, and that costs nobody a token
        assert server.statistics().refused == {"handshakes_per_second": 1, "connections_per_address": 1}


@asynchronous
async def test_no_limits() -> None:
    limits = Limits(connections=None, handshakes=None)
    async with serve(echo, HOST, 0, limits=limits) as server, connect(url(server)), connect(url(server)):
        assert not server.statistics().refused


class Peer:
    """A socket as far as it is asked for its peer's address."""

    def __init__(self, family: socket.AddressFamily, host: str) -> None:
        self.family = family
        self.host = host

    def getpeername(self) -> tuple[str, int]:
        return self.host, 12345


def place(host: str) -> bytes:
    peer: Any = Peer(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    return find_place(peer)


def test_an_address_of_ipv6_is_a_network_of_64_bits() -> None:
    assert place("2001:db8::1") == place("2001:db8:0:0:ffff::2") == bytes.fromhex("20010db8 00000000")
    assert len({place(host) for host in ("2001:db8::1", "2001:db8:0:1::1", "::1", "192.0.2.1", "192.0.2.2")}) == 5


def test_an_address_of_ipv4_is_one_however_it_came() -> None:
    """A socket that serves both families names it so; all of IPv4 would else be one network."""
    assert place("::ffff:192.0.2.1") == place("192.0.2.1") == bytes([192, 0, 2, 1])
    assert len(IPV4_MAPPED) == 12


# What the refused see.


@asynchronous
async def test_nothing_of_the_program_runs_for_the_refused(loop_factory: LoopFactory) -> None:
    calls = []

    class Calls(Listener):
        def on_open(self, ws: Any) -> None:
            calls.append("listener")

    class Counted(ServerConnection):
        def __init__(self, *args: Any) -> None:
            calls.append("connection")
            super().__init__(*args)

    def process_request(ws: ServerConnection, request: Request) -> None:
        calls.append("process_request")

    options: dict[str, Any] = {"create_connection": Counted, "process_request": process_request}
    limits = Limits(connections=1)
    async with serve(None, HOST, 0, listener=Calls, limits=limits, **options) as server, connect(url(server)):
        assert calls == ["connection", "process_request", "listener"]
        await check_refused(server)
        assert len(calls) == 3
        assert len(server.connections) == server.statistics().connections == 1


@asynchronous
async def test_the_answer_does_not_wait_for_the_request() -> None:
    """And is there still when that comes: left unread, it would have the kernel reset the connection."""
    async with full_server() as server, raw_client(server, b"") as raw:
        await check_closed(raw)
        raw.write(REQUEST)
        raw.write(REQUEST)
        await raw.writer.drain()
        assert await raw.reader.read() == b""
        raw.writer.write_eof()
        await until(lambda: not server.admission.refusals)


@asynccontextmanager
async def full_server(**options: Any) -> AsyncIterator[Server]:
    """One that has the only connection it takes, a client that says nothing."""
    async with serve(echo, HOST, 0, limits=Limits(connections=1), **options) as server, raw_client(server, b""):
        await until(lambda: server.statistics().handshakes)
        yield server


@asynchronous
async def test_tls_comes_first(loop_factory: LoopFactory) -> None:
    server_context, client_context = tls()
    async with full_server(ssl=server_context) as server:
        await check_refused(server, scheme="wss", ssl=client_context)
        await until(lambda: not server.admission.refusals)


@asynchronous
async def test_tls_that_fails_or_never_comes(clock: Clock) -> None:
    server_context, _ = tls()
    async with full_server(ssl=server_context, open_timeout=None) as server:
        async with raw_client(server) as raw:  # no TLS
            await raw.reader.read()
            assert not server.admission.refusals
        async with raw_client(server, b"") as raw:
            await until(lambda: server.admission.refusals)
            clock.move(REFUSAL_TIME + 1)
            assert await raw.reader.read() == b""
            assert not server.admission.refusals


@asynchronous
async def test_a_client_that_does_not_leave(clock: Clock) -> None:
    async with full_server(open_timeout=None) as server, raw_client(server) as raw:
        await check_closed(raw)
        clock.move(REFUSAL_TIME - 1)
        assert server.admission.refusals
        clock.move(2)
        assert not server.admission.refusals


@pytest.mark.parametrize("secure", [False, True])
@asynchronous
async def test_refusals_are_bounded(secure: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many under way, and so many a second."""
    monkeypatch.setattr(admission, "REFUSALS", 2)
    server_context, _ = tls()

    async def see(raw: Raw) -> None:
        """All that a client without TLS can see of the least effort."""
        if secure:
            assert await raw.reader.read() == b""
        else:
            await check_closed(raw)

    async with full_server(open_timeout=None, ssl=server_context if secure else None) as server:
        refusals = server.admission.refusals
        async with raw_client(server, b""):
            await until(lambda: len(refusals) == 1)
            async with raw_client(server, b""):
                await until(lambda: len(refusals) == 2)
                clock.move(1)
                async with raw_client(server, b"") as raw:
                    await see(raw)  # two are under way
                assert len(refusals) == 2
        await until(lambda: not refusals)
        for _ in range(2):
            async with raw_client(server, b""):
                await until(lambda: refusals)
            await until(lambda: not refusals)
        async with raw_client(server, b"") as raw:
            await see(raw)  # two have begun in this second
            assert not refusals
        clock.move(1)
        async with raw_client(server, b""):
            await until(lambda: refusals)
        assert server.statistics().refused == {"connections": 7}


@asynchronous
async def test_the_least_effort_reads_a_request_that_is_there() -> None:
    """Else the kernel would reset the connection."""
    async with serve(echo, HOST, 0, limits=Limits(handshakes=1)) as server, raw_client(server, b""):
        await until(lambda: server.statistics().handshakes)
        with socket.create_connection((HOST, port_of(server))) as sock:
            sock.sendall(REQUEST)
            await until(lambda: server.statistics().refused)
            said = sock.recv(65536)
            assert said.endswith(BODY)
            assert sock.recv(65536) == b""


def vanish(server: Server) -> None:
    """A client that has reset its connection before the server accepts it."""
    with socket.create_connection((HOST, port_of(server))) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@pytest.mark.parametrize(
    ("limits", "fate"),
    [
        (Limits(handshakes=1), {"refused": {"handshakes": 1}}),
        (Limits(connections=1), {"refused": {"connections": 1}}),
        (Limits(connections=2), {"abandoned": 1}),
        (Limits(connections_per_address=2), {"abandoned": 1}),
    ],
)
@asynchronous
async def test_a_client_that_has_left_already(limits: Limits, fate: dict[str, Any]) -> None:
    async with serve(echo, HOST, 0, limits=limits) as server, raw_client(server, b""):
        await until(lambda: server.statistics().handshakes)
        vanish(server)
        await until(lambda: server.statistics().accepted == 2)
        await until(lambda: server.statistics().handshakes == 1 and not server.admission.refusals)
        for name, count in fate.items():
            assert getattr(server.statistics(), name) == count
        check_law(server.statistics())


@pytest.mark.parametrize("secure", [False, True])
@asynchronous
async def test_the_server_closes(secure: bool) -> None:
    server_context, _ = tls()
    async with full_server(ssl=server_context if secure else None) as server, raw_client(server, b"") as raw:
        await until(lambda: server.admission.refusals)
        server.close()
        assert not server.admission.refusals
        if secure:
            assert await raw.reader.read() == b""
        else:
            await check_closed(raw)


# Counts. What may become of a connection, and what must come out whatever becomes of many.

Fate = Callable[[Server, AsyncExitStack], Any]


async def fate_open(server: Server, stack: AsyncExitStack) -> None:
    """Or be refused."""
    with suppress(InvalidStatus):
        await stack.enter_async_context(connect(url(server)))


async def fate_close(server: Server, stack: AsyncExitStack) -> None:
    await stack.aclose()


async def fate_reset(server: Server, stack: AsyncExitStack) -> None:
    for ws in list(server.connections)[:1]:
        ws.link.abort("network", "as the engine does")


async def fate_vanish(server: Server, stack: AsyncExitStack) -> None:
    vanish(server)


async def fate_half(server: Server, stack: AsyncExitStack) -> None:
    await stack.enter_async_context(raw_client(server, b"GET / HTTP/1.1\r\n"))


async def fate_expire(server: Server, stack: AsyncExitStack) -> None:
    for ws in list(server._opening)[:1]:
        if ws.response is None:
            ws.opening_expired()


async def fate_reject(server: Server, stack: AsyncExitStack) -> None:
    async with raw_client(server, REQUEST.replace(b"GET /", b"GET /404")) as raw:
        assert (await raw.head())[9:12] in (b"404", b"503")


async def fate_mistake(server: Server, stack: AsyncExitStack) -> None:
    async with raw_client(server, b"POST / HTTP/1.1\r\n\r\n") as raw:
        await raw.head()


async def fate_fail(server: Server, stack: AsyncExitStack) -> None:
    """There is no object for it."""
    make, server._create_connection = server._create_connection, Fails
    accepted = server.statistics().accepted
    async with raw_client(server, b""):
        await until(lambda: server.statistics().accepted > accepted)
    server._create_connection = make


class Fails(ServerConnection):
    def __init__(self, *args: Any) -> None:
        raise ValueError("a mistake")


FATES: list[Fate] = [
    fate_open,
    fate_close,
    fate_reset,
    fate_vanish,
    fate_half,
    fate_expire,
    fate_reject,
    fate_mistake,
    fate_fail,
]

SILENT = logging.getLogger("test_admission")
SILENT.disabled = True


@given(st.lists(st.sampled_from(FATES), max_size=12), st.sampled_from(["close", "leave"]))
def test_every_place_is_given_back(fates: list[Fate], end: str) -> None:
    def process_request(ws: ServerConnection, request: Request) -> Response | None:
        return ws.respond(404, "") if request.path == "/404" else None

    async def live() -> None:
        limits = Limits(connections=3, connections_per_address=2, handshakes=2)
        server = serve(echo, HOST, 0, process_request=process_request, limits=limits, logger=SILENT)
        async with server, AsyncExitStack() as stack:
            for fate in fates:
                await fate(server, stack)
                check_law(server.statistics())
            if end == "leave":
                await stack.aclose()
                await until(lambda: not server._opening and not server._connections)
                async with connect(url(server)), connect(url(server)):  # there is room for all again
                    check_law(server.statistics())
                    assert server.statistics().connections == 2
            server.close()
            await stack.aclose()
        statistics = server.statistics()
        check_law(statistics)
        assert statistics.handshakes == statistics.connections == 0
        assert not server.admission._places
        assert not server.admission.refusals

    run(live())


@asynchronous
async def test_rejections_are_counted_by_status() -> None:
    async with serve(echo, HOST, 0, origins=["https://example.com"]) as server:
        assert (await refusal(server)).status_code == 403
        async with raw_client(server, b"POST / HTTP/1.1\r\nHost: x\r\n\r\n") as raw:
            await raw.head()
        async with raw_client(server, b"GET") as raw:
            await until(lambda: any(ws.response is None for ws in server._opening))
            (ws,) = (ws for ws in server._opening if ws.response is None)
            ws.opening_expired()
            await raw.head()
        await until(lambda: not server.statistics().handshakes)
        rejected = server.statistics().rejected
        assert rejected == {403: 1, 405: 1, 408: 1}
        assert {type(status) for status in rejected} == {int}
        check_law(server.statistics())


@asynchronous
async def test_those_that_a_limit_of_their_own_ends() -> None:
    async with serve(echo, HOST, 0, limits=Limits(fragments=2)) as server:
        async with connect(url(server)) as ws:
            await ws.send(["a", "b", "c"])
            await ws.wait_closed()
            assert ws.close_code == 1009
        async with connect(url(server)):
            pass
        await until(lambda: not server.connections)
        assert server.statistics().closed == {"fragments": 1}
        check_law(server.statistics())


@asynchronous
async def test_messages_that_slow_peers_have_missed() -> None:
    async def handler(ws: ServerConnection) -> None:
        async for count in ws:
            ws.make_backlog().dropped = int(count)

    async with serve(handler, HOST, 0) as server:
        async with connect(url(server)) as first, connect(url(server)) as second, connect(url(server)):
            await first.send("2")
            await second.send("3")
            await until(lambda: server.statistics().dropped == 5)
            await first.close()
            await until(lambda: server.statistics().connections == 2)
            assert server.statistics().dropped == 5
        await until(lambda: not server.connections)
        assert server.statistics().dropped == 5


@asynchronous
async def test_statistics_are_of_their_moment() -> None:
    async with serve(echo, HOST, 0, limits=Limits(connections=1)) as server, connect(url(server)):
        before = server.statistics()
        await check_refused(server)
        assert not before.refused
        assert server.statistics().refused == {"connections": 1}


# Logging.


@pytest.mark.parametrize(
    ("limits", "level", "line"),
    [
        (Limits(connections=1), logging.WARNING, "refused, over connections=1: %d connections so far"),
        (
            Limits(connections_per_address=1),
            logging.INFO,
            "refused, over connections_per_address=1: %d connections so far",
        ),
    ],
)
@asynchronous
async def test_a_flood_of_connections_is_none_of_lines(
    limits: Limits, level: int, line: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serve(echo, HOST, 0, limits=limits, open_timeout=None) as server, raw_client(server, b""):
        await until(lambda: server.statistics().handshakes)
        caplog.clear()
        for _ in range(3):
            await check_refused(server)
        clock.move(LOG_INTERVAL)
        for _ in range(2):
            await check_refused(server)
        said = [(record.levelno, record.getMessage()) for record in caplog.records if "refused" in record.msg]
        assert said == [(level, line % 1), (level, line % 4)]
