"""What the connections of one server have in common."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fullduplex import Policy
from fullduplex.api.settings import Settings, make_extensions
from fullduplex.extensions import PerMessageDeflate, TransferRate
from fullduplex.wire.opcodes import NO_LIMIT

DEFAULTS: dict[str, Any] = {
    "open_timeout": 10,
    "ping_interval": 20,
    "ping_timeout": 20,
    "close_timeout": 10,
    "max_size": 2**20,
    "max_queue": 16,
    "write_limit": 2**15,
    "logger": None,
}


def test_defaults() -> None:
    server, client = Settings(True, **DEFAULTS), Settings(False, **DEFAULTS)
    assert (server.queue_high, server.queue_low, server.queue_size) == (16, 4, 2**20)
    assert (server.write_high, server.write_low) == (2**15, 2**13)
    assert server.logger is logging.getLogger("fullduplex.server")
    assert client.logger is logging.getLogger("fullduplex.client")
    assert server.mask_keys is None
    assert client.make_session()._mask_keys is client.mask_keys is not None
    session = server.make_session()
    assert (session.max_size, session.max_frame, session.server) == (2**20, 2**20, True)


def test_pairs_and_no_limits() -> None:
    given = {"max_size": (100, 10), "max_queue": (8, 1), "write_limit": (9, 0), "logger": logging.getLogger("mine")}
    settings = Settings(True, **(DEFAULTS | given))
    session = settings.make_session()
    assert (session.max_size, session.max_frame) == (100, 10)
    assert (settings.queue_high, settings.queue_low, settings.queue_size) == (8, 1, 2**20)
    assert (settings.write_high, settings.write_low) == (9, 0)
    assert settings.logger.name == "mine"
    nothing: dict[str, Any] = dict.fromkeys(DEFAULTS)
    settings = Settings(True, **nothing)
    session = settings.make_session()
    assert settings.queue_high == settings.queue_size == settings.write_high == session.max_size == NO_LIMIT
    assert session.keepalive is None
    assert session.close_timeout == float("inf")
    assert Settings(True, **(DEFAULTS | {"max_size": 2**30})).queue_size == 2**30


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_is_above_zero(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(True, **(DEFAULTS | {name: seconds}))


def test_a_policy_is_one() -> None:
    assert Settings(True, **DEFAULTS, policy=Policy.CLOSE).policy is Policy.CLOSE
    with pytest.raises(TypeError, match="a policy is"):
        Settings(True, **(DEFAULTS | {"policy": "close"}))


def test_compression() -> None:
    other = TransferRate()
    usual, *rest = make_extensions("deflate", [other])
    assert isinstance(usual, PerMessageDeflate)
    assert rest == [other]
    assert make_extensions(None, [other]) == (other,)
    mine = PerMessageDeflate(threshold=9)
    assert make_extensions(mine, []) == (mine,)
    with pytest.raises(ValueError, match="compression is"):
        make_extensions("gzip", [])  # type: ignore[arg-type]
