#!/usr/bin/env python3
"""What permessage-deflate (RFC 7692) saves and costs: the figures that the defaults of compression are chosen by.

    compression.py [--quick] [--json FILE]

Prints tables in Markdown: windows and memory levels, levels, zlib's faster relatives (isal and zlib-ng, where they are
installed), the threshold, broadcasts. Takes a minute and a half, 15 s with --quick (fewer settings and messages); on a
busy machine there are fewer rounds.
Memory is the growth of a child's resident set, read from /proc: it needs Linux, the rest does not.

Three kinds of traffic are made here, the same ones in every run (the generator is seeded):

    feed        quotes, trades and readings of devices: JSON objects of 100 to 300 bytes. Names repeat, numbers walk.
    chat        what a chat sends: texts of any length, most of them short, and many small events around them
    documents   the whole state of a board, again and again, 4 to 64 KiB each; a few of its entries change meanwhile

Every message is compressed, flushed (Z_SYNC_FLUSH) and stripped of its last four bytes, as RFC 7692 section 7.2.1 says,
with the compressor of its connection (context takeover) or with a new one; then inflated, and compared. "size" is that
of all messages, in per cent of what they are without compression; "us" is microseconds for one message, the best of
several rounds, message by message, since others use the machine, too. The first quarter of the messages fills the
windows and is not counted. "new" is without context takeover: a compressor and an inflater for each message.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import random
import subprocess
import sys
import timeit
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean
from time import perf_counter_ns
from typing import Any

SEED = 7692
TAIL = b"\x00\x00\xff\xff"

BEGIN = perf_counter_ns()
BUDGET = 120 * 10**9  # after it one round must do
Stream = Sequence[bytes]  # the messages of one connection, in order

# Libraries with zlib's interface, what tells their version, and the levels that are worth a look. isal has 0 to 3 only.
LIBRARIES: dict[str, tuple[str, Callable[[Any], str], Sequence[int]]] = {
    "zlib": ("zlib", lambda module: module.ZLIB_RUNTIME_VERSION, (1, 3, 4, 6)),
    "zlib-ng": ("zlib_ng.zlib_ng", lambda module: module.ZLIBNG_VERSION, (1, 2, 3, 6)),
    "isal": ("isal.isal_zlib", lambda module: importlib.import_module("isal").ISAL_VERSION, (0, 1, 2, 3)),
}
BACKENDS: dict[str, Any] = {}
for name, library in LIBRARIES.items():
    try:
        BACKENDS[name] = importlib.import_module(library[0])
    except ImportError:
        print(f"without {name}: it is not installed", file=sys.stderr)
VERSIONS = {name: LIBRARIES[name][1](backend) for name, backend in BACKENDS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--held", help=argparse.SUPPRESS)  # we are the child of `held`
    options = parser.parse_args()
    if options.held:
        print(json.dumps(grown(Setup(**json.loads(options.held)))))
        return

    gc.disable()
    report = Report()
    bench = Bench(report, options.quick)
    bench.corpora()
    bench.windows()
    bench.connections()
    bench.levels()
    bench.backends()
    bench.sizes()
    bench.thresholds()
    bench.broadcasts()
    bench.drops()
    if options.json:
        report.write(options.json)


# What is measured.


@dataclass(frozen=True)
class Setup:
    """How one connection compresses."""

    backend: str = "zlib"
    bits: int = 12
    memory: int = 5
    level: int = 6
    takeover: bool = True
    threshold: int = 0  # smaller messages are sent as they are, and do not get into the window

    def compressor(self) -> Any:
        return BACKENDS[self.backend].compressobj(self.level, zlib.DEFLATED, -self.bits, self.memory)

    def inflater(self) -> Any:
        return BACKENDS[self.backend].decompressobj(-self.bits)

    @property
    def fresh(self) -> Setup:
        return replace(self, takeover=False)


# The candidates for a default. zlib says that a compressor takes 2^(bits+2) + 2^(memory level+9) bytes: each of these
# spends half of it on its window, or is a neighbour of one that does.
SHORTLIST = [(9, 1), (10, 3), (11, 4), (12, 4), (12, 5), (13, 5), (13, 6), (14, 7), (15, 8), (15, 9)]
DEFAULT = Setup()
LARGEST = Setup(bits=15, memory=8)  # zlib's own default


class Costs:
    """What the messages of several connections cost: the best of all rounds so far, message by message."""

    def __init__(self) -> None:
        self.plain: list[int] = []
        self.encoded: list[int] = []
        self.compress_ns: list[int] = []
        self.inflate_ns: list[int] = []

    def add(self, setup: Setup, streams: Sequence[Stream]) -> None:
        """One round: the connections send in turn, as on a server, so that each finds the cache taken by the others."""
        order = [(n, message) for sweep in zip(*streams, strict=True) for n, message in enumerate(sweep)]
        compressors = [setup.compressor() for _ in streams]
        sent: list[bytes] = []
        compress_ns: list[int] = []
        for n, message in order:
            start = perf_counter_ns()
            if len(message) >= setup.threshold:
                compressor = compressors[n] if setup.takeover else setup.compressor()
                sent.append(sync(compressor, message))
            else:
                sent.append(message)
            compress_ns.append(perf_counter_ns() - start)

        inflaters = [setup.inflater() for _ in streams]
        inflate_ns: list[int] = []
        for (n, message), data in zip(order, sent, strict=True):
            start = perf_counter_ns()
            received = data
            if len(message) >= setup.threshold:
                inflater = inflaters[n] if setup.takeover else setup.inflater()
                received = inflater.decompress(data + TAIL)
            inflate_ns.append(perf_counter_ns() - start)
            if received != message:
                raise AssertionError(f"{setup} does not give back what it was given")

        self.plain = [len(message) for _, message in order]
        self.encoded = [len(data) for data in sent]
        self.compress_ns = least(self.compress_ns, compress_ns)
        self.inflate_ns = least(self.inflate_ns, inflate_ns)

    def counted(self, numbers: Sequence[int]) -> Sequence[int]:
        return numbers[len(numbers) // 4 :]

    @property
    def size(self) -> float:
        return 100 * sum(self.counted(self.encoded)) / sum(self.counted(self.plain))

    @property
    def compress_us(self) -> float:
        return fmean(self.counted(self.compress_ns)) / 1000

    @property
    def inflate_us(self) -> float:
        return fmean(self.counted(self.inflate_ns)) / 1000


def compare(setups: Iterable[Setup], streams: Sequence[Stream], rounds: int) -> dict[Setup, Costs]:
    """Setups side by side: round after round, so that a slow moment of the machine does not hit one of them alone."""
    costs = {setup: Costs() for setup in setups}
    for done in range(rounds):
        if done == 0 or perf_counter_ns() < BEGIN + BUDGET:
            for setup, cost in costs.items():
                cost.add(setup, streams)
    return costs


def least(before: list[int], now: list[int]) -> list[int]:
    return list(map(min, before, now)) if before else now


# Memory.

OBJECTS = 500
MEMORY = ["compressor KiB", "used", "inflater KiB", "used"]
STATM = Path("/proc/self/statm")


def held(setup: Setup) -> list[Any]:
    """What `grown` says."""
    if not STATM.exists():
        return ["-"] * 4
    command = [sys.executable, __file__, "--held", json.dumps(asdict(setup))]
    answer: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return answer


def grown(setup: Setup) -> list[float]:
    """KiB of a compressor after one small message and after 64 KiB, and of an inflater.

    In a child of its own where all of them are kept: memory that was freed would be used again and not be seen.
    """
    rng = random.Random(SEED)
    small, large = market(rng, 1)[0], board(rng, 1, 65_536)[0]
    data = [sync(zlib.compressobj(wbits=-setup.bits), message) + TAIL for message in (small, large)]
    kept: list[Any] = []

    def used(make: Callable[[], Any], use: Callable[[Any, int], object]) -> list[float]:
        use(make(), 1)  # what is made once for all
        start = resident()
        objects = [make() for _ in range(OBJECTS)]
        kept.extend(objects)
        for each in objects:
            use(each, 0)
        once = (resident() - start) / OBJECTS
        start = resident()
        for each in objects[: OBJECTS // 10]:
            use(each, 1)
        return [once, once + (resident() - start) / (OBJECTS // 10)]

    compressor = used(setup.compressor, lambda each, n: sync(each, (small, large)[n]))
    return [*compressor, *used(setup.inflater, lambda each, n: each.decompress(data[n]))]


def sync(compressor: Any, message: bytes) -> bytes:
    data: bytes = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


def resident() -> float:
    """KiB of this process in memory."""
    pages = int(STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


# The tables.


class Report:
    """Tables, printed as they are made and kept for the file."""

    def __init__(self) -> None:
        versions = {"python": platform.python_version(), **VERSIONS}
        self.result: dict[str, Any] = {"machine": machine(), "versions": versions}
        print(f"{machine()}; {', '.join(f'{name} {version}' for name, version in versions.items())}")

    def table(self, name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        shown = [[f"{cell:.{places(cell)}f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *shown, strict=True)]
        print(f"\n{title}\n")
        for row in (columns, ["-" * width for width in widths], *shown):
            print("| " + " | ".join(map(str.ljust, row, widths)) + " |", flush=True)
        rounded = [[round(cell, places(cell)) if isinstance(cell, float) else cell for cell in row] for row in rows]
        self.result[name] = {"title": title, "columns": columns, "rows": rounded}

    def write(self, file: Path) -> None:
        """One row a line: short, and differences can be read."""
        text = json.dumps(self.result, indent=1)
        for row in (row for table in self.result.values() if "rows" in table for row in table["rows"]):
            text = text.replace(json.dumps(row, indent=1).replace("\n", "\n   "), json.dumps(row))
        file.write_text(text + "\n")


def places(number: float) -> int:
    return 0 if abs(number) >= 100 else 1


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"


class Bench:
    def __init__(self, report: Report, quick: bool) -> None:
        self.report = report
        self.quick = quick
        self.rounds = 2 if quick else 5
        self.traffic = traffic(4 if quick else 8, 80 if quick else 240)
        self.many = [feed(random.Random(f"{SEED} {n}"), 40, n) for n in range(64 if quick else 256)]

    def corpora(self) -> None:
        rows = []
        for name, streams in self.traffic.items():
            sizes = sorted(len(message) for stream in streams for message in stream)
            rows.append([name, len(streams), len(sizes), sizes[0], sizes[len(sizes) // 2], sizes[-1], sum(sizes)])
        columns = ["traffic", "connections", "messages", "smallest", "median", "largest", "bytes"]
        self.report.table("traffic", "Traffic, sizes in bytes", columns, rows)

    def windows(self) -> None:
        """The whole grid, with takeover."""
        pairs = SHORTLIST if self.quick else [(bits, memory) for bits in range(9, 16) for memory in range(1, 10)]
        setups = [Setup(bits=bits, memory=memory) for bits, memory in pairs]
        costs = [compare(setups, streams, min(3, self.rounds)) for streams in self.traffic.values()]
        rows = [[s.bits, s.memory, *(f for cost in costs for f in (cost[s].size, cost[s].compress_us))] for s in setups]
        columns = ["bits", "memory level", *both("size", "us")]
        self.report.table("windows", "Windows and memory levels: zlib, level 6, context takeover", columns, rows)

    def connections(self) -> None:
        """The candidates as a server has them: many connections, so that no state stays in the processor's cache."""
        setups = [Setup(bits=bits, memory=memory) for bits, memory in SHORTLIST]
        costs = compare([*setups, *(setup.fresh for setup in setups)], self.many, self.rounds + 1)
        rows = []
        for setup in setups:
            cost, fresh = costs[setup], costs[setup.fresh]
            again = partial(zlib.decompressobj, -setup.bits, zdict=WINDOW[-(2**setup.bits) :])
            again_us = 1e6 * min(timeit.repeat(again, number=20, repeat=20)) / 20
            figures = [cost.size, cost.compress_us, cost.inflate_us, fresh.size, fresh.compress_us, fresh.inflate_us]
            rows.append([setup.bits, setup.memory, *held(setup), *figures, again_us])
        columns = ["bits", "memory level", *MEMORY, "size", "us", "inflate us"]
        columns += ["new: size", "new: us", "new: inflate us", "inflater from window us"]
        title = f"{len(self.many)} connections with a feed, in turn; memory after one message, and after 64 KiB"
        self.report.table("connections", title, columns, rows)

    def levels(self) -> None:
        setups = [replace(DEFAULT, level=level) for level in ((1, 3, 6, 9) if self.quick else range(1, 10))]
        costs = [compare([*setups, *(s.fresh for s in setups)], streams, 3) for streams in self.traffic.values()]
        rows = []
        for setup in setups:
            each = [cost[kind] for cost in costs for kind in (setup, setup.fresh)]
            rows.append([setup.level, *(figure for cost in each for figure in (cost.size, cost.compress_us))])
        title = f"Levels: zlib, {DEFAULT.bits} bits, memory level {DEFAULT.memory}"
        self.report.table("levels", title, ["level", *both("size", "us", "new: size", "new: us")], rows)

    def backends(self) -> None:
        rows = []
        setups = [
            replace(base, backend=backend, level=level)
            for backend in BACKENDS
            for base in (DEFAULT, LARGEST)
            for level in LIBRARIES[backend][2][:: 3 if self.quick else 1]
        ]
        costs = [compare([*setups, *(s.fresh for s in setups)], streams, 3) for streams in self.traffic.values()]
        many = compare(setups, self.many, self.rounds)
        for setup in setups:
            each = [(cost[setup], cost[setup.fresh].compress_us) for cost in costs]
            figures = [figure for cost, new in each for figure in (cost.size, cost.compress_us, new, cost.inflate_us)]
            sort = [setup.backend, setup.level, f"{setup.bits}/{setup.memory}"]
            rows.append([*sort, *held(setup), many[setup].compress_us, *figures])
        columns = ["library", "level", "bits/memory", *MEMORY, "feed in turn us"]
        columns += both("size", "us", "new: us", "inflate us")
        self.report.table("backends", "zlib and its relatives, with takeover", columns, rows)

    def sizes(self) -> None:
        """Where compressing begins to pay: messages of feed and chat, by their size."""
        streams = [*self.traffic["feed"], *self.traffic["chat"]]
        costs = compare([DEFAULT, DEFAULT.fresh], streams, self.rounds)
        rows = []
        for low, high in pairwise([16, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 4096]):
            row: list[Any] = [f"{low}-{high - 1}"]
            for cost in costs.values():
                start = len(cost.plain) // 4
                chosen = [n for n in range(start, len(cost.plain)) if low <= cost.plain[n] < high]
                if not chosen:
                    break
                each = ([numbers[n] for n in chosen] for numbers in (cost.plain, cost.encoded, cost.compress_ns))
                plain, encoded, ns = map(fmean, each)
                row += [100 * encoded / plain, plain - encoded, ns / 1000, 1000 * (plain - encoded) / ns]
            else:
                rows.append([row[0], len(chosen), *row[1:]])
        columns = ["bytes", "messages", "size", "bytes saved", "us", "saved a us"]
        columns += ["new: size", "new: bytes saved", "new: us", "new: saved a us"]
        self.report.table("sizes", "Messages by size: feed and chat, mixed", columns, rows)

    def thresholds(self) -> None:
        """What it costs and spares to send small messages as they are."""
        setups = [replace(DEFAULT, threshold=n) for n in (0, 16, 32, 48, 64, 96, 128, 192, 256, 512)]
        costs = compare([*setups, *(s.fresh for s in setups)], self.traffic["chat"], self.rounds)
        rows = []
        for setup in setups:
            kept, new = costs[setup], costs[setup.fresh]
            rows.append([setup.threshold, kept.size, kept.compress_us, new.size, new.compress_us])
        columns = ["threshold", "size", "us", "new: size", "new: us"]
        self.report.table("thresholds", "Thresholds: the chat", columns, rows)

    def broadcasts(self) -> None:
        """One message for many: compressed for each with what it has seen, or once for all by a new compressor."""
        receivers = 32 if self.quick else 256
        rows = []
        for name, streams in self.traffic.items():
            messages = streams[len(streams) // 2][: 8 if name == "documents" else 80]
            each = compare([DEFAULT], [messages] * receivers, 2)[DEFAULT]
            once = compare([DEFAULT.fresh], [messages], self.rounds)[DEFAULT.fresh]
            rows.append([name, each.size, receivers * each.compress_us, once.size, once.compress_us])
        title = f"A message to {receivers} connections, us for all of them"
        columns = ["traffic", "each: size", "each: us", "shared: size", "shared: us"]
        self.report.table("broadcasts", title, columns, rows)

    def drops(self) -> None:
        """What a compressor has seen is lost with it: when it is given back, or a shared message was sent meanwhile."""
        rows = []
        for name, streams in self.traffic.items():
            length = len(streams[0]) // 4
            parts = [stream[n : n + length] for stream in streams for n in range(0, 4 * length, length)]
            kept, dropped = (compare([DEFAULT], each, 1)[DEFAULT] for each in (streams, parts))
            lost = (sum(dropped.encoded) - sum(kept.encoded)) / (len(parts) - len(streams))
            rows.append([name, lost, lost / fmean(kept.encoded), lost / fmean(kept.plain)])
        columns = ["traffic", "bytes lost", "in messages compressed", "in messages plain"]
        self.report.table("drops", "What it costs to begin with a new compressor, once", columns, rows)


def both(*columns: str) -> list[str]:
    return [f"{traffic} {column}" for traffic in ("feed", "chat", "documents") for column in columns]


# Traffic.


def traffic(connections: int, messages: int) -> dict[str, list[Stream]]:
    def generator(name: str, n: int) -> random.Random:
        return random.Random(f"{SEED} {name} {n}")

    # From 4 to 60 KiB in equal steps of a ratio; what changes makes the largest 64 KiB.
    sizes = [int(4096 * 15 ** (n / (connections - 1))) for n in range(connections)]
    return {
        "feed": [feed(generator("feed", n), messages, n) for n in range(connections)],
        "chat": [chat(generator("chat", n), messages) for n in range(connections)],
        "documents": [board(generator("documents", n), max(4, messages // 30), size) for n, size in enumerate(sizes)],
    }


def feed(rng: random.Random, count: int, connection: int) -> list[bytes]:
    return (market, telemetry)[connection % 2](rng, count)


def market(rng: random.Random, count: int) -> list[bytes]:
    """A client that watches thirty instruments."""
    symbols = ["".join(rng.choices("ABCDEFGHIKLMNOPRSTUVW", k=rng.choice((3, 4)))) for _ in range(30)]
    prices = {symbol: rng.uniform(5, 900) for symbol in symbols}
    venues = ("XNAS", "XNYS", "BATS", "XETR")
    messages: list[bytes] = []
    for time in moments(rng, count, 40):
        symbol = rng.choice(symbols)
        price = prices[symbol] = max(1.0, prices[symbol] * rng.gauss(1, 0.0005))
        head: dict[str, Any] = {"channel": "quotes", "symbol": symbol, "venue": rng.choice(venues)}
        tail: dict[str, Any] = {"time": time, "sequence": 7_000_000 + 13 * len(messages)}
        if rng.random() < 0.7:
            half = rng.choice((0.005, 0.01, 0.02))
            body: dict[str, Any] = {"bid": round(price - half, 2), "ask": round(price + half, 2)}
            body |= {"bidSize": 100 * rng.randint(1, 60), "askSize": 100 * rng.randint(1, 60)}
        else:
            head["channel"] = "trades"
            conditions = rng.choice((["@"], ["@", "I"], ["F", "T"]))
            body = {"price": round(price, 4), "size": rng.randint(1, 900), "side": rng.choice(("buy", "sell"))}
            tail = {"conditions": conditions, **tail, "tradeId": rng.getrandbits(40)}
        messages.append(dumped({**head, **body, **tail}))
    return messages


def telemetry(rng: random.Random, count: int) -> list[bytes]:
    """A client that watches twenty machines."""
    devices = [f"{rng.choice(('pump', 'valve', 'motor', 'fan'))}-{rng.randint(1, 400):03d}" for _ in range(20)]
    readings = {device: [rng.uniform(15, 80), rng.uniform(1, 9), rng.uniform(0, 3000)] for device in devices}
    messages: list[bytes] = []
    for time in moments(rng, count, 250):
        device = rng.choice(devices)
        values = readings[device] = [value * rng.gauss(1, 0.004) for value in readings[device]]
        reading = {"temperature": round(values[0], 2), "pressure": round(values[1], 3), "rpm": int(values[2])}
        message = {"device": device, "site": "north-2", "time": clock(time), "seq": len(messages), "readings": reading}
        if rng.random() < 0.3:
            message["vibration"] = [round(rng.gauss(0, 0.4), 3) for _ in range(3)]
        message |= {"status": rng.choices(("ok", "warning", "fault"), (30, 3, 1))[0], "battery": rng.randint(60, 100)}
        messages.append(dumped(message))
    return messages


def chat(rng: random.Random, count: int) -> list[bytes]:
    """A client in five rooms with forty people."""
    people = [(rng.getrandbits(53), name) for name in rng.sample(NAMES, 40)]
    rooms = ["general", "random", "support", "design-review", "lunch"]
    messages: list[bytes] = []
    for time in moments(rng, count, 3000):
        person, name = rng.choice(people)
        room = rng.choice(rooms)
        kind = rng.choices(("message", "typing", "read", "presence", "reaction", "ack"), (50, 16, 12, 8, 8, 6))[0]
        event: dict[str, Any] = {"type": kind}
        at = (time << 12) + rng.getrandbits(12)
        if kind == "message":
            event |= {"room": room, "id": at, "user": {"id": person, "name": name}}
            event |= {"text": talk(rng, min(4000, int(rng.lognormvariate(4, 1.1)))), "time": clock(time)}
        elif kind == "typing":
            event |= {"user": name} if rng.random() < 0.5 else {"user": person, "room": room}
        elif kind == "read":
            event |= {"room": room, "user": person, "upTo": at}
        elif kind == "presence":
            event |= {"user": {"id": person, "name": name}, "status": rng.choice(("online", "away"))}
        elif kind == "reaction":
            event |= {"room": room, "to": at, "user": {"id": person, "name": name}, "emoji": rng.choice("👍🎉😂🙏")}
        else:
            event |= {"n": len(messages)} if rng.random() < 0.5 else {"n": len(messages), "id": at}
        messages.append(dumped(event))
    return messages


def board(rng: random.Random, count: int, size: int) -> list[bytes]:
    """A client that is sent the whole of a board whenever something on it has changed: 1 to 5 % of its entries."""
    entries: list[dict[str, Any]] = []
    time = 1_741_000_000_000
    while len(dumped(entries)) < size:
        entries.append({"id": f"{rng.getrandbits(64):016x}", "title": talk(rng, 40), "owner": rng.choice(NAMES)})
        entries[-1] |= {"position": {"x": round(rng.uniform(0, 1920), 1), "y": round(rng.uniform(0, 1080), 1)}}
        entries[-1] |= {"status": "open", "tags": rng.sample(WORDS[80:110], rng.randint(0, 3)), "estimate": None}
        entries[-1] |= {"notes": talk(rng, rng.randint(40, 300)) if rng.random() < 0.3 else "", "updated": clock(time)}
    messages = []
    for version in range(1, count + 1):
        messages.append(dumped({"type": "snapshot", "board": "roadmap", "version": version, "entries": entries}))
        time += rng.randint(1000, 90_000)
        for entry in rng.sample(entries, 1 + int(len(entries) * rng.uniform(0.01, 0.05))):
            entry |= {"status": rng.choice(("open", "doing", "done")), "estimate": rng.randint(1, 13)}
            entry |= {"updated": clock(time)}
    return messages


def talk(rng: random.Random, length: int) -> str:
    """About as many characters of something like English."""
    text = ""
    while len(text) < length:
        words = [rng.choice(PHRASES)] if rng.random() < 0.3 else []
        words += rng.choices(VOCABULARY, cum_weights=WEIGHTS, k=rng.randint(2, 12))
        sentence = " ".join(words)
        text += sentence[0].upper() + sentence[1:] + rng.choices((". ", "? ", "! ", " 🙂 ", ", "), (8, 2, 1, 1, 2))[0]
    return text.rstrip(" ,")


def moments(rng: random.Random, count: int, apart: int) -> list[int]:
    """Times in milliseconds, so much apart in the mean."""
    return list(accumulate((1 + int(rng.expovariate(1 / apart)) for _ in range(count)), initial=1_741_000_000_000))[1:]


def clock(time: int) -> str:
    seconds, milliseconds = divmod(time % 86_400_000, 1000)
    return f"2025-03-03T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{milliseconds:03d}Z"


def dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")]


# Words in the order of how often they are used, as in any language: the most frequent ones are English, the long tail
# of rare ones is made of syllables. Word n is chosen about 1/n of the time (Zipf's law).
WORDS = """
the to you a I and it of that in is for on we have this be do not but what are with can just so my if at as like they
your was me or get all know up one think out there will go when about from he now good no how an would our time see then
some want really by more she here also need right who them make well because say why over back only last yes today work
thing new where look still could way people something week even much next take off tomorrow first again before after try
day should call team better send later done had him her too other maybe than very give problem page test release
customer meeting server build ready check update file link design review version change button screen account payment
ticket report question morning office number plan end list open start find feel keep seems great sorry thanks please
nice people's doesn't I'm it's that's don't can't we'll didn't
""".split()
NAMES = listed("""
Maria Nguyen, Jonas Weber, Aisha Khan, Tom Baker, Lucía Fernández, Chen Wei, Olga Petrova, Sam Taylor, Noor Haddad,
Emil Larsen, Priya Nair, Jack Murphy, Zoë Martin, Kofi Mensah, Hana Sato, Luca Rossi, Anna Kowalska, David Cohen,
Mei Tanaka, Omar Farouk, Ella Smith, Ivan Horvat, Sofia Silva, Ben Carter, Leila Amiri, Nils Berg, Grace Okafor,
Hugo Dubois, Ruth Adler, Kim Min-jun, Eva Novak, Marc Vidal, Tara Singh, Paul Meyer, Ines Costa, Yusuf Kaya,
Clara Jensen, Raj Patel, Nora Quinn, Theo Laurent
""")
PHRASES = listed("""
let me check, sounds good to me, on my way, can you have a look at, thanks a lot for, I am not sure if, do we know why,
what do you think about, it works for me, see you at, I will get back to you, did anyone, just a moment, by the way
""")


def rare_words(count: int) -> list[str]:
    rng = random.Random(SEED)
    heads = "con pro in re de ex ma ser tra lo ba mer sta fi pla gre hou wor ca dis un over".split()
    middles = ["", *"vi ti la ne ro mi si ta te ra de li".split()]
    tails = "ing ed tion er ly ment s able ness al ty d n ck st".split()
    return [rng.choice(heads) + rng.choice(middles) + rng.choice(middles) + rng.choice(tails) for _ in range(count)]


VOCABULARY = WORDS + rare_words(4000)
WEIGHTS = list(accumulate(1 / (rank + 3) for rank in range(len(VOCABULARY))))
WINDOW = board(random.Random(SEED), 1, 2**15)[0]


if __name__ == "__main__":
    main()
