"""Programs that are measured: how they are built, started, each on a CPU of its own, driven, and taken in turn."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TOOLS = ROOT / ".bench"
PEM = TOOLS / "localhost.pem"

LIBRARIES = {
    "wsload": ("-lssl", "-lcrypto", "-lz"),
    "wsflood": ("-lcrypto",),
    "rawecho": (),
    "rawtls": ("-lssl", "-lcrypto"),
    "rawsend": (),
    "rawrecv": (),
}
WARMUP = 0.3  # seconds
PORTS = itertools.count(20_000)  # below those that the kernel gives to clients

Figures = dict[str, float]
Samples = dict[str, list[Figures]]  # by program: its figures in each round
T = TypeVar("T", bound="Program | Running")


class Failed(Exception):
    """A program did not start, or not do what it was asked."""


@dataclass(frozen=True)
class Program:
    """Something to measure. In its command {port} stands for its port."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_peer: bool = False  # where it does not run, the others do

    def told(self, *arguments: str) -> Program:
        return replace(self, command=(*self.command, *arguments))


@dataclass
class Running:
    """A program that was started."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Any

    def wait_listening(self, processes: int = 1) -> None:
        """Until so many listen on its port. Raises Failed."""
        listens = f":{self.port:04X} 00000000:0000 0A "
        for _ in range(300):
            if Path("/proc/net/tcp").read_text().count(listens) >= processes:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.log.seek(0)
        said = self.log.read()[-2000:].decode(errors="replace").strip()
        raise Failed(said.splitlines()[-1] if said else "it does not listen")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


# Before the first measurement.


def prepare() -> None:
    """Build the programs in C, make a certificate, allow as many descriptors as may be had."""
    for name in ("cc", "openssl", "taskset"):
        if shutil.which(name) is None:
            sys.exit(f"the benchmarks need {name}: apt-get install gcc openssl util-linux")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("the benchmarks need two CPUs: one for what is measured, one for the load")
    TOOLS.mkdir(exist_ok=True)
    for name, libraries in LIBRARIES.items():
        program, source = TOOLS / name, HERE / f"{name}.c"
        changed = max(path.stat().st_mtime for path in (source, HERE / "raw.h"))
        if not program.exists() or program.stat().st_mtime < changed:
            _compile(source, program, libraries)
    if not PEM.exists():
        key = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        command = f"{key} -x509 -days 3650 -subj /CN=localhost -keyout {PEM.name} -out {PEM.name}"
        subprocess.run(command.split(), cwd=TOOLS, check=True, capture_output=True)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _compile(source: Path, program: Path, libraries: Iterable[str]) -> None:
    command = ["cc", "-O3", "-Wno-deprecated-declarations", "-o", str(program), str(source), *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        hint = "\nthe headers of OpenSSL and zlib: apt-get install libssl-dev zlib1g-dev" if libraries else ""
        sys.exit(f"{source.name} was not compiled:\n{done.stderr}{hint}")


# Running programs.


def cpus() -> tuple[int, int]:
    """The CPU of what is measured, and that of the load."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return first, second


def start(program: Program, cpu: int | None = None, port: int | None = None) -> Running:
    """Start a server; by default on the CPU of what is measured, with cpu=-1 on any."""
    port = port or next(filter(_is_free, PORTS))
    command = [argument.replace("{port}", str(port)) for argument in program.command]
    if cpu != -1:
        command = ["taskset", "-c", str(cpus()[0] if cpu is None else cpu), *command]
    log = tempfile.TemporaryFile()  # noqa: SIM115 - Running.stop closes it
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **program.environment}, stdout=subprocess.DEVNULL, stderr=log
    )
    return Running(program.name, process, port, log)


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def started(program: Program, cpu: int | None = None, port: int | None = None) -> Iterator[Running]:
    """A server for a while. Raises Failed."""
    running = start(program, cpu, port)
    try:
        running.wait_listening()
        yield running
    finally:
        running.stop()


