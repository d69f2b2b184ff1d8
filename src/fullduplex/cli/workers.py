"""Several processes that serve one port, and the one that keeps them running: their parent.

    parent   binds the port and listens, then starts the workers and watches them; accepts nothing itself
    worker   the same command once more, which inherits listening sockets and one end of a channel (see post.py)

The channel says two things: by a byte that the worker serves, by its end that the process at the other end has ended.

Each worker has listening sockets of its own (SO_REUSEPORT), over which the kernel spreads what comes. The parent keeps
them, over the worker that binds them: their end would reset connections that wait in them for the next worker. Workers
are started anew, over forked: they share no loop, thread or lock, and run what is installed when they start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Final, Self

from ..api.listening import bind_tcp
from ..api.server import BACKLOG
from .text import Failure

OPTION: Final = "--inherit"  # of a worker: the descriptors of the channel, then of the sockets

# Seconds.
START_LIMIT: Final = 30.0  # until a worker serves, which takes it a fraction of one: only what hangs meets this
END_LIMIT: Final = 15.0  # until it has ended; its opening handshakes may take 1, its closing handshakes 10
STEADY: Final = 10.0  # a worker that has lived so long is followed at once, ...
PAUSE: Final = 0.25  # ... another one after this, doubled each time, ...
LONGEST_PAUSE: Final = 8.0  # ... and no more: clients, who wait in the queue, give up after 10

# Other systems give all connections to one of the sockets; there the workers share one.
SPREADS: Final = sys.platform == "linux"

Sockets = Sequence[socket.socket]  # of one place, one for each address of the host


async def bind(host: str, port: int, count: int) -> Sequence[Sockets]:
    """Listen for so many workers: the sockets of each. Raises OSError."""
    listen = partial(bind_tcp, host, family=socket.AF_UNSPEC, backlog=BACKLOG, reuse_address=None)
    if not SPREADS:
        return [await listen(port=port, reuse_port=False)] * count
    if port:
        # Two servers with SO_REUSEPORT share a port, and nobody is told; one without it learns that the port is taken.
        for sock in await listen(port=port, reuse_port=False):
            sock.close()
    places: list[list[socket.socket]] = []
    try:
        for _ in range(count):
            places.append(await listen(port=port, reuse_port=True))
            port = places[0][0].getsockname()[1]
    except OSError:
        _close(places)
        raise
    return places


def _close(places: Iterable[Sockets]) -> None:
    for sock in chain.from_iterable(places):
        sock.close()


class Worker:
    """A process, as its parent sees it."""

    def __init__(self, process: Process, channel: socket.socket) -> None:
        self.pid = process.pid
        self.began = time.monotonic()
        self._process = process
        self._channel = channel

    @classmethod
    async def start(cls, command: Sequence[str], sockets: Sockets) -> Self:
        """Raises OSError."""
        channel, other = socket.socketpair()
        channel.setblocking(False)
        with other:
            descriptors = [other.fileno(), *(sock.fileno() for sock in sockets)]
            arguments = [*command, OPTION, ",".join(map(str, descriptors))]
            try:  # in a process group of its own: Ctrl-C is for the parent, who passes it on
                process = await asyncio.create_subprocess_exec(
                    *arguments, stdin=DEVNULL, pass_fds=descriptors, process_group=0
                )
            except BaseException:
                channel.close()
                raise
        return cls(process, channel)

    async def wait_serving(self) -> bool:
        """Wait until it serves, or does not come to that."""
        try:
            async with asyncio.timeout(START_LIMIT):
                return bool(await asyncio.get_running_loop().sock_recv(self._channel, 1))
        except TimeoutError:
            return False

    async def wait_end(self) -> str:
        """Wait until it has ended, and tell how."""
        code = await self._process.wait()
        self._channel.close()
        return f"exit code {code}" if code >= 0 else f"{signal.strsignal(-code)} (signal {-code})"

    async def end(self) -> str:
        """Ask it to end, and wait; the hard way if it takes too long."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_LIMIT):
                return await self.wait_end()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> str:
        self._signal(signal.SIGKILL)
        return await self.wait_end()

    def _signal(self, number: signal.Signals) -> None:
        # Not with send_signal: that may find the end of the process before asyncio does, who then has no exit code.
        with suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.kill(self.pid, number)


