"""Every bound on what a peer can make us hold or do, with its reason. Sizes are bytes, times are seconds.

Those that a program may want to change are defaults of `serve` and `connect`; the rest are the same for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

# The opening handshake. Nginx, Apache and Node all take a line of 8 KiB; the sum is bounded as well, since
# many lines of a legal length are an attack like one that is too long.
MAX_LINE: Final = 8_192
MAX_HEADERS: Final = 128
MAX_HEAD: Final = 65_536
MAX_BODY: Final = 1_048_576  # of a response that refuses us: enough for any error page
MAX_INTERIM: Final = 16  # responses 1xx before the one that counts; servers send one or two

# Messages. 1 MiB is what users of `websockets` expect, and holds most JSON documents.
MAX_MESSAGE: Final = 1_048_576
# A fragment under this size costs more time than its bytes do, and is counted: `Limits.fragments`.
SMALL_FRAGMENT: Final = 256

# Control frames: RFC 6455, section 5.5. A close frame spends two of its bytes on the code.
MAX_CONTROL: Final = 125
MAX_REASON: Final = 123

# Queues. Reading stops at either bound of what waits for recv(); send() waits at the bound of what waits for the peer.
MAX_QUEUE: Final = 16
MAX_QUEUE_SIZE: Final = 1_048_576
WRITE_LIMIT: Final = 32_768
# Output gathers up to here before it is written out of turn; a message of this size is not gathered at all, but written
# from where it is. A task that sends more than FAIR without ever waiting lets others run.
GATHER: Final = 32_768
FAIR: Final = 262_144

# Time.
OPEN_TIMEOUT: Final = 10.0
PING_INTERVAL: Final = 20.0
PING_TIMEOUT: Final = 20.0
CLOSE_TIMEOUT: Final = 10.0


def _most_connections() -> int | None:
    """90 % of the descriptors that the process may have, less 100 for everything else."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if descriptors == resource.RLIM_INFINITY else max(descriptors // 10, descriptors * 9 // 10 - 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a server bounds beside sizes and queues: `serve(..., limits=Limits(...))`. None turns a limit off.

    Whoever comes over a limit of the server as a whole is answered 503 with Retry-After; a connection that comes over
    one of its own is closed, and its error and the close frame name the limit. `Server.statistics()` counts both.
    """

    connections: int | None = field(default_factory=_most_connections)
    """Connections at once, those in their opening handshake included. Default: 90 % of the descriptors that the
    process may have (`ulimit -n`), less 100, so that the program keeps some for files, logs and brokers."""

    connections_per_address: int | None = None
    """Connections at once from one client address (of IPv6, one /64 network). Default: off, since behind a proxy or a
    large NAT many honest clients have one address."""

    handshakes: int | None = 4096
    """Opening handshakes under way at once. Each may take `open_timeout` seconds, so this bounds what slow ones hold.
    Default: as many as the listening queue holds."""

    handshakes_per_second: float | None = None
    """New connections a second; up to one second's worth may come at once. Default: off, since only the program
    knows what one costs it."""

    fragments: int | None = 131_072
    """Fragments under 256 bytes in one message (close code 1009). Fragments gather in one buffer, so they cost no
    memory but their bytes; a small one costs the time of a message. Larger ones are paid for by their size. Default:
    twice what the Autobahn suite sends as honest."""

    control_frames_per_second: float | None = 100.0
    """Pings, pongs and the close frame a second (1008); up to ten seconds' worth may come at once. An honest peer
    sends less than one a second. Default: so much that only a flood comes over it."""

    bytes_per_second: float | None = None
    """Bytes a second that are read of one connection; up to one second's worth may come at once. Default: off, since
    only the program knows."""

    messages_per_second: float | None = None
    """Messages a second that are read of one connection, likewise."""

    over_rate: Literal["pause", "close"] = "pause"
    """Over `bytes_per_second` or `messages_per_second`: "pause" reading until the rate is kept again, so that TCP slows
    the peer down and nothing is lost; or "close" with 1008."""

    unsent: int | None = 1_048_576
    """Bytes that may wait for a peer that does not read, longer than `unsent_for`; then its connection is ended. A peer
    that takes a 16th of so much in that time reads, as long as what waits grows less. Default: one message of the
    largest default size."""

    unsent_for: float = 10.0
    """Seconds for the above. Default: half a keepalive interval."""

    idle_timeout: float | None = None
    """Seconds without a message, or a part of one, in either direction, after which the connection is closed (1001);
    it may take a quarter longer. Default: off, since keepalive finds dead peers, and quiet ones are what WebSocket is
    for."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if name == "over_rate":
                if value not in ("pause", "close"):
                    raise ValueError(f'over_rate is "pause" or "close", not {value!r}')
            elif value is None and name == "unsent_for":
                raise ValueError("unsent_for is a number of seconds above 0; unsent=None turns the limit off")
            elif value is not None and not value > 0:
                raise ValueError(f"{name} is a number above 0, or None for no limit; not {value!r}")


# What a connection is bound by that belongs to no public server: `connect`, and sessions by themselves.
UNLIMITED: Final = Limits(connections=None, handshakes=None, control_frames_per_second=None, unsent=None)
