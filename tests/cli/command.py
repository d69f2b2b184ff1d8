"""Running the command in a process of its own, bounded in time, with nothing left behind."""

from __future__ import annotations

import asyncio
import codecs
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import fullduplex as library
from support import LIMIT

SOURCE = Path(library.__file__).parents[1]  # the form that is tested
COMMAND = (sys.executable, "-m", "fullduplex")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
    "PYTHONPATH": str(SOURCE),
    "TERM": "xterm",
}


class Result(NamedTuple):
    code: int
    out: str
    err: str


def fullduplex(*args: str, stdin: str = "") -> Result:
    """Run the command to its end."""
    done = subprocess.run(
        [*COMMAND, *args], input=stdin, capture_output=True, text=True, env=ENVIRONMENT, timeout=LIMIT, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


async def fullduplex_beside(*args: str, stdin: bytes = b"") -> Result:
    """Run it to its end, beside a server in this loop."""
    process = await begin(*args)
    try:
        out, err = await process.communicate(stdin)
    finally:
        await end(process)
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def begin(*args: str, stdin: int = subprocess.PIPE, stdout: int = subprocess.PIPE) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND, *args, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=ENVIRONMENT
    )


async def end(process: asyncio.subprocess.Process) -> None:
    """End the process if it has not ended, and wait for the end."""
    if process.returncode is None:
        process.kill()
    await process.communicate()


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on. Killed at the end, or when it takes too long, so that reading from it ends too."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


@contextmanager
def serving(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The echo server on a port of its own, and its URL."""
    with running(*COMMAND, "serve", "--port", "0", *args) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:2] == ["listening", "on"]
        yield process, words[2]


class Terminal:
    """A terminal that a command can run in: `user` is our end, `fd` the command's."""

    def __init__(self) -> None:
        self.user, self.fd = pty.openpty()
        self.seen = ""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode  # a read may end inside a character

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        os.close(self.user)

    def hang_up(self) -> None:
        """The command has its own copy of its end; ours goes, so that reading ends when the command does."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def type(self, text: str) -> None:
        os.write(self.user, text.encode())

    def read_until(self, text: str) -> str:
        """Read until this has been shown."""
        while text not in self.seen:
            data = self._read()
            assert data, f"{text!r} is not in {self.seen!r}"
        return self.seen

    def read_all(self) -> str:
        while self._read():
            pass
        return self.seen

    def _read(self) -> bytes:
        try:
            data = os.read(self.user, 65_536)
        except OSError:  # Linux: nobody has the other end any more
            data = b""
        self.seen += self._decode(data)
        return data
