"""Sockets to listen on."""

from __future__ import annotations

import errno
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fullduplex.api import listening
from fullduplex.api.listening import bind_tcp, bind_unix
from support import asynchronous

IPV6 = socket.has_ipv6
try:
    socket.create_server(("::1", 0), family=socket.AF_INET6).close()
except OSError:
    IPV6 = False


@contextmanager
def closing(sockets: list[socket.socket]) -> Iterator[list[tuple[Any, ...]]]:
    """Gives the addresses."""
    try:
        yield [sock.getsockname() for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


async def bind(host: str | Sequence[str] | None, port: int | None = 0, **options: Any) -> list[socket.socket]:
    defaults = {"family": socket.AF_UNSPEC, "backlog": 10, "reuse_address": None, "reuse_port": False}
    return await bind_tcp(host, port, **(defaults | options))


@asynchronous
async def test_several_hosts_share_a_port() -> None:
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
    with closing(await bind(hosts)) as addresses:
        assert [host for host, _ in addresses] == ["127.0.0.1", "127.0.0.2"]
        assert len({port for _, port in addresses}) == 1
        assert addresses[0][1] > 0


@asynchronous
async def test_all_interfaces() -> None:
    for host in (None, ""):
        with closing(await bind(host, None)) as addresses:
            assert {address[0] for address in addresses} == ({"0.0.0.0", "::"} if IPV6 else {"0.0.0.0"})
    with closing(await bind(None, family=socket.AF_INET)) as addresses:
        assert [address[0] for address in addresses] == ["0.0.0.0"]


@pytest.mark.skipif(not IPV6, reason="needs IPv6")
@asynchronous
async def test_ipv6() -> None:
    with closing(await bind("::1")) as addresses:
        assert addresses[0][0] == "::1"


@asynchronous
async def test_a_port_that_is_taken() -> None:
    with closing(await bind("127.0.0.1")) as addresses:
        port = addresses[0][1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}") as caught:
            await bind(["127.0.0.2", "127.0.0.1"], port)
        assert caught.value.errno == errno.EADDRINUSE


@asynchronous
async def test_options() -> None:
    first = await bind("127.0.0.1", reuse_port=True)
    port = first[0].getsockname()[1]
    with closing(first + await bind("127.0.0.1", port, reuse_port=True, reuse_address=False)) as addresses:
        assert addresses == [("127.0.0.1", port)] * 2


@asynchronous
async def test_a_family_that_is_off_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    real = listening._listen

    def without_ipv6(family: int, *args: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "off")
        return real(family, *args)

    monkeypatch.setattr(listening, "_listen", without_ipv6)
    with closing(await bind(None)) as addresses:
        assert [address[0] for address in addresses] == ["0.0.0.0"]
    with pytest.raises(OSError, match="off"):
        await bind(["127.0.0.1", "::1"])


@asynchronous
async def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(OSError, match="cannot listen on 192"):
        await bind("192.0.2.1")


def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):  # the second replaces what the first left behind
        with closing([bind_unix(path, 10)]):
            assert stat.S_ISSOCK(path.stat().st_mode)
    with closing([bind_unix("\0fullduplex-test", 10)]) as addresses:
        assert list(addresses) == [b"\0fullduplex-test"]  # type: ignore[comparison-overlap]
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="cannot listen on"):
        bind_unix(tmp_path / "file", 10)
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(OSError, match="too long"):
        bind_unix(str(tmp_path / ("x" * 200)), 10)
