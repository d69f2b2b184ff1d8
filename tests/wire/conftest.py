from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from wire.subject import Make, Subject


@pytest.fixture(params=[True, False], ids=["server", "client"])
def server(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def make(server: bool) -> Make:
    """A subject in either role."""
    return lambda **settings: Subject(server, **settings)


@pytest.fixture
def subject(make: Make) -> Subject:
    return make()


@pytest.fixture
def traced() -> Iterator[None]:
    """What `peak` measures by."""
    tracemalloc.start()
    yield
    tracemalloc.stop()
