"""What is measured: each group of measurements, who takes part, and what is aimed at."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from .machine import INTERPRETED, SPEED
from .measure import PEM, TOOLS, Bench, Figures, Program, Running, cpus, load, run, start, started
from .report import Column, Target, make_case

Cases = list[dict[str, Any]]

RAW, RAW_TLS, RAW_SEND, RAW_RECV = "plain TCP in C", "OpenSSL in C", "send() in C", "recv() in C"
CALLBACKS, COROUTINES = "fullduplex, callbacks", "fullduplex, coroutines"
PLAIN_CALLBACKS, PLAIN_COROUTINES = "fullduplex interpreted, callbacks", "fullduplex interpreted, coroutines"
PICOWS, PICOWS_COROUTINES = "picows, callbacks", "picows, coroutines"
LEVEL_1_CALLBACKS, LEVEL_1_COROUTINES = "fullduplex at level 1, callbacks", "fullduplex at level 1, coroutines"
SPEED_CALLBACKS, SPEED_COROUTINES = "fullduplex[speed], callbacks", "fullduplex[speed], coroutines"
UVLOOP_CALLBACKS, UVLOOP_COROUTINES = "fullduplex on uvloop, callbacks", "fullduplex on uvloop, coroutines"
WEBSOCKETS, AIOHTTP, AIOHTTP_NG, SOCKETIFY = "websockets", "aiohttp", "aiohttp on zlib-ng", "socketify"

RATES = [Column("rate", "messages/s"), Column("p99_us", "p99, µs")]
CPU = "µs CPU/message"


def python(name: str, module: str, *arguments: str) -> Program:
    """A program of servers/ or clients/."""
    command = (sys.executable, "-m", f"benchmarks.{module}", *arguments)
    environment = INTERPRETED if "interpreted" in name else SPEED if "[speed]" in name or "zlib-ng" in name else {}
    return Program(name, command, environment, is_peer=not name.startswith("fullduplex"))


ECHO = {
    program.name: program
    for program in (
        Program(RAW, (str(TOOLS / "rawecho"), "{port}")),
        Program(RAW_TLS, (str(TOOLS / "rawtls"), "{port}")),
        python(CALLBACKS, "servers.ours_callback", "{port}"),
        python(COROUTINES, "servers.ours_async", "{port}"),
        python(PLAIN_CALLBACKS, "servers.ours_callback", "{port}"),
        python(PLAIN_COROUTINES, "servers.ours_async", "{port}"),
        python(LEVEL_1_CALLBACKS, "servers.ours_callback", "{port}", "--level", "1"),
        python(LEVEL_1_COROUTINES, "servers.ours_async", "{port}", "--level", "1"),
        python(SPEED_CALLBACKS, "servers.ours_callback", "{port}"),
        python(SPEED_COROUTINES, "servers.ours_async", "{port}"),
        python(PICOWS, "servers.picows_callback", "{port}"),
        python(PICOWS_COROUTINES, "servers.picows_async", "{port}"),
        python(WEBSOCKETS, "servers.websockets_async", "{port}"),
        python(AIOHTTP, "servers.aiohttp_async", "{port}"),
        python(AIOHTTP_NG, "servers.aiohttp_async", "{port}", "--zlib-ng"),
        python(SOCKETIFY, "servers.socketify_callback", "{port}"),
    )
}
FULL_ECHO = [name for name in ECHO if not any(word in name for word in ("OpenSSL", "level", "speed", "zlib"))]
QUICK_ECHO = [RAW, CALLBACKS, COROUTINES, PLAIN_CALLBACKS, PICOWS, WEBSOCKETS]


def echo(bench: Bench) -> Cases:
    """Every message comes back. No TLS, no compression. The base is plain TCP echo: what the kernel costs."""
    return _echo(
        bench,
        QUICK_ECHO if bench.quick else FULL_ECHO,
        {
            "small": "--conns 512 --size 256",
            "pipelined": "--conns 512 --size 64 --depth 8",
            "large": "--conns 16 --size 65536",
        },
        RAW,
        lambda title: [
            Target(CALLBACKS, {"pipelined": 1.30}.get(title, 1.15), RAW),
            Target(COROUTINES, {"small": 1.45, "pipelined": 2.0, "large": 1.30}[title], RAW),
            *([Target(PLAIN_CALLBACKS, 1.0, PICOWS)] if title != "large" else []),
        ],
    )


def tls(bench: Bench) -> Cases:
    """The same over TLS 1.3, with a certificate on the curve P-256.

    "OpenSSL in C" is plain TCP in C behind OpenSSL, no WebSocket: what the kernel and OpenSSL cost.
    """
    return _echo(
        bench,
        [RAW_TLS, CALLBACKS, COROUTINES, PICOWS, PICOWS_COROUTINES, *([] if bench.quick else [WEBSOCKETS, AIOHTTP])],
        {"small": "--tls --conns 64 --size 256", "pipelined": "--tls --conns 64 --size 64 --depth 8"},
        PICOWS,
        lambda title: [Target(CALLBACKS, 0.8, PICOWS), Target(COROUTINES, 0.8, PICOWS_COROUTINES)],
        "--tls",
        str(PEM),
    )


def deflate(bench: Bench) -> Cases:
    """Echo of compressed JSON: inflated, and deflated again, with what each library has as its default.

    The load asks for no context takeover in both directions, so that each message is compressed for itself; picows does
    not do that. aiohttp's default is zlib's level 1 and a window of 32 KiB, that of the others level 6 and 4 KiB: of
    ours with Python's own zlib, what compares with aiohttp is that at level 1. "[speed]" is the default with that extra
    installed: isal deflates, zlib-ng inflates. aiohttp can be told to use another library, too. The bytes of an
    answer tell how well each does it; what the load sends is compressed at level 6.
    """
    ours = [SPEED_CALLBACKS, SPEED_COROUTINES, LEVEL_1_CALLBACKS, LEVEL_1_COROUTINES, CALLBACKS]
    return _echo(
        bench,
        [*ours, *([] if bench.quick else [COROUTINES, WEBSOCKETS, AIOHTTP_NG]), AIOHTTP],
        {"small": "--deflate --conns 64 --size 512", "large": "--deflate --conns 16 --size 16384"},
        AIOHTTP,
        lambda title: [Target(name, 0.6, AIOHTTP) for name in ours[:4]],
        "--deflate",
        columns=[*RATES, Column("answer", "bytes/answer")],
    )


def _echo(
    bench: Bench,
    names: Iterable[str],
    scenarios: dict[str, str],
    base: str,
    targets: Callable[[str], Sequence[Target]],
    *arguments: str,
    columns: Sequence[Column] = RATES,
) -> Cases:
    def driven(scenario: str) -> Callable[[Running], Figures]:
        def measure(server: Running) -> Figures:
            plain = ["--raw"] if server.name in (RAW, RAW_TLS) else []
            figures = load(server, bench.seconds, *scenario.split(), *plain)
            return {**figures, "answer": figures["bytes"] / figures["messages"]}

        return measure

    programs = [ECHO[name].told(*arguments) for name in names]
    samples = bench.servers(programs, {title: driven(scenario) for title, scenario in scenarios.items()})
    return [
        make_case(
            title,
            in_words(scenario),
            case,
            key="cpu_us",
            unit=CPU,
            base=base,
            columns=columns,
            targets=targets(title),
        )
        for (title, scenario), case in zip(scenarios.items(), samples, strict=True)
    ]


def in_words(scenario: str) -> str:
    """What wsload is asked for."""
    said = dict(pairwise(scenario.split()))
    return f"{said['--conns']} connections, {int(said['--size']):,} bytes, {said.get('--depth', '1')} in flight on each"


# Clients.

CLIENTS = [
    python(CALLBACKS, "clients.ours_callback", "asyncio"),
    python(COROUTINES, "clients.coroutines", "fullduplex"),
    python(PICOWS, "clients.picows_callback", "bytes"),
    python(PICOWS_COROUTINES, "clients.coroutines", "picows"),
    python(WEBSOCKETS, "clients.coroutines", "websockets"),
    python(AIOHTTP, "clients.aiohttp_async"),
]
ON_UVLOOP = [
    python(UVLOOP_CALLBACKS, "clients.ours_callback", "uvloop"),
    python(UVLOOP_COROUTINES, "clients.coroutines", "fullduplex-uvloop"),
]
FRAMES = python("picows, payloads not looked at", "clients.picows_callback", "frames")


def _client(bench: Bench, mode: str, port: int) -> Callable[[Program], Figures]:
    def measure(program: Program) -> Figures:
        command = [*program.command, mode, str(port), str(bench.seconds)]
        return run(command, cpus()[0], program.environment, 30 + 2 * bench.seconds)

    return measure


def receive(bench: Bench) -> Cases:
    """A client that takes what a server in C sends as fast as it can, and counts. CPU time is the client's own.

    "recv() in C" reads into one buffer and makes nothing of it: what the kernel costs.
    """
    cases: Cases = []
    for size, limit in (64, 0.6), (4096, 0.8):
        flood = Program("flood", (str(TOOLS / "wsflood"), "{port}", str(size)))
        with started(flood, cpus()[1]) as server:
            raw = Program(RAW_RECV, (str(TOOLS / "rawrecv"), str(size)))
            clients = [raw, *CLIENTS[:4], FRAMES, *([] if bench.quick else CLIENTS[4:])]
            (samples,) = bench.clients(clients, {f"{size} bytes": _client(bench, "receive", server.port)})
        targets = [Target(CALLBACKS, limit, PICOWS), Target(COROUTINES, limit, PICOWS_COROUTINES)]
        about = f"messages of {size:,} bytes, one connection"
        cases.append(make_case(f"{size} bytes", about, samples, key="cpu_us", unit=CPU, base=PICOWS, targets=targets))
    return cases


def roundtrip(bench: Bench) -> Cases:
    """A client that sends 64 bytes and waits for the echo. All clients have the same server, fullduplex compiled.

    Most of the time nobody works: it is the kernel that wakes one process, then the other. picows and websockets are
    on uvloop, ours on asyncio's own loop unless it says otherwise.
    """
    with started(ECHO[CALLBACKS], cpus()[1]) as server:
        clients = [*ON_UVLOOP, *(CLIENTS[:5] if bench.quick else CLIENTS)]
        (samples,) = bench.clients(clients, {"round trip": _client(bench, "roundtrip", server.port)})
    columns = [Column("p99_us", "p99, µs"), Column("cpu_us", "µs CPU of the client")]
    about = "64 bytes there and back, one connection"
    return [
        make_case(
            "round trip",
            about,
            samples,
            key="p50_us",
            unit="p50, µs",
            base=PICOWS,
            columns=columns,
            targets=[
                Target(CALLBACKS, 1.0, PICOWS),
                Target(UVLOOP_CALLBACKS, 1.0, PICOWS),
                Target(COROUTINES, 1.0, PICOWS_COROUTINES),
                Target(UVLOOP_COROUTINES, 1.0, PICOWS_COROUTINES),
            ],
        )
    ]


# Many connections.


def _alone(bench: Bench, cases: dict[str, Callable[[Running], Figures]]) -> dict[str, Callable[[Program], Figures]]:
    """Each in a process that has seen nothing, and nobody else's connections are ended meanwhile."""

    def with_server(measure: Callable[[Running], Figures]) -> Callable[[Program], Figures]:
        def measured(program: Program) -> Figures:
            with started(program) as server:
                return measure(server)

        return measured

    return {title: with_server(measure) for title, measure in cases.items()}


