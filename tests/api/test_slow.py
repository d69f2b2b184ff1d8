"""What becomes of messages for a peer that stops reading. Its socket has a fixed size, so every count is exact."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.stuck import CHUNK, stuck, until
from fullduplex import ConcurrencyError, ConnectionClosed, Limits, Policy, State, broadcast
from fullduplex.api import slow
from fullduplex.api.slow import OVERHEAD, REASON
from peers import BINARY, CLOSE, TEXT, Frame, close_frame, encode
from support import LoopFactory, asynchronous

GOODBYE = Frame(CLOSE, b"\x03\xf5" + REASON.encode())


# Each policy.

EVERY: list[tuple[Policy, list[str], int]] = [
    (Policy.WAIT, ["a", "b", "c"], 0),
    (Policy.DROP_NEWEST, [], 3),
    (Policy.DROP_OLDEST, ["a", "b", "c"], 0),
    (Policy.LATEST, ["c"], 2),
]


@pytest.mark.parametrize(("policy", "received", "dropped"), EVERY)
@asynchronous
async def test_what_arrives(
    policy: Policy, received: list[str], dropped: int, tmp_path: Path, loop_factory: LoopFactory
) -> None:
    async with stuck(tmp_path, policy) as (ws, peer):
        for message in "abc":
            ws.send(message)
        assert await peer.rest() == received
        assert ws.dropped == dropped
        # It is quick now: nothing is dropped any more.
        ws.send("d")
        ws.send("e")
        assert await peer.rest() == ["d", "e"]
        assert ws.dropped == dropped
        assert ws.buffered_amount == 0


@asynchronous
async def test_close(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async with stuck(tmp_path, Policy.CLOSE) as (ws, peer):
        await ws.send("too much")
        assert ws.dropped == 1
        assert ws.state is State.CLOSING
        refused = ws.send("later")
        raw = await peer.read()
        assert await raw.frame() == GOODBYE
        raw.write(close_frame(1013, mask=True))
        with pytest.raises(ConnectionClosed, match=REASON):
            await refused
        assert ws.dropped == 1


@asynchronous
async def test_close_does_not_wait_for_who_never_reads(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.CLOSE, close_timeout=0.1) as (ws, _):
        await ws.send("too much")
        await ws.wait_closed()
        assert ws.close_exc is not None
        assert ws.close_exc.sent == (1013, REASON)


@pytest.mark.parametrize("policy", [policy for policy in Policy if policy is not Policy.WAIT])
@asynchronous
async def test_only_who_waits_is_made_to(policy: Policy, tmp_path: Path) -> None:
    async with stuck(tmp_path) as (ws, peer):
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.ensure_future(others())
        waiting = asyncio.ensure_future(ws.send("waits"))
        await until(lambda: ws._drain_waiters)
        ws.policy = policy
        seen = turns
        await ws.send("does not")
        assert turns > seen  # but it lets others run
        assert not waiting.done()
        await peer.read()
        await waiting
        running.cancel()
        await asyncio.wait([running])


@asynchronous
async def test_the_message_that_makes_it_slow_does_not_wait_either(tmp_path: Path) -> None:
    async with stuck(tmp_path) as (ws, peer):
        await peer.read()
        ws.policy = Policy.DROP_NEWEST
        while not ws.is_slow:
            await ws.send(CHUNK)
        assert ws.dropped == 0


def test_what_is_no_policy() -> None:
    wrong: list[Any] = ["wait", None, 3]
    for policy in wrong:
        with pytest.raises(TypeError, match="policy"):
            slow.check_policy(policy)


@asynchronous
async def test_a_policy_can_be_set(tmp_path: Path) -> None:
    async with stuck(tmp_path) as (ws, peer):
        assert ws.policy is Policy.WAIT
        ws.policy = Policy.WAIT
        assert ws.backlog is None  # who holds nothing needs no place for it
        assert ws.dropped == 0
        with pytest.raises(TypeError):
            ws.policy = "latest"  # type: ignore[assignment]
        ws.policy = Policy.DROP_NEWEST
        assert ws.policy is Policy.DROP_NEWEST
        ws.send("dropped")
        ws.policy = Policy.WAIT
        ws.send("sent")
        assert await peer.rest() == ["sent"]
        assert ws.dropped == 1


# What is held.


@asynchronous
async def test_the_oldest_goes_when_too_much_is_held(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        waits = ws.link.buffered()
        size = 32_768 // 3 - OVERHEAD
        messages = [str(n) * size for n in range(5)]
        for message in messages:
            ws.send(message)
        assert ws.dropped == 2
        assert ws.buffered_amount == waits + 3 * size
        assert await peer.rest() == messages[2:]
        assert ws.buffered_amount == 0


@asynchronous
async def test_the_newest_is_held_whatever_its_size(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        ws.send("a")
        ws.send("b" * 100_000)
        assert ws.dropped == 1
        ws.send("c")
        assert ws.dropped == 2
        assert await peer.rest() == ["c"]


@asynchronous
async def test_empty_messages_are_not_held_without_end(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        for _ in range(1000):
            ws.send("")
        assert ws.dropped == 1000 - 32_768 // OVERHEAD
        assert await peer.rest() == [""] * (1000 - ws.dropped)


@asynchronous
async def test_the_latest_of_each_key_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.LATEST) as (ws, peer):
        waits = ws.link.buffered()
        for message in ("a1", "b1", "a2", "c1", "a3333"):
            ws.send(message, key=message[0])
        ws.send("x")
        ws.send("y", key=None)
        assert ws.dropped == 3
        assert ws.buffered_amount == waits + len("a3333b1c1y")
        assert await peer.rest() == ["a3333", "b1", "c1", "y"]


@asynchronous
async def test_too_many_latest_values_close_the_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slow, "MAX_LATEST", 10_000)
    async with stuck(tmp_path, Policy.LATEST) as (ws, peer):
        ws.send("a" * 20_000, key="a")
        ws.send("A" * 20_000, key="a")  # alone, a value may have any size
        assert ws.dropped == 1
        assert ws.session.sent is None
        ws.send("b", key="b")
        assert ws.dropped == 2
        assert ws.session.sent == (1013, REASON)
        raw = await peer.read()
        assert await raw.frame() == Frame(TEXT, b"A" * 20_000)
        assert await raw.frame() == GOODBYE


@asynchronous
async def test_values_that_grow_are_bounded_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slow, "MAX_LATEST", 10_000)
    async with stuck(tmp_path, Policy.LATEST) as (ws, _):
        for key in "ab":
            ws.send("", key=key)
        ws.send("a" * 20_000, key="a")
        assert ws.session.sent is None
        ws.send("b" * 20_000, key="b")
        assert ws.session.sent == (1013, REASON)


@asynchronous
async def test_policies_side_by_side(tmp_path: Path) -> None:
    """Each keeps its own bound, and the order holds across them."""
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        big = "b" * 20_000
        broadcast([ws], "x1" + big, policy=Policy.LATEST, key="x")
        ws.send("1" + big)
        broadcast([ws], "y1" + big, policy=Policy.LATEST, key="y")
        ws.send("2" + big)
        ws.send("3")
        broadcast([ws], "x2" + big, policy=Policy.LATEST, key="x")
        broadcast([ws], "dropped", policy=Policy.DROP_NEWEST)
        assert await peer.rest() == ["x2" + big, "y1" + big, "2" + big, "3"]
        assert ws.dropped == 3


@asynchronous
async def test_what_is_held_leaves_as_far_as_the_peer_takes_it(tmp_path: Path) -> None:
    # Its low mark is 0: it goes on when nothing waits any more.
    async with stuck(tmp_path, Policy.LATEST, write_limit=(32_768, 0)) as (ws, peer):
        messages = [letter * 300_000 for letter in "abc"]
        for message in messages:
            ws.send(message, key=message[0])
        raw = await peer.read()
        for rest, message in ((2, messages[0]), (1, messages[1]), (0, messages[2])):
            backlog = ws.backlog
            assert backlog is not None
            assert len(backlog.held or ()) == rest
            assert await raw.frame() == Frame(TEXT, message.encode())
        assert await peer.rest() == []
        assert ws.dropped == 0


@asynchronous
async def test_what_is_held_is_as_it_was_when_it_was_sent(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        buffer = bytearray(b"before")
        ws.send(buffer)
        ws.send(memoryview(buffer)[::2])
        ws.send("text", False)
        ws.send(b"bytes", True)
        broadcast([ws], buffer)
        buffer[:] = b"after!"
        raw = await peer.read()
        assert [await raw.frame() for _ in range(5)] == [
            Frame(BINARY, b"before"),
            Frame(BINARY, b"bfr"),
            Frame(BINARY, b"text"),
            Frame(TEXT, b"bytes"),
            Frame(BINARY, b"before"),
        ]


@asynchronous
async def test_a_mistake_is_one_whether_the_peer_is_slow_or_not(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.LATEST) as (ws, peer):
        for _ in range(2):
            wrong: Any = 5
            with pytest.raises(TypeError, match="bytes-like"):
                await ws.send(wrong)
            with pytest.raises(TypeError, match="hash"):
                ws.send("x", key=[])  # type: ignore[arg-type]
            with pytest.raises(UnicodeEncodeError):
                ws.send("\ud800")
            assert await peer.rest() == []
        assert ws.dropped == 0


# Nothing overtakes what is held.


@pytest.mark.parametrize("policy", [Policy.WAIT, Policy.DROP_NEWEST, Policy.CLOSE])
@asynchronous
async def test_what_is_sent_takes_along_what_is_held(policy: Policy, tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        ws.send("held")
        # Less waits now than makes a peer slow, but more than lets it go on.
        ws.settings.write_high = ws.link.buffered()
        assert not ws.is_slow
        ws.send("held, too")
        ws.policy = policy
        ws.send("sent")
        backlog = ws.backlog
        assert backlog is not None
        assert backlog.held is None
        assert await peer.rest() == ["held", "held, too", "sent"]
        assert ws.dropped == 0


@asynchronous
async def test_who_waits_takes_along_what_is_held(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.LATEST) as (ws, peer):
        ws.send("a", key="a")
        ws.policy = Policy.WAIT
        waiting = asyncio.ensure_future(ws.send("b"))
        await until(lambda: ws._drain_waiters)
        ws.policy = Policy.LATEST
        ws.send("a2", key="a")
        assert await peer.rest() == ["a", "b", "a2"]
        await waiting


@asynchronous
async def test_a_message_in_fragments_waits_and_takes_along_what_is_held(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.LATEST) as (ws, peer):
        ws.send("a")
        sending = asyncio.ensure_future(ws.send(["1", "2", "3"]))
        await until(lambda: ws._drain_waiters)
        ws.send("b")  # it cannot stand inside that one
        ws.send("c")
        in_turn = asyncio.ensure_future(ws.send(["4", "5"]))
        raw = await peer.read()
        frames = [await raw.frame() for _ in range(9)]
        assert [frame.payload for frame in frames if frame] == [b"a", b"1", b"2", b"3", b"", b"c", b"4", b"5", b""]
        await asyncio.gather(sending, in_turn)
        assert ws.dropped == 1


@asynchronous
async def test_in_its_turn_a_message_goes_the_way_of_its_policy(tmp_path: Path) -> None:
    async with stuck(tmp_path) as (ws, peer):
        ws.session.sending = TEXT
        in_turn = [ws.send(message, key=message[0]) for message in ("a1", "b1", "a2")]
        ws.session.sending = 0
        ws.policy = Policy.LATEST
        await asyncio.gather(*in_turn)
        assert await peer.rest() == ["a2", "b1"]


@asynchronous
async def test_what_is_held_leaves_by_itself(tmp_path: Path) -> None:
    """No other message brings it along, and no deadline."""
    options: dict[str, Any] = {"open_timeout": None, "ping_interval": None, "limits": Limits(unsent=None)}
    async with stuck(tmp_path, Policy.LATEST, write_limit=(32_768, 0), **options) as (ws, peer):
        ws.send("a")
        raw = await peer.read()
        assert await raw.frame() == Frame(TEXT, b"a")


@asynchronous
async def test_inside_a_message_in_fragments(tmp_path: Path) -> None:
    """What is held cannot leave with a drain then, but with the end of that message."""
    async with stuck(tmp_path) as (ws, peer):
        going_on = asyncio.Event()

        async def parts() -> AsyncIterator[str]:
            yield "1"
            await going_on.wait()
            yield "2"

        sending = asyncio.ensure_future(ws.send(parts()))
        await until(lambda: ws.session.sending)
        ws.policy = Policy.DROP_OLDEST
        ws.send("held")
        with pytest.raises(ExceptionGroup) as caught:
            broadcast([ws], "passed over", True, policy=Policy.WAIT)
        assert isinstance(caught.value.exceptions[0], ConcurrencyError)
        raw = await peer.read()
        assert await raw.frame() == Frame(TEXT, b"1", False)
        await until(lambda: not ws.buffered_amount - len("held"))
        ws.send("held, too")
        going_on.set()
        await sending
        frames = [await raw.frame() for _ in range(4)]
        assert [frame.payload for frame in frames if frame] == [b"2", b"", b"held", b"held, too"]


# The end.


@asynchronous
async def test_a_goodbye_takes_along_what_is_held(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        ws.send("a")
        ws.send("b")
        ws.close(4000)
        raw = await peer.read()
        frames = [await raw.frame() for _ in range(3)]
        assert frames == [Frame(TEXT, b"a"), Frame(TEXT, b"b"), Frame(CLOSE, b"\x0f\xa0")]
        assert ws.dropped == 0


@asynchronous
async def test_inside_a_message_in_fragments_it_cannot(tmp_path: Path) -> None:
    async with stuck(tmp_path) as (ws, peer):
        sending = asyncio.ensure_future(ws.send(["1", "2"]))
        await until(lambda: ws.session.sending)
        ws.policy = Policy.DROP_OLDEST
        ws.send("a")
        ws.close(4000)
        raw = await peer.read()
        assert await raw.frame() == Frame(TEXT, b"1", False)
        assert await raw.frame() == Frame(CLOSE, b"\x0f\xa0")
        with pytest.raises(ConnectionClosed):
            await sending
        assert ws.dropped == 1


@asynchronous
async def test_the_peers_goodbye_drops_what_is_held(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        ws.send("a")
        ws.send("b")
        peer.sock.send(close_frame(1000, mask=True))
        await until(lambda: ws.state is not State.OPEN)
        raw = await peer.read()
        assert await raw.frame() == Frame(CLOSE, b"\x03\xe8")
        assert ws.dropped == 2
        assert ws.buffered_amount == 0


@asynchronous
async def test_a_failure_drops_what_is_held(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """What waits leaves behind it, and the peer has time to read that: nothing held may follow the close frame."""
    async with stuck(tmp_path, Policy.DROP_OLDEST) as (ws, peer):
        ws.send("a")
        ws.send("b")
        peer.sock.send(encode(TEXT, b"not masked"))
        await until(lambda: ws.state is not State.OPEN)
        ws.close()
        raw = await peer.read()
        frame = await raw.frame()
        assert frame is not None
        assert frame.payload[:2] == b"\x03\xea"
        assert await raw.frame() is None
        peer.leave()
        await ws.wait_closed()
        assert ws.dropped == 2
        assert ws.buffered_amount == 0
        assert "error" not in caplog.text


@asynchronous
async def test_the_end_drops_what_is_held(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.LATEST) as (ws, peer):
        ws.send("a", key="a")
        ws.send("b", key="b")
        peer.sock.close()
        await ws.wait_closed()
        assert ws.dropped == 2
        assert ws.buffered_amount == 0
        with pytest.raises(ConnectionClosed):
            await ws.send("c")
        assert ws.dropped == 2


@asynchronous
async def test_the_end_while_it_leaves(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.LATEST) as (ws, _):
        for key in "abc":
            ws.send(key * 50_000, key=key)
        ws.settings.write_high = ws.link.buffered()  # it takes more again
        backlog = ws.backlog
        assert backlog is not None
        ws.link.unsent = None  # the kernel is asked again, and tells that TCP has ended
        ws.link.sock.shutdown(socket.SHUT_RDWR)
        backlog.release(ws)
        await ws.wait_closed()
        assert ws.dropped == 2  # one was on its way
