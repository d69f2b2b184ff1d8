"""Hosts and their addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from fullduplex.api.addresses import find_addresses, pack_address, unpack_address
from support import asynchronous


@asynchronous
async def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", None)
    for host, family, address in (
        ("127.0.0.1", socket.AF_UNSPEC, ("127.0.0.1", 80)),
        ("::1", socket.AF_UNSPEC, ("::1", 80, 0, 0)),
        (None, socket.AF_INET, ("0.0.0.0", 80)),
    ):
        found = await find_addresses(host, 80, family=family, flags=socket.AI_PASSIVE)
        assert [(kind, where) for _, kind, _, _, where in found] == [(socket.SOCK_STREAM, address)]


@asynchronous
async def test_a_name_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def getaddrinfo(*args: Any, **kwargs: Any) -> list[Any]:
        asked.append((*args, kwargs))
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    assert await find_addresses("host.invalid", 80, family=socket.AF_INET) == []
    assert asked == [("host.invalid", 80, {"family": socket.AF_INET, "type": socket.SOCK_STREAM, "flags": 0})]


@pytest.mark.parametrize(
    "address",
    [("192.0.2.1", 0), ("1.0.0.255", 65_535), ("2001:db8::1", 80, 0, 0), ("00:11:22:33:44:55", 1), (2, 1024)]
    + [None, "", "12", "/run/socket", b"\0abstract", b"\0ab"],
)
def test_what_is_packed_comes_out_again(address: Any) -> None:
    assert unpack_address(pack_address(address)) == address


def test_an_ipv4_address_is_small() -> None:
    assert pack_address(("192.0.2.1", 80)) == bytes((192, 0, 2, 1, 0, 80))
