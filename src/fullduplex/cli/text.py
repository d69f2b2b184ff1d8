"""Text for terminals: what strangers sent is made harmless, what we say has colour where that is welcome."""

from __future__ import annotations

import os
import re
import sys
from typing import Final, TextIO

BOLD: Final = "1"
DIM: Final = "2"
RED: Final = "31"
GREEN: Final = "32"
YELLOW: Final = "33"
CYAN: Final = "36"

# Control characters of ASCII and of ISO 6429 (a terminal obeys both), line separators, and what turns the direction of
# writing, which can make a text look like another one.
_harmful: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Failure(Exception):
    """The command failed; the text is the one line that its user reads."""


def harmless(text: str, keep: str = "\t\n") -> str:
    """Show characters that could command a terminal, or deceive its reader, as escapes; not those of `keep`."""
    return _harmful.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def excerpt(text: str, size: int = 200) -> str:
    """The beginning of a text, on one line."""
    words = " ".join(text.split())
    return words if len(words) <= size else words[: size - 1] + "…"


def address(peer: object) -> str:
    """A socket's address as it stands in a URI."""
    match peer:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return str(peer) if peer else "a peer that has left"


def has_colour(stream: TextIO) -> bool:
    """It is a terminal, and nothing speaks against colour. https://no-color.org"""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Paint:
    """`paint(text, GREEN, BOLD)` for one stream; leaves the text as it is where there is no colour."""

    def __init__(self, stream: TextIO) -> None:
        self._on = has_colour(stream)

    def __call__(self, text: str, *styles: str) -> str:
        return f"\x1b[{';'.join(styles)}m{text}\x1b[0m" if self._on and text else text


def say(line: str) -> None:
    """Say it in one write, which those of other processes do not come between; `print` may need two."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Say something beside the output."""
    print(Paint(sys.stderr)(harmless(text, keep=""), DIM), file=sys.stderr, flush=True)
