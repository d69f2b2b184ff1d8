"""permessage-deflate with other libraries: what is agreed on, and that both sides keep to it on the wire.

A tap hears both sides; what each compresses is inflated with the window that was agreed on and no larger, and with an
empty window where there is no context takeover. Whoever uses more than was agreed fails that.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import product

import pytest

from fullduplex import Connection
from interop.compressing import (
    SCRIPT,
    Library,
    Node,
    Terms,
    aiohttp_client,
    aiohttp_server,
    meeting,
    run_node,
    websockets_client,
    websockets_server,
)
from interop.libraries import Data
from interop.tap import CLIENT, SERVER, Message, Parameters, Tap
from support import asynchronous

RANDOM = random.Random(7692)
RECORDS = [{"id": i, "price": RANDOM.randrange(10_000) / 100, "side": "buy"} for i in range(2400)]
JSON = json.dumps(RECORDS)[:100_000]
SMALL = JSON[:200]
NOISE = RANDOM.randbytes(2000)
HEAVY = RANDOM.randbytes(100_000)
MESSAGES: list[Data] = ["", b"", "€", SMALL, SMALL, SMALL.encode(), NOISE, "é" * 1000, JSON.encode()]
PARTS = [JSON[:1000], "", JSON[1000:9000], JSON[9000:20_000]]
WHOLE = "".join(PARTS)
SENT = [*MESSAGES, WHOLE, WHOLE, SMALL]
TWINS = 3, 4  # where the same message stands twice
COMPRESSIBLE = [i for i, message in enumerate(SENT) if len(message) > 100 and message is not NOISE]

OUR_BITS = 12  # the window that we compress with by default


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    if shutil.which("node") is None or not (SCRIPT.parent / "node_modules").exists():
        pytest.skip("no Node.js, or not its packages, which `make test` installs")
    with run_node() as node:
        yield node


@pytest.fixture
def library(request: pytest.FixtureRequest) -> Library:
    match request.param:
        case "websockets":
            return Library("websockets", websockets_client, websockets_server)
        case "aiohttp":
            return Library("aiohttp", aiohttp_client, aiohttp_server, sends_fragments=False)
        case name:
            made: Library = getattr(request.getfixturevalue("node"), name)()
            return made


async def converse(ws: Connection) -> None:
    async def parts() -> AsyncIterator[str]:
        for part in PARTS:
            yield part
            await (await ws.ping())

    for message in MESSAGES:
        await ws.send(message)
        assert await ws.recv() == message
    for _ in range(2):
        await ws.send(parts())
        assert await ws.recv() == WHOLE
    await ws.send(SMALL)
    assert await ws.recv() == SMALL


# What is agreed on: {(asked by the client, by the server): answered}; a client asks with an offer, a server has its
# settings. None: nothing is asked, or answered. client_max_window_bits is always offered, for None with no value.

BITS = (None, 9, 12, 15)

Table = dict[tuple[int | None, int | None], int | None]

# Our server names its own window only if it is asked to, and always asks for a small one of clients.
ASKED_US: Table = {(9, None): 9, (10, None): 10, (11, None): 11, (12, None): 12, (13, None): 12, (14, None): 12}
ASKED_US |= {(15, None): 12}
OUR_SERVER: Table = ASKED_US | {(None, None): None, (None, 9): None, (None, 12): None, (None, 15): None}
OUR_CLIENTS: Table = ASKED_US | {(None, None): 12, (None, 9): 9, (None, 12): 12, (None, 15): 15}
# Theirs say what either side has asked for. That of aiohttp knows nothing of what a client does; asked for the largest
# window it says nothing, which fits the second of our offers.
THEIRS: Table = {(None, None): None, (9, None): 9, (12, None): 12, (15, None): 15}
THEIRS |= {(None, 9): 9, (None, 12): 12, (None, 15): 15}


def answer(library: Library, we_serve: bool, client: Terms, server: Terms) -> Parameters:
    """What the server answers."""
    if library.name == "aiohttp" and not we_serve:
        window = client.server_max_window_bits
        client = Terms(client.server_no_context_takeover, server_max_window_bits=None if window == 15 else window)
    found: Parameters = {
        name: None
        for name in ("server_no_context_takeover", "client_no_context_takeover")
        if getattr(client, name) or getattr(server, name)
    }
    for name, table in (
        ("server_max_window_bits", OUR_SERVER if we_serve else THEIRS),
        ("client_max_window_bits", OUR_CLIENTS if we_serve else THEIRS),
    ):
        bits = table[getattr(client, name), getattr(server, name)]
        if bits is not None:
            found[name] = str(bits)
    return found


def check(library: Library, we_serve: bool, ours: Terms, theirs: Terms, tap: Tap) -> None:
    """Both sides have said the same in the form that was agreed on, and compressed what is worth it."""
    client, server = (theirs, ours) if we_serve else (ours, theirs)
    agreed = tap.extensions(SERVER)
    assert agreed is not None
    for side, own in ((CLIENT, client), (SERVER, server)):
        is_ours = (side == SERVER) == we_serve
        bits = int(agreed.get(f"{side}_max_window_bits") or 15)
        bits = min(bits, getattr(own, f"{side}_max_window_bits") or (OUR_BITS if is_ours else 15))
        name = f"{side}_no_context_takeover"
        takeover = name not in agreed and not getattr(own, name)
        said = tap.messages(side, bits=bits, takeover=takeover)
        assert [message.data for message in said] == SENT
        if is_ours or library.compresses:
            check_sizes(said, takeover)
        else:
            assert not any(message.packed for message in said)
        if is_ours:
            # Those that are empty, and one that is under the threshold.
            assert [message.packed for message in said[:3]] == [False] * 3
        if is_ours or library.sends_fragments:
            whole = said[SENT.index(WHOLE)]
            assert whole.fragments >= 3
            assert whole.controls >= 2


def check_sizes(said: list[Message], takeover: bool) -> None:
    assert all(said[i].packed for i in COMPRESSIBLE)
    assert all(said[i].size < len(SENT[i]) * 0.9 for i in COMPRESSIBLE)
    first, second = (said[i].size for i in TWINS)
    if takeover:
        assert second < first / 3
    else:
        assert second == first


async def try_it(library: Library, we_serve: bool, ours: Terms, theirs: Terms) -> None:
    try:
        async with meeting(library, we_serve, ours, theirs) as (ws, tap):
            await converse(ws)
        client, server = (theirs, ours) if we_serve else (ours, theirs)
        assert tap.extensions(SERVER) == answer(library, we_serve, client, server)
        check(library, we_serve, ours, theirs, tap)
    except BaseException as error:
        error.add_note(f"ours: {ours}\ntheirs: {theirs}")
        raise


def check_plain(tap: Tap) -> None:
    """Nothing was agreed on, and nothing is compressed."""
    assert tap.extensions(SERVER) is None
    for side in (CLIENT, SERVER):
        said = tap.messages(side)
        assert [message.data for message in said] == SENT
        assert not any(message.packed for message in said)


EITHER_ROLE = {"our_server": True, "our_client": False}
MEETINGS = [("websockets", True), ("websockets", False), ("aiohttp", True), ("aiohttp", False)]
MEETINGS += [("ws", True), ("ws", False), ("undici", True)]
ALL = [Terms(*terms) for terms in product((False, True), (False, True), BITS, BITS)]


@pytest.mark.parametrize("contexts", list(product((False, True), repeat=2)))
@pytest.mark.parametrize("we_ask", [True, False], ids=["we_ask", "they_ask"])
@pytest.mark.parametrize("we_serve", EITHER_ROLE.values(), ids=EITHER_ROLE)
@pytest.mark.parametrize("library", ["websockets", "ws"], indirect=True)
@asynchronous
async def test_all_parameters(library: Library, we_serve: bool, we_ask: bool, contexts: tuple[bool, bool]) -> None:
    for terms in ALL:
        if terms[:2] == contexts:
            await try_it(library, we_serve, terms if we_ask else Terms(), Terms() if we_ask else terms)


@pytest.mark.parametrize("contexts", list(product((False, True), repeat=2)))
@pytest.mark.parametrize(
    ("library", "we_serve"), [("aiohttp", True), ("aiohttp", False), ("undici", True)], indirect=["library"]
)
@asynchronous
async def test_all_that_we_can_ask(library: Library, we_serve: bool, contexts: tuple[bool, bool]) -> None:
    for terms in ALL:
        if terms[:2] == contexts:
            await try_it(library, we_serve, terms, Terms())


@pytest.mark.parametrize("bits", [9, 10, 11, 12, 13, 14])
@pytest.mark.parametrize("library", ["aiohttp"], indirect=True)
@asynchronous
async def test_all_that_aiohttp_can_ask(library: Library, bits: int) -> None:
    """Its client's `compress`; 15 asks for nothing."""
    await try_it(library, True, Terms(), Terms(server_max_window_bits=bits))


