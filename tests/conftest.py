from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import settings

from fullduplex.wire import deflate
from support import LoopFactory

pytest.register_assert_rewrite("e2e.tools")  # for tests of `api`, too

# Time on a shared machine says nothing about an example.
settings.register_profile("fullduplex", deadline=None)
settings.load_profile("fullduplex")


@pytest.fixture(autouse=True, scope="session")
def compression() -> None:
    """What is installed for the tests of `deflate` is not what most programs have."""
    deflate._quickest = deflate._leveled = deflate._inflating = deflate.load_backend(["zlib"])


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """The event loops that the asyncio face promises to work on."""
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop")
    # The first loop of a process opens descriptors that the library keeps: not a leak of the test that comes first.
    uvloop.new_event_loop().close()
    factory: LoopFactory = uvloop.new_event_loop
    return factory


def pytest_collection_finish() -> None:
    """What has been imported stays: spare it the collection at the end of each asynchronous test."""
    gc.collect()
    gc.freeze()