def connections(bench: Bench) -> Cases:
    """What a connection costs that is opened and then says nothing: memory of the process, and CPU time to accept it.

    Keepalive and compression are off. The kernel's memory for a socket is the same for all, and not counted. In a
    burst all connect at once; the longest of them waits a second or more if the listening queue is full, since then
    the kernel drops what comes, and TCP tries again.
    """
    bench.rounds = min(bench.rounds, 3)
    count = min(3_000 if bench.quick else 15_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2_500)

    def idle(server: Running) -> Figures:
        return load(server, 0.5, "--idle", "--conns", str(count), "--sources", "20")

    def burst(server: Running) -> Figures:
        before = dropped()
        figures = load(server, 0, "--burst", "--conns", "1000")
        return {
            "max_ms": figures["max_us"] / 1e3,
            "p50_ms": figures["p50_us"] / 1e3,
            "again": dropped() - before,
        }

    names = [CALLBACKS, COROUTINES, PICOWS, WEBSOCKETS, *([] if bench.quick else [PICOWS_COROUTINES, AIOHTTP])]
    programs = [ECHO[name] for name in names]
    opened, at_once = bench.clients(programs, _alone(bench, {"idle": idle, "burst": burst}))
    about = f"{count:,} idle connections in one process"
    return [
        make_case(
            "memory",
            about,
            opened,
            key="server_kib_per_conn",
            unit="KiB/connection",
            base=PICOWS,
            targets=[Target(CALLBACKS, 1.5), Target(COROUTINES, 3.0)],
        ),
        make_case(
            "handshake",
            f"the same {count:,}, while they connect",
            opened,
            key="connect_cpu_us",
            unit="µs CPU/connection",
            base=WEBSOCKETS,
            columns=[Column("connect_rate", "connections/s")],
            targets=[Target(CALLBACKS, 1 / 3, WEBSOCKETS), Target(COROUTINES, 1 / 3, WEBSOCKETS)],
        ),
        make_case(
            "burst",
            "1,000 connect at once",
            at_once,
            key="max_ms",
            unit="longest, ms",
            base=WEBSOCKETS,
            columns=[Column("p50_ms", "p50, ms"), Column("again", "SYNs sent again")],
            targets=[Target(CALLBACKS, 1000), Target(CALLBACKS, 0, key="again")],
        ),
    ]


