from __future__ import annotations

import io
import socket

import pytest

from fullduplex.cli.text import BOLD, GREEN, Paint, address, excerpt, harmless, say


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ä, 語, 👩\u200d🚀", "plain, ä, 語, 👩\u200d🚀"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31mred", "\\x9b31mred"),
        ("title \x1b]0;pwned\x07", "title \\x1b]0;pwned\\x07"),
        ("over\rwrite\b\x7f\x00", "over\\rwrite\\x08\\x7f\\x00"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("\u202ebackwards\u2066", "\\u202ebackwards\\u2066"),
        ("\u2028line\u0085", "\\u2028line\\x85"),
        ("\ud800", "\\ud800"),
    ],
)
def test_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_harmless_on_one_line() -> None:
    assert harmless("one\ntwo\tthree", keep="") == "one\\ntwo\\tthree"


def test_no_control_character_is_left() -> None:
    shown = harmless("".join(map(chr, range(0x3000))), keep="")
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)


def test_excerpt() -> None:
    assert excerpt(" a\r\n\r\n b ") == "a b"
    assert excerpt("x" * 300, 10) == "xxxxxxxxx…"


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        ("/run/socket", "/run/socket"),
        (None, "a peer that has left"),
    ],
)
def test_address(peer: object, shown: str) -> None:
    assert address(peer) == shown


def test_paint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Paint(Screen())("yes", GREEN, BOLD) == "\x1b[32;1myes\x1b[0m"
    assert Paint(Screen())("", GREEN) == ""
    assert Paint(io.StringIO())("no terminal", GREEN) == "no terminal"
    monkeypatch.setenv("NO_COLOR", "")
    assert Paint(Screen())("an empty value does not count", GREEN) != "an empty value does not count"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Paint(Screen())("not wanted", GREEN) == "not wanted"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Paint(Screen())("not understood", GREEN) == "not understood"


def test_a_line_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unbuffered, too, as containers have it (PYTHONUNBUFFERED)."""
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with (
        reading,
        writing,
        io.TextIOWrapper(io.FileIO(writing.fileno(), "w", closefd=False), write_through=True) as stream,
    ):
        monkeypatch.setattr("sys.stdout", stream)
        say("one line")
        assert reading.recv(99) == b"one line\n"
