from __future__ import annotations

import pytest

from fullduplex.wire.opcodes import Close, CloseCode, Opcode, State, is_sendable


def test_opcodes() -> None:
    """RFC 6455, section 11.8."""
    assert {opcode.name: int(opcode) for opcode in Opcode} == {
        "CONT": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


def test_states() -> None:
    """Numbered like WebSocket.readyState of the browsers."""
    assert [state.name for state in sorted(State)] == ["CONNECTING", "OPEN", "CLOSING", "CLOSED"]
    assert list(map(int, State)) == [0, 1, 2, 3]


def test_close_codes() -> None:
    """All of IANA's registry, and nothing else."""
    assert sorted(CloseCode) == [1000, 1001, 1002, 1003, *range(1005, 1016)]


def test_codes_that_may_be_sent() -> None:
    sendable = {code for code in range(-1, 65537) if is_sendable(code)}
    assert sendable == {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, *range(3000, 5000)}


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000), "1000 (normal closure)"),
        (Close(1001, "bye"), "1001 (going away) bye"),
        (Close(1005), "1005 (no status rcvd)"),
        (Close(2999), "2999 (unknown)"),
        (Close(3000), "3000 (registered)"),
        (Close(3999), "3999 (registered)"),
        (Close(4000, "moved"), "4000 (private use) moved"),
        (Close(4999), "4999 (private use)"),
        (Close(5000), "5000 (unknown)"),
    ],
)
def test_a_close_in_words(close: Close, text: str) -> None:
    assert str(close) == text