def dropped() -> int:
    """How often the kernel has sent a SYN again since it started."""
    names, values = (
        line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")
    )
    return int(dict(zip(names, values, strict=True))["TCPSynRetrans"])


BROADCAST = [
    python(CALLBACKS, "servers.ours_broadcast", "{port}"),
    python(PICOWS, "servers.picows_broadcast", "{port}"),
    python(WEBSOCKETS, "servers.websockets_broadcast", "{port}"),
]


def broadcast(bench: Bench) -> Cases:
    """Five times a second everybody is told the same 256 bytes.

    The base is a loop of send() in C. How long others wait for it shows a connection that plays echo meanwhile.
    """
    bench.rounds = min(bench.rounds, 3)
    count = min(2_000 if bench.quick else 10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2_500)
    seconds = max(2 * bench.seconds, 1.0)

    def deliver(server: Running) -> Figures:
        return load(server, seconds, "--listen", "--conns", str(count))

    def wait(server: Running) -> Figures:
        figures = load(server, seconds, "--listen", "--conns", str(count), "--echo", "1", "--size", "64")
        return {"max_ms": figures["max_us"] / 1e3, "p50_us": figures["p50_us"]}

    peers = BROADCAST[:2] if bench.quick else BROADCAST
    raw = Program(RAW_SEND, (str(TOOLS / "rawsend"), "{port}", "256"))
    (told,) = bench.clients([raw, *peers], _alone(bench, {"broadcast": deliver}))
    (waited,) = bench.clients(peers, _alone(bench, {"echo meanwhile": wait}))
    return [
        make_case(
            "delivery",
            f"256 bytes to {count:,} listeners",
            told,
            key="cpu_us",
            unit="µs CPU/delivery",
            base=RAW_SEND,
            columns=[Column("rate", "deliveries/s")],
            targets=[Target(CALLBACKS, 1.15, RAW_SEND)],
        ),
        make_case(
            "echo meanwhile",
            f"one more connection plays echo while {count:,} are told",
            waited,
            key="max_ms",
            unit="longest, ms",
            base=PICOWS,
            columns=[Column("p50_us", "p50, µs")],
            targets=[Target(CALLBACKS, 5)],
        ),
    ]


