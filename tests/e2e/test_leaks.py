"""Nothing stays of what a process has served. `soak.py` does the same at length."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from sys import getallocatedblocks

import pytest

from e2e.census import grown
from e2e.soak import soak
from fullduplex import ProtocolError
from support import LoopFactory, asynchronous


@asynchronous
async def test_nothing_grows(loop_factory: LoopFactory) -> None:
    assert await soak(20_000, 4_000, 4) == {}


# That it would be seen.


def keep_objects(kept: list[object]) -> None:
    kept.append(Counter())


def keep_blocks(kept: list[object]) -> None:
    kept.extend(bytes(100) for _ in range(1000))


def keep_references(kept: list[object]) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(ProtocolError))


@pytest.mark.parametrize(
    ("keep", "what"),
    [
        (keep_objects, "objects: collections.Counter"),
        pytest.param(
            keep_blocks, "blocks", marks=pytest.mark.skipif(not getallocatedblocks(), reason="another malloc")
        ),
        (keep_references, "references: fullduplex.wire.errors.ProtocolError"),
    ],
)
@asynchronous
async def test_what_grows_is_seen(keep: Callable[[list[object]], None], what: str) -> None:
    kept: list[object] = []

    async def step() -> None:
        for _ in range(10):
            keep(kept)

    assert what in await grown(step, 4)
