from __future__ import annotations

import ctypes
import platform
import sys
from types import SimpleNamespace

import pytest

from fullduplex.wire.memory import trim


def test_trim() -> None:
    assert trim() is (platform.libc_ver()[0] == "glibc")


def test_it_is_asked_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class MallocTrim:
        argtypes: object = None

        def __call__(self, pad: int) -> None:
            asked.append(pad)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=MallocTrim()))
    assert trim()
    assert asked == [0]


def test_another_libc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not trim()
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert not trim()