@pytest.mark.parametrize(("library", "we_serve"), MEETINGS, indirect=["library"])
@asynchronous
async def test_only_they_want_compression(library: Library, we_serve: bool) -> None:
    async with meeting(library, we_serve, None, Terms()) as (ws, tap):
        await converse(ws)
    check_plain(tap)


@pytest.mark.parametrize(("library", "we_serve"), MEETINGS[:-1], indirect=["library"])  # undici always wants it
@asynchronous
async def test_only_we_want_compression(library: Library, we_serve: bool) -> None:
    async with meeting(library, we_serve, Terms(), None) as (ws, tap):
        await converse(ws)
    check_plain(tap)


@pytest.mark.parametrize(("library", "we_serve"), MEETINGS, indirect=["library"])
@asynchronous
async def test_what_cannot_be_compressed(library: Library, we_serve: bool) -> None:
    async with meeting(library, we_serve, Terms(), Terms()) as (ws, tap):
        for _ in range(3):
            for message in (SMALL, HEAVY):
                await ws.send(message)
                assert await ws.recv() == message
    for side in (CLIENT, SERVER):
        said = tap.messages(side)
        assert [message.data for message in said] == [SMALL, HEAVY] * 3
        assert said[1].size < len(HEAVY) * 1.005


# A window of 256 bytes, which zlib cannot make. RFC 7692, section 7.1.2.