# More than one CPU.

ONE, TWO = "fullduplex, 1 process", "fullduplex, 2 processes"


def cores(bench: Bench) -> Cases:
    """Processes that share a port (SO_REUSEPORT), with work to do for each message, an amount and not a time of it.

    Nothing is pinned here: with two CPUs the load needs a share of what is measured, which is told.
    """
    program = python(ONE, "servers.ours_busy", "{port}")

    def measure(processes: int) -> Callable[[Program], Figures]:
        def measured(program: Program) -> Figures:
            with started(program, cpu=-1) as server:
                others = [start(program, -1, server.port) for _ in range(processes - 1)]
                try:
                    server.wait_listening(processes)
                    used, begin = _children(), perf_counter()
                    figures = load(server, max(1.0, bench.seconds), "--conns", "64", "--size", "64", cpu=-1)
                    return {**figures, "load": 100 * (_children() - used) / (perf_counter() - begin)}
                finally:
                    for other in others:
                        other.stop()

        return measured

    one, two = bench.clients([program], {ONE: measure(1), TWO: measure(2)})
    return [
        make_case(
            "two processes",
            "64 connections, 64 bytes, each message with some 200 µs of work",
            {ONE: one[ONE], TWO: two[ONE]},
            key="rate",
            unit="messages/s",
            base=ONE,
            columns=[Column("p99_us", "p99, µs"), Column("load", "CPU of the load, %")],
            targets=[Target(TWO, 1.8, ONE, at_least=True)],
        )
    ]


def _children() -> float:
    """CPU seconds of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


GROUPS: dict[str, tuple[str, Callable[[Bench], Cases]]] = {
    "echo": ("Echo", echo),
    "tls": ("Echo over TLS", tls),
    "deflate": ("Echo, compressed", deflate),
    "receive": ("Clients that receive", receive),
    "roundtrip": ("Round trips of a client", roundtrip),
    "connections": ("Many connections", connections),
    "broadcast": ("Broadcast", broadcast),
    "cores": ("More than one CPU", cores),
}
