"""Several processes on one port: the supervisor with workers that only act as such, then the command itself."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme

import fullduplex as library
from cli.command import COMMAND, ENVIRONMENT, fullduplex, running
from cli.test_serve import address_of, exchange, request
from fullduplex.cli import workers
from fullduplex.cli.text import Failure
from fullduplex.cli.workers import Place, Supervisor, bind
from peers import HOST
from support import LIMIT, asynchronous, run

# Says that it serves, and ends when its parent does, or at SIGTERM.
WORKER = """
import signal, socket, sys
channel = socket.socket(fileno=int(sys.argv[-1].split(",")[0]))
channel.send(b"\\n")
channel.recv(1)
"""


class Supervised:
    """A supervisor in this process, and what it says."""

    def __init__(self, script: str, places: list[list[socket.socket]]) -> None:
        self.wanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        self.places = places
        command = [sys.executable, "-S", "-c", script]
        self.supervisor = Supervisor(command, places, self.lines.put_nowait, self.wanted)
        self.running = asyncio.ensure_future(self.supervisor.run("listening"))

    async def worker(self, said: str) -> int:
        """The next line says this of a worker: whose number?"""
        found = re.fullmatch(rf"worker (\d+) {re.escape(said)}", await self.lines.get())
        assert found, said
        return int(found[1])

    async def workers(self) -> list[int]:
        """The first ones."""
        assert await self.lines.get() == "listening"
        return [await self.worker("serves") for _ in self.places]


@asynccontextmanager
async def supervising(script: str = WORKER, count: int = 2) -> AsyncIterator[Supervised]:
    """It has no worker left at the end, and no socket."""
    places = [list(sockets) for sockets in await bind(HOST, 0, count)]
    supervised = Supervised(script, places)
    try:
        yield supervised
    finally:
        if not supervised.wanted.done():
            supervised.wanted.set_result(None)
        await asyncio.wait([supervised.running])
    assert [sock.fileno() for sockets in places for sock in sockets] == [-1] * count


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PAUSE", 0.0)


@asynchronous
async def test_they_start_and_end() -> None:
    async with supervising() as supervised:
        pids = await supervised.workers()
        assert len(set(pids)) == 2
        assert not any(map(has_ended, pids))
    await supervised.running
    assert all(map(has_ended, pids))


@pytest.mark.usefixtures("impatient")
@asynchronous
async def test_one_that_dies_is_replaced() -> None:
    async with supervising() as supervised:
        first, second = await supervised.workers()
        os.kill(first, signal.SIGKILL)
        assert await supervised.worker("has ended: Killed (signal 9)") == first
        third = await supervised.worker("serves")
        os.kill(third, signal.SIGTERM)
        assert await supervised.worker("has ended: Terminated (signal 15)") == third
        assert await supervised.worker("serves") not in (first, second, third)


def test_the_pause_before_the_next_one() -> None:
    place = Place([])
    lived = [0.0, 0.1, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0, 0.0, 11.0]
    assert [*map(place.next_pause, lived)] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 0.0, 0.25, 0.0]


@asynchronous
async def test_the_first_ones_cannot_start() -> None:
    async with supervising("raise SystemExit(3)") as supervised:
        with pytest.raises(Failure, match=r"worker \d+ has ended before it served: exit code 3"):
            await supervised.running
    assert supervised.lines.empty()


@asynchronous
async def test_there_is_nothing_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with supervising() as supervised:
        with pytest.raises(Failure, match=r"cannot start a worker: .*No such file or directory"):
            await supervised.running


@asynchronous
async def test_the_first_ones_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_LIMIT", 0.1)
    async with supervising("import signal; signal.pause()") as supervised:
        with pytest.raises(Failure, match=r"worker \d+ has ended before it served: Terminated \(signal 15\)"):
            await supervised.running


def breakable(tmp_path: Path) -> tuple[Path, str]:
    """A worker that does not come to serve while there is this file."""
    broken = tmp_path / "broken"
    return broken, f"import os, sys\nif os.path.exists({str(broken)!r}): sys.exit(3)\n{WORKER}"


@pytest.mark.usefixtures("impatient")
@asynchronous
async def test_the_next_one_cannot_start_while_others_serve(tmp_path: Path) -> None:
    broken, script = breakable(tmp_path)
    async with supervising(script) as supervised:
        first, _ = await supervised.workers()
        broken.touch()
        os.kill(first, signal.SIGKILL)
        assert await supervised.worker("has ended: Killed (signal 9)") == first
        await supervised.worker("has ended before it served: exit code 3")
        broken.unlink()
        while (line := await supervised.lines.get()).endswith("exit code 3"):
            pass
        assert line.endswith("serves")


@pytest.mark.usefixtures("impatient")
@asynchronous
async def test_none_can_start_and_none_serves(tmp_path: Path) -> None:
    broken, script = breakable(tmp_path)
    async with supervising(script) as supervised:
        pids = await supervised.workers()
        broken.touch()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(Failure, match=r"worker \d+ has ended before it served: exit code 3"):
            await supervised.running


@asynchronous
async def test_all_are_replaced_one_by_one() -> None:
    async with supervising() as supervised:
        first, second = await supervised.workers()
        supervised.supervisor.renew()
        third = await supervised.worker("serves")
        assert await supervised.worker("has ended: Terminated (signal 15)") == first
        fourth = await supervised.worker("serves")
        assert await supervised.worker("has ended: Terminated (signal 15)") == second
        assert not any(map(has_ended, (third, fourth)))


@asynchronous
async def test_they_stay_when_the_next_one_cannot_start(tmp_path: Path) -> None:
    broken, script = breakable(tmp_path)
    async with supervising(script) as supervised:
        pids = await supervised.workers()
        broken.touch()
        supervised.supervisor.renew()
        await supervised.worker("has ended before it served: exit code 3; the workers that are there stay")
        assert not any(map(has_ended, pids))
        broken.unlink()
        supervised.supervisor.renew()
        await supervised.worker("serves")
        assert await supervised.worker("has ended: Terminated (signal 15)") == pids[0]


@asynchronous
async def test_one_dies_while_it_is_replaced(tmp_path: Path) -> None:
    """Nobody starts two for one place."""
    gate = tmp_path / "gate"
    async with supervising(f"import os\nif os.path.exists({str(gate)!r}): open({str(gate)!r}).read()\n{WORKER}") as it:
        first, second = await it.workers()
        os.mkfifo(gate)
        it.supervisor.renew()
        opened = await asyncio.to_thread(open, gate, "w")  # when the next one has opened it, too
        os.kill(first, signal.SIGKILL)
        assert await it.worker("has ended: Killed (signal 9)") == first
        gate.unlink()
        opened.close()
        await it.worker("serves")
        await it.worker("serves")
        assert await it.worker("has ended: Terminated (signal 15)") == second
        assert len(it.supervisor._living) == 2


DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WORKER}signal.pause()"


@asynchronous
async def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "END_LIMIT", 0.1)
    async with supervising(DEAF) as supervised:
        first, second = await supervised.workers()
        supervised.supervisor.renew()
        await supervised.worker("serves")
        assert await supervised.worker("has ended: Killed (signal 9)") == first
    assert has_ended(second)


@asynchronous
async def test_who_is_impatient_does_not_wait() -> None:
    async with supervising(DEAF) as supervised:
        pids = await supervised.workers()
        supervised.wanted.set_result(None)
        while supervised.places[0][0].fileno() >= 0:
            await asyncio.sleep(0)
        supervised.running.cancel()
        await asyncio.wait([supervised.running])
        assert supervised.running.cancelled()
        assert all(map(has_ended, pids))


@asynchronous
async def test_the_end_while_they_start() -> None:
    async with supervising("import signal; signal.pause()") as supervised:
        while not supervised.supervisor._living:
            await asyncio.sleep(0)
        pids = [worker.pid for worker in supervised.supervisor._living]
    assert all(map(has_ended, pids))
    assert supervised.lines.empty()


@asynchronous
async def test_nobody_listens_to_it() -> None:
    async with supervising() as supervised:
        await supervised.workers()
        supervised.supervisor._say = _fail
        supervised.supervisor.renew()
        with pytest.raises(BrokenPipeError):
            await supervised.running


def _fail(line: str) -> None:
    raise BrokenPipeError(line)


# Where they listen.


@asynchronous
async def test_each_has_a_socket_of_its_own_on_one_port() -> None:
    places = await bind("127.0.0.1", 0, 3)
    names = {sock.getsockname() for sockets in places for sock in sockets}
    assert len({sock.fileno() for sockets in places for sock in sockets}) == 3
    assert len(names) == 1
    workers._close(places)
    again = await bind("127.0.0.1", names.pop()[1], 2)
    workers._close(again)


@asynchronous
async def test_the_port_is_taken_by_a_server_that_would_share_it() -> None:
    places = await bind("127.0.0.1", 0, 1)
    port = places[0][0].getsockname()[1]
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
        await bind("127.0.0.1", port, 2)
    workers._close(places)


@asynchronous
async def test_no_socket_is_left_when_one_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    had: list[socket.socket] = []

    async def bind_tcp(*args: object, **options: object) -> list[socket.socket]:
        if had:
            raise OSError("no more")
        had.append(socket.create_server((HOST, 0)))
        return had

    monkeypatch.setattr(workers, "bind_tcp", bind_tcp)
    with pytest.raises(OSError, match="no more"):
        await bind("127.0.0.1", 0, 2)
    assert had[0].fileno() == -1


@asynchronous
async def test_where_the_kernel_does_not_spread_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SPREADS", False)
    first, second = await bind("127.0.0.1", 0, 2)
    assert first is second
    workers._close([first, second])


# The command.


class Serving:
    """`fullduplex serve --workers 2`, its workers and its URLs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        line = self.line()
        found = re.fullmatch(r"listening on (.+) with 2 workers \(Ctrl-C ends it\)\n", line)
        assert found, line
        self.urls = found[1].split(", ")
        self.url = self.urls[0]
        self.workers = [self.worker("serves"), self.worker("serves")]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def worker(self, said: str) -> int:
        """Read on to the line that says this of a worker: whose number?"""
        line = self.line()
        while not (found := re.fullmatch(rf"worker (\d+) {re.escape(said)}\n", line)):
            assert line, said
            line = self.line()
        return int(found[1])

    def rest(self) -> str:
        """What is said to the end of all processes: each has the pipe."""
        assert self.process.stdout is not None
        return self.process.stdout.read()


