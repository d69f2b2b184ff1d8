from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator

import pytest

from engine.bench import Bench
from peers import tls
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


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server, and of a client that trusts it."""
    return tls()