def run(command: Sequence[str | Path], cpu: int, environment: Mapping[str, str], timeout: float) -> Figures:
    """Run a program that prints its figures as a line of JSON. Raises Failed."""
    pinned = ["taskset", "-c", str(cpu), *map(str, command)] if cpu != -1 else list(map(str, command))
    process = subprocess.Popen(
        pinned,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        raise Failed(f"no answer in {timeout:.0f} s") from None
    try:
        figures: Figures = json.loads(out)
    except ValueError:
        raise Failed((err.strip().splitlines() or [f"exit code {process.returncode}"])[-1]) from None
    if figures.get("errors"):
        raise Failed(f"{figures['errors']} errors")
    return figures


def load(server: Running, seconds: float, *arguments: str, cpu: int | None = None) -> Figures:
    """Drive a server with wsload. `cpu_us` is what the server took of its CPU for each message. Raises Failed."""
    told = f"--port {server.port} --pid {server.process.pid} --warmup {WARMUP} --seconds {seconds}"
    figures = run(
        [TOOLS / "wsload", *told.split(), *arguments], cpus()[1] if cpu is None else cpu, {}, 60 + 4 * seconds
    )
    if figures.get("messages"):
        figures["cpu_us"] = 1e6 * figures["server_cpu"] / figures["rate"]
    return figures


# In turn.


@dataclass
class Bench:
    """How long is measured, and who has failed at it."""

    rounds: int
    seconds: float
    quick: bool
    failed: dict[str, str] = field(default_factory=dict)  # by name, of one group

    def servers(self, programs: Sequence[Program], cases: Mapping[str, Callable[[Running], Figures]]) -> list[Samples]:
        """The samples of each case. Each round has new processes: the luck of where memory lies is averaged, too."""
        samples: list[Samples] = [{} for _ in cases]
        for number in range(self.rounds):
            running = [start(program) for program in programs if program.name not in self.failed]
            try:
                ready = []
                for server in running:
                    with self._passing_over(programs, server.name):
                        server.wait_listening()
                        ready.append(server)
                self._round(programs, ready, number, cases, samples)
            finally:
                for server in running:
                    server.stop()
        return self._whole(samples)

    def clients(self, programs: Sequence[Program], cases: Mapping[str, Callable[[Program], Figures]]) -> list[Samples]:
        """The same for programs that run for themselves."""
        samples: list[Samples] = [{} for _ in cases]
        for number in range(self.rounds):
            self._round(programs, programs, number, cases, samples)
        return self._whole(samples)

    def _round(
        self,
        programs: Sequence[Program],
        things: Sequence[T],
        number: int,
        cases: Mapping[str, Callable[[T], Figures]],
        samples: list[Samples],
    ) -> None:
        """Each case with everybody. Who is first changes, so that nobody always follows the same one."""
        for case, (title, measure) in zip(samples, cases.items(), strict=True):
            shift = number % max(1, len(things))
            for thing in (*things[shift:], *things[:shift]):
                if thing.name in self.failed:
                    continue
                self._say(f"round {number + 1}/{self.rounds}: {title}: {thing.name}")
                with self._passing_over(programs, thing.name):
                    case.setdefault(thing.name, []).append(measure(thing))
        self._say("")

    @contextmanager
    def _passing_over(self, programs: Sequence[Program], name: str) -> Iterator[None]:
        """A peer that fails is noted and passed over; without what is ours nothing is worth printing."""
        try:
            yield
        except Failed as failure:
            if not any(program.is_peer for program in programs if program.name == name):
                raise Failed(f"{name}: {failure}") from None
            self.failed[name] = str(failure)

    def _whole(self, samples: list[Samples]) -> list[Samples]:
        """Only who was there in every round has figures that belong together."""
        return [{name: rows for name, rows in case.items() if len(rows) == self.rounds} for case in samples]

    def _say(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