@contextmanager
def serving(*args: str, command: tuple[str, ...] = COMMAND) -> Iterator[Serving]:
    with running(*command, "serve", "--port", "0", "--workers", "2", *args) as process:
        yield Serving(process)


async def connect_all(url: str, count: int = 32) -> list[library.ClientConnection]:
    return [await library.connect(url) for _ in range(count)]


async def closed(ws: library.ClientConnection) -> int:
    """The code that it was closed with."""
    with pytest.raises(library.ConnectionClosed) as caught:
        await ws.recv()
    return caught.value.code


# Elsewhere they share one socket: who is the first to accept has the connection, and may have them all.
SHARING = "import sys; from fullduplex.cli import main, workers; workers.SPREADS = False; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("command", [COMMAND, (sys.executable, "-c", SHARING)], ids=["spread", "shared"])
def test_all_serve_and_one_that_was_killed_is_replaced(command: tuple[str, ...]) -> None:
    with serving("--quiet", command=command) as it:

        async def clients() -> None:
            connections = await connect_all(it.url, 64)
            os.kill(it.workers[0], signal.SIGKILL)
            assert it.worker("has ended: Killed (signal 9)") == it.workers[0]
            ended = [ws for ws in connections if not await lives(ws)]
            assert command is not COMMAND or 0 < len(ended) < len(connections)
            assert {ws.close_code for ws in ended} <= {1006}
            assert it.worker("serves") not in it.workers
            for ws in await connect_all(it.url):
                await ws.send("again")
                assert await ws.recv() == "again"
                await ws.close()
            for ws in connections:
                await ws.close()

        run(clients())


