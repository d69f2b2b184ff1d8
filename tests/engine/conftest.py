from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from engine.bench import Bench
from support import open_descriptors


@pytest.fixture
def bench() -> Iterator[Bench]:
    """An engine that leaves no descriptor behind."""
    before = open_descriptors()
    bench = Bench()
    yield bench
    bench.close()
    del bench
    gc.collect(0)
    assert open_descriptors() == before