@pytest.mark.parametrize("library", ["websockets", "ws"], indirect=True)
@asynchronous
async def test_the_smallest_window_is_asked_of_our_server(library: Library) -> None:
    """It declines."""
    async with meeting(library, True, Terms(), Terms(server_max_window_bits=8)) as (ws, tap):
        await converse(ws)
    check_plain(tap)


@pytest.mark.parametrize("library", ["websockets", "ws"], indirect=True)
@asynchronous
async def test_the_smallest_window_is_asked_of_our_client(library: Library) -> None:
    """It agrees, and never compresses."""
    async with meeting(library, False, Terms(), Terms(client_max_window_bits=8)) as (ws, tap):
        await converse(ws)
    assert tap.extensions(SERVER) == {"client_max_window_bits": "8"}
    assert not any(message.packed for message in tap.messages(CLIENT))
    check_sizes(tap.messages(SERVER), True)


@pytest.mark.parametrize(
    ("we_serve", "theirs"),
    [(True, Terms(client_max_window_bits=8)), (False, Terms(server_max_window_bits=8))],
    ids=["our_server", "our_client"],
)
@pytest.mark.parametrize("library", ["ws"], indirect=True)
@asynchronous
async def test_the_smallest_window_is_theirs(library: Library, we_serve: bool, theirs: Terms) -> None:
    """They say 256 bytes and mean 512, since their zlib cannot either; we can read both."""
    async with meeting(library, we_serve, Terms(), theirs) as (ws, tap):
        await converse(ws)
    agreed = tap.extensions(SERVER)
    assert agreed is not None
    assert "8" in agreed.values()
    check_sizes(tap.messages(CLIENT if we_serve else SERVER, bits=9), True)