async def lives(ws: library.ClientConnection) -> bool:
    try:
        await ws.send("?")
        return await ws.recv() == "?"
    except library.ConnectionClosed:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("everybody", [False, True], ids=["parent", "everybody"])
def test_the_end(number: signal.Signals, everybody: bool) -> None:
    """Somebody may send the signal to all processes, such as systemd: then some get it twice."""
    with serving() as it:

        async def stay() -> list[int]:
            connections = await connect_all(it.url, 8)
            for pid in (it.process.pid, *(it.workers if everybody else ())):
                os.kill(pid, number)
            return [await closed(ws) for ws in connections]

        assert run(stay()) == [1001] * 8
        assert it.process.wait(LIMIT) == 0
        assert it.process.stderr is not None
        assert it.process.stderr.read() == ""
        lines = it.rest().splitlines()
        assert sum("closed   1001 (going away), 0 messages" in line for line in lines) == 8, "\n".join(lines)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address_of(it.url))


def test_ctrl_c_twice_does_not_wait() -> None:
    with serving() as it, socket.create_connection(address_of(it.url)) as sock:
        sock.sendall(request(it.url))
        assert "opened" in it.line()
        it.process.send_signal(signal.SIGINT)
        data = b""
        while not data.endswith(b"\x88\x02\x03\xe9"):  # its close frame, which is not answered
            data += sock.recv(1)
        it.process.send_signal(signal.SIGINT)
        assert it.process.wait(LIMIT) == 130
        it.rest()


