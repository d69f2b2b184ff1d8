"""A test kit: what talks WebSocket without a network, on a clock that is moved by hand."""

from __future__ import annotations

from .pair import End, Pair

__all__ = ["End", "Pair"]
