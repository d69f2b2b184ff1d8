"""What is in this process, counted, so that it can be seen what grows."""

from __future__ import annotations

import enum
import gc
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from support import open_descriptors

STATM = Path("/proc/self/statm")

# What goes up and down by itself.
NOISE: Final = {"blocks": 500, "KiB resident": 4096, "references: None": 200}
FEW: Final = 4


def census() -> Counter[str]:
    """Count objects by type, blocks of memory, KiB of memory, descriptors, and references to what modules share.

    A reference too many to something that is always there keeps nothing alive: it is in no other figure.
    """
    gc.collect()
    found = Counter({"blocks": sys.getallocatedblocks(), "descriptors": len(open_descriptors())})
    if found["blocks"] and STATM.exists():  # without blocks it is a tool's malloc, which keeps what was freed
        found["KiB resident"] = int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    for thing in gc.get_objects():
        found[sys.intern(f"objects: {type(thing).__module__}.{type(thing).__qualname__}")] += 1
    for name, shared in _shared():
        found[sys.intern(f"references: {name}")] = sys.getrefcount(shared)
    return found  # its words are interned, so that one census more makes no strings


def _shared() -> Iterator[tuple[str, Any]]:
    """What the modules of the library name, members of their enumerations, and what Python itself has once.

    But for plain numbers: the counts themselves are such.
    """
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "fullduplex"]:
        for name, value in vars(module).items():
            if type(value) is not int:
                yield f"{module.__name__}.{name}", value
            if isinstance(value, type) and issubclass(value, enum.Enum):
                for member in value:
                    yield f"{module.__name__}.{name}.{member.name}", member
    for value in (None, True, False, NotImplemented, "", b"", ()):
        yield repr(value), value
    for code in range(256):
        yield f"chr({code})", chr(code)
        yield f"bytes([{code}])", bytes([code])


async def grown(
    step: Callable[[], Awaitable[None]], steps: int, say: Callable[[Counter[str]], object] = len
) -> dict[str, int]:
    """Take `step` so many times; tell by how much there was more at each census of the second half than at any before.

    `say` is given each census.
    """
    high, low, now = census(), census(), census()  # as many as there will be: they count, too
    for i in range(steps):
        await step()
        now = census()
        say(now)
        if i < steps // 2:
            high |= now
        else:
            low = now if i == steps // 2 else low & now
    return {what: count for what, count in (low - high).items() if count > NOISE.get(what, FEW)}