def test_the_parent_is_killed() -> None:
    with serving() as it:

        async def stay() -> int:
            ws = await library.connect(it.url)
            it.process.kill()
            return await closed(ws)

        assert run(stay()) == 1001
        it.rest()


def test_nobody_is_refused_while_all_are_replaced() -> None:
    with serving("--quiet") as it:

        async def clients() -> list[int]:
            replaced = asyncio.Event()

            async def come_and_go() -> int:
                count = 0
                while not replaced.is_set():
                    async with library.connect(it.url):
                        count += 1
                return count

            async def watch() -> list[int]:
                try:
                    it.process.send_signal(signal.SIGHUP)
                    return [
                        await asyncio.to_thread(it.worker, said) for said in ("serves", "has ended: exit code 0") * 2
                    ]
                finally:
                    replaced.set()

            connections = await connect_all(it.url)
            coming = [asyncio.ensure_future(come_and_go()) for _ in range(4)]
            pids = await watch()
            counts = await asyncio.gather(*coming)
            assert pids[1::2] == it.workers
            assert not {*pids[::2]} & {*it.workers}
            assert all(counts)
            return [await closed(ws) for ws in connections]

        assert run(clients()) == [1001] * 32
        assert run(exchange(it.url, "one")) == ["one"]


def test_the_files_of_tls_are_read_again(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    files = tmp_path / "cert", tmp_path / "key"
    certificate.cert_chain_pems[0].write_to_path(files[0])
    certificate.private_key_pem.write_to_path(files[1])
    with serving("--tls", *map(str, files)) as it:
        assert it.url.startswith("wss://127.0.0.1:")
        files[0].write_text("no certificate")
        it.process.send_signal(signal.SIGHUP)
        it.worker("has ended before it served: exit code 1; the workers that are there stay")
        certificate.cert_chain_pems[0].write_to_path(files[0])
        it.process.send_signal(signal.SIGHUP)
        it.worker("serves")
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(LIMIT) == 0
        assert it.process.stderr is not None
        assert it.process.stderr.read().startswith(f"fullduplex: cannot use --tls {files[0]}")


def test_its_terminal_is_closed() -> None:
    user, fd = pty.openpty()
    command = [*COMMAND, "serve", "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=fd, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        os.close(fd)
        try:
            seen = b""
            while seen.count(b"serves\r\n") < 2:
                seen += os.read(user, 65_536)
            process.send_signal(signal.SIGHUP)
            while seen.count(b"has ended: exit code 0\r\n") < 2:  # it is a terminal, but still there
                seen += os.read(user, 65_536)
            os.close(user)
            process.send_signal(signal.SIGHUP)
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()


def test_nobody_reads_the_lines() -> None:
    with serving() as it:
        assert it.process.stdout is not None
        assert it.process.stderr is not None
        it.process.stdout.close()

        async def stay() -> int:
            return await closed(await library.connect(it.url))

        assert run(stay()) == 1001
        assert it.process.wait(LIMIT) == 1
        assert it.process.stderr.read() == ""


def test_no_worker_can_start() -> None:
    script = "import sys; from fullduplex.cli import main; sys.executable = '/bin/false'; sys.exit(main(sys.argv[1:]))"
    with running(sys.executable, "-c", script, "serve", "--port", "0", "--workers", "2") as process:
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(r"fullduplex: worker \d+ has ended before it served: exit code 1\n", err)


def test_port_in_use() -> None:
    with serving() as it:
        port = str(address_of(it.url)[1])
        result = fullduplex("serve", "--port", port, "--workers", "2")
    assert result == (1, "", f"fullduplex: cannot listen on 127.0.0.1 port {port}: Address already in use\n")


def test_two_addresses() -> None:
    with serving("--host", "", "--quiet") as it:
        for url in it.urls:  # one, where there is no IPv6
            here = url.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
            assert run(exchange(here, "one")) == ["one"]


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_wrong_numbers(number: str) -> None:
    code, out, err = fullduplex("serve", "--workers", number)
    assert (code, out) == (2, "")
    assert err.startswith("usage: ")


def test_long_lines_are_cut() -> None:
    with serving() as it:
        run(exchange(f"{it.url}/{'long' * 1000}"))
        line = it.line()
        assert "opened   /longlong" in line
        assert len(line) < 600