class Place:
    """Listening sockets, and the last worker that has served there."""

    worker: Worker

    def __init__(self, sockets: Sockets) -> None:
        self.sockets = sockets
        self.changing = asyncio.Lock()
        self._pause = 0.0

    def next_pause(self, lived: float) -> float:
        """Seconds to wait before the next worker starts, when the one before lived so long."""
        self._pause = 0.0 if lived >= STEADY else min(max(2 * self._pause, PAUSE), LONGEST_PAUSE)
        return self._pause


class Supervisor:
    """Keeps a worker, which `command` starts, in each of the `places` until the end is `wanted`.

    The sockets are its own from now on. `say` is called with a line for each event; what it raises ends it all.
    """

    def __init__(
        self,
        command: Sequence[str],
        places: Sequence[Sockets],
        say: Callable[[str], None],
        wanted: asyncio.Future[None],
    ) -> None:
        self._command = command
        self._places = [Place(sockets) for sockets in places]
        self._say = say
        self._wanted = wanted
        self._living: set[Worker] = set()
        self._serving: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewal = asyncio.Event()

    async def run(self, listening: str) -> None:
        """Start the workers, say that they are `listening`, keep them running, and end them.

        Raises Failure if a worker cannot be started and no other one serves, and the error that `wanted` has.
        """
        try:
            self._spawn(self._keep(listening))
            await self._wanted
        finally:
            _close(place.sockets for place in self._places)  # who comes now is refused, rather than left to wait
            try:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await asyncio.gather(*(worker.end() for worker in self._living))
            finally:  # all have ended, or somebody is impatient
                await asyncio.gather(*(worker.kill() for worker in self._living))

    def renew(self) -> None:
        """Replace the workers one by one; the next one starts before the one before it is asked to end."""
        self._renewal.set()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._wanted.done():
            self._wanted.set_exception(error)

    async def _keep(self, listening: str) -> None:
        await asyncio.gather(*[self._spawn(self._fill(place)) for place in self._places])
        self._say(listening)
        for place in self._places:
            self._say(f"worker {place.worker.pid} serves")
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            await self._replace_all()

    async def _fill(self, place: Place) -> None:
        """Have a new worker serve in a place. Raises Failure if it does not come to that; then nothing has changed."""
        try:
            worker = await Worker.start(self._command, place.sockets)
        except OSError as error:
            raise Failure(f"cannot start a worker: {error}") from None
        self._living.add(worker)
        if not await worker.wait_serving():
            fate = await worker.end()
            self._living.discard(worker)
            raise Failure(f"worker {worker.pid} has ended before it served: {fate}")
        place.worker = worker
        self._serving.add(worker)
        self._spawn(self._watch(place, worker))

    async def _watch(self, place: Place, worker: Worker) -> None:
        fate = await worker.wait_end()
        self._living.discard(worker)
        self._serving.discard(worker)
        self._say(f"worker {worker.pid} has ended: {fate}")
        async with place.changing:
            if place.worker is worker:  # nobody has replaced it
                await self._refill(place, time.monotonic() - worker.began)

    async def _refill(self, place: Place, lived: float) -> None:
        while True:
            await asyncio.sleep(place.next_pause(lived))
            try:
                await self._fill(place)
                self._say(f"worker {place.worker.pid} serves")
                return
            except Failure as failure:
                if not self._serving:
                    raise
                self._say(str(failure))
                lived = 0.0

    async def _replace_all(self) -> None:
        for place in self._places:
            async with place.changing:
                before = place.worker
                try:
                    await self._fill(place)
                except Failure as failure:
                    self._say(f"{failure}; the workers that are there stay")
                    return
                self._say(f"worker {place.worker.pid} serves")
            await before.end()
