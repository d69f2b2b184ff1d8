"""More than one core: several processes, each with a server of its own on the same port."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from pathlib import Path

import pytest

import fullduplex
from fullduplex import connect
from peers import HOST
from support import asynchronous

# Tells its number to everybody who connects, until its input ends.
SERVER = """
import asyncio, os, sys
import fullduplex

async def tell(ws):
    await ws.send(str(os.getpid()))

async def main():
    async with fullduplex.serve(tell, "127.0.0.1", int(sys.argv[1]), reuse_port=True):
        print("serves", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fullduplex.__file__).parents[1])}  # the form that is tested


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not spread connections")
@asynchronous
async def test_two_processes_share_a_port() -> None:
    """The port is held by a socket that does not listen: no connection goes there."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((HOST, 0))
        port = held.getsockname()[1]
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", SERVER, str(port), stdin=PIPE, stdout=PIPE, env=ENVIRONMENT
            )
            for _ in range(2)
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert await process.stdout.readline() == b"serves\n"
            served: Counter[str | bytes] = Counter()
            for _ in range(200):
                async with connect(f"ws://{HOST}:{port}/") as ws:
                    served[await ws.recv()] += 1
            # Each connection goes to one of the two by chance: one in 2^100 times, one would have fewer than 10.
            assert set(served) == {str(process.pid) for process in processes}
            assert min(served.values()) >= 10
        finally:
            for process in processes:
                await process.communicate(b"")
        assert [process.returncode for process in processes] == [0, 0]
