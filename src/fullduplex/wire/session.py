"""One WebSocket connection, RFC 6455, without I/O and without a clock.

Bytes that came go into `receive()`, messages come out in `inbox`, bytes to send gather in `out`. Time is an argument;
`deadline()` says when `expire()` wants to be called. What a peer sends never raises: a broken rule becomes a verdict,
that is a close frame to send and `failure`, which says who broke what. Only our own caller's mistakes raise.

The verdict waits until the messages before it are delivered, so that answers to them still go out before the close
frame. A driver therefore does, for each read:

    session.receive(data, size, now)
    ... hand over what is in the inbox ...
    session.conclude(now), or session.hold(now) while not all of it is taken
    ... send what is in out; once `over`, end the TCP connection ...

Memory: a frame in progress, or a message in fragments, is one growing buffer; nothing is reserved for what was only
declared. Pongs that cannot leave yet are one pong, the newest (section 5.5.3).
"""

from __future__ import annotations

import codecs
from typing import Final

from . import limits
from .codec import FIN, MASK, MAX_HEAD, OPCODE, MaskKeys, append_frame, broken_rule, head_length, head_size, mask
from .errors import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
    WebSocketException,
    Who,
)
from .keepalive import FOREVER, Keepalive
from .opcodes import Close, CloseCode, Opcode, State, is_sendable
from .states import TRANSITIONS, Event

CONNECTING, OPEN, CLOSING, CLOSED = State

NO_LIMIT: Final = 2**63 - 1

TEXT_FRAME: Final = FIN | Opcode.TEXT
BINARY_FRAME: Final = FIN | Opcode.BINARY

# Seconds that a verdict waits for messages to be taken that came before it: the peer waits for its close frame.
HOLD: Final = 2.0


class Fragment:
    """A part of a message, in the inbox while `Session.streaming`; `fin` marks the last one."""

    __slots__ = ("data", "fin")

    def __init__(self, data: str | bytes, fin: bool) -> None:
        self.data = data
        self.fin = fin

    def __len__(self) -> int:
        return len(self.data)


class Session:
    """The state of one connection, either role.

    `max_size` bounds a message in bytes, `max_frame` one frame of it. `ping_interval`, `ping_timeout` and
    `close_timeout` are seconds. None turns a bound off.
    """

    __slots__ = (
        # Settings.
        "server max_size max_frame max_fragments close_timeout _mask_keys "
        # Read state.
        "_stash _opcode _fin _key _remaining _control _message _message_opcode _message_size _fragments _valid "
        "_skipping inbox inbox_head inbox_size streaming deaf paused "
        # Write state.
        "out blocked sending _pong "
        # Close state.
        "state rcvd sent rcvd_then_sent verdict _verdict_at failure who detail _close_at "
        # Keepalive.
        "received_at acknowledged keepalive attention"
    ).split()

    def __init__(
        self,
        server: bool,
        *,
        max_size: int | None = limits.MAX_MESSAGE,
        max_frame: int | None = None,
        max_fragments: int | None = limits.MAX_FRAGMENTS,
        ping_interval: float | None = limits.PING_INTERVAL,
        ping_timeout: float | None = limits.PING_TIMEOUT,
        close_timeout: float | None = limits.CLOSE_TIMEOUT,
        mask_keys: MaskKeys | None = None,
    ) -> None:
        # Settings.
        self.server = server
        self.max_size = NO_LIMIT if max_size is None else max_size
        self.max_frame = self.max_size if max_frame is None else min(max_frame, self.max_size)
        self.max_fragments = NO_LIMIT if max_fragments is None else max_fragments
        self.close_timeout = FOREVER if close_timeout is None else close_timeout
        # A client's frames are masked, a server's are not. Section 5.1.
        self._mask_keys = None if server else mask_keys or MaskKeys()

        # Read state. The frame in progress ...
        self._stash = b""  # the head's bytes, while it is incomplete
        self._opcode = 0
        self._fin = False
        self._key = b""  # its mask key, turned to where the payload stands
        self._remaining = -1  # payload bytes still to come; -1: between two frames
        self._control = b""  # the payload so far of a control frame
        # ... the message in progress ...
        self._message = bytearray()
        self._message_opcode = 0  # 0: between two messages
        self._message_size = 0
        self._fragments = 0
        self._valid = 0  # so many bytes of it are valid UTF-8
        self._skipping = False  # nobody wants the rest of it
        # ... and what is complete. Taken from inbox_head on, so that taking is quick and keeps order.
        self.inbox: list[str | bytes | Fragment] = []
        self.inbox_head = 0
        self.inbox_size = 0
        self.streaming = False
        self.deaf = False  # what comes is discarded: after a close frame, after a failure
        self.paused = False  # the driver has stopped reading: silence says nothing about the peer

        # Write state.
        self.out = bytearray()
        self.blocked = False  # the driver cannot write now
        self.sending = 0  # the opcode of the message that is being sent in fragments
        self._pong: bytes | None = None  # waits for the driver to write again

        # Close state.
        self.state = CONNECTING
        self.rcvd: Close | None = None
        self.sent: Close | None = None
        self.rcvd_then_sent: bool | None = None
        self.verdict: Close | None = None  # the close frame to send once the messages before it are delivered
        self._verdict_at = FOREVER  # when it is sent even so
        self.failure: ProtocolError | None = None
        self.who: Who = "network"
        self.detail = ""
        self._close_at = FOREVER

        # Keepalive.
        self.received_at = 0.0
        self.acknowledged: list[tuple[bytes, float]] = []  # (ping, its round trip in seconds)
        self.keepalive = Keepalive(
            FOREVER if ping_interval is None else ping_interval, FOREVER if ping_timeout is None else ping_timeout
        )

        # True: there is more than messages to look at (a verdict, pongs).
        self.attention = False

    # Opening and ending: called by the driver.

    def open(self, now: float) -> None:
        """The opening handshake succeeded."""
        self._move(Event.OPENED)
        self.received_at = now
        self.keepalive.start(now)

    def end(self, who: Who, detail: str) -> None:
        """TCP ended: `who` ended it, and `detail` says what was seen. The first word holds."""
        if self.state is CLOSED:
            return
        self._move(Event.ENDED)
        self.deaf = True
        self.attention = True
        if not self.detail and (self.rcvd is None or self.sent is None):
            self.who = who
            self.detail = detail

    @property
    def over(self) -> bool:
        """Nothing more is to be said: TCP may end once `out` is sent."""
        return self.sent is not None and (self.rcvd is not None or self.failure is not None)

    def error(self) -> ConnectionClosed:
        """Why the connection closed, as an exception to raise. Section 7.1.5, 7.1.6."""
        rcvd, sent = self.rcvd, self.sent
        well = rcvd is not None and sent is not None and {rcvd.code, sent.code} <= {1000, 1001, 1005}
        kind = ConnectionClosedOK if well else ConnectionClosedError
        error = kind(self.rcvd, self.sent, self.rcvd_then_sent, who=self.who, detail=self.detail)
        error.__cause__ = self.failure
        return error

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]

    # Receiving.

    def receive(self, data: bytes | bytearray, size: int, now: float) -> None:
        """The first `size` bytes of `data` came from the peer."""
        self.received_at = now
        if self.deaf:
            return
        at = 0
        if self._remaining >= 0:
            at = self._receive_payload(data, 0, size)
        elif self._stash:
            at = self._receive_frame(data, 0, size)
        inbox = self.inbox
        bit = MASK if self.server else 0
        longest = self.max_frame
        usual = self._expects_message()
        total = 0
        while at < size:
            # The usual frame: a whole message, all of it in this buffer, its length in 7 or 16 bits.
            first = data[at]
            if usual and (first == BINARY_FRAME or first == TEXT_FRAME) and size - at > 3:
                length = data[at + 1] - bit
                start = at + (6 if bit else 2)
                if length == 126:
                    length = data[at + 2] << 8 | data[at + 3]
                    start += 2
                    if length < 126:
                        length = -1
                elif length > 126:
                    length = -1
                stop = start + length
                if start <= stop <= size and length <= longest:
                    message: str | bytes
                    if bit:
                        message = mask(data[start:stop], data[start - 4 : start])
                    else:
                        message = bytes(data[start:stop])
                    if first == TEXT_FRAME:
                        try:
                            message = str(message, "utf-8")
                        except UnicodeDecodeError as error:
                            self._fail(CloseCode.INVALID_DATA, f"invalid UTF-8 in a text message: {error.reason}")
                            break
                    inbox.append(message)
                    total += len(message)
                    at = stop
                    continue
            at = self._receive_frame(data, at, size)
            usual = self._expects_message()
        self.inbox_size += total

    def _expects_message(self) -> bool:
        """The next frame may be a whole message, to be delivered as such."""
        return not (self.deaf or self._message_opcode or self.streaming)

    def _receive_frame(self, data: bytes | bytearray, at: int, size: int) -> int:
        """Read any frame, or what there is of it; return where it stopped."""
        if self.deaf:
            return size
        at = self._receive_head(data, at, size)
        return at if self._remaining < 0 else self._receive_payload(data, at, size)

    def _receive_head(self, data: bytes | bytearray, at: int, size: int) -> int:
        """Read a frame's head from `at` on, or as much as there is; return where it stopped."""
        held = len(self._stash)
        head = self._stash + data[at : min(size, at + MAX_HEAD - held)]
        self._stash = head
        if len(head) < 2:
            return size
        rule = broken_rule(head[0], head[1], self.server, self._message_opcode != 0)
        if rule:
            self._fail(CloseCode.PROTOCOL_ERROR, rule)
            return size
        need = head_size(head[1])
        if len(head) < need:
            return size
        self._stash = b""
        length = head_length(head)
        opcode = head[0] & OPCODE
        if length < 0:
            self._fail(CloseCode.PROTOCOL_ERROR, "a length that is not in its shortest form (section 5.2)")
        elif length >= 2**63:
            self._fail(CloseCode.PROTOCOL_ERROR, "a length with its highest bit set (section 5.2)")
        elif opcode < Opcode.CLOSE and length > min(self.max_frame, self.max_size - self._message_size):
            self._fail_too_big(length)
        elif opcode < Opcode.CLOSE and self._fragments == self.max_fragments:
            rule = f"more than {self.max_fragments} fragments in a message"
            self._fail(CloseCode.MESSAGE_TOO_BIG, rule, PayloadTooBig)
        else:
            self._opcode = opcode
            self._fin = head[0] & FIN != 0
            self._key = head[need - 4 : need] if self.server else b""
            self._remaining = length
            if opcode < Opcode.CLOSE:
                self._fragments += 1
                self._message_size += length
                if opcode != Opcode.CONT:
                    self._message_opcode = opcode
        return at + need - held

    def _receive_payload(self, data: bytes | bytearray, at: int, size: int) -> int:
        """Read what there is of the payload of the frame in progress; return where it stopped."""
        length = min(self._remaining, size - at)
        piece = data[at : at + length]
        if self.server:
            key = self._key
            piece = mask(piece, key)
            self._key = key[length & 3 :] + key[: length & 3]
        self._remaining -= length
        if self._opcode >= Opcode.CLOSE:
            self._control += piece
            if not self._remaining:
                self._remaining = -1
                payload, self._control = self._control, b""
                self._receive_control(self._opcode, payload)
        else:
            self._message += piece
            complete = not self._remaining and self._fin
            if self._message_opcode == Opcode.TEXT and not self._is_utf8(complete):
                return size
            if not self._remaining:
                self._remaining = -1
                if complete or self.streaming:
                    self._deliver(complete)
        return at + length

    def _is_utf8(self, complete: bool) -> bool:
        """Check what is new of a text message, so that it fails at its first wrong byte. Section 8.1."""
        message = self._message
        try:
            self._valid += codecs.utf_8_decode(memoryview(message)[self._valid :], "strict", complete)[1]
            # The decoder waits for the last byte of a surrogate, though no byte can make it valid.
            if message[self._valid : self._valid + 1] == b"\xed" and message[self._valid + 1 :] >= b"\xa0":
                str(message[self._valid :] + b"\x80", "utf-8")
        except UnicodeDecodeError as error:
            self._fail(CloseCode.INVALID_DATA, f"invalid UTF-8 in a text message: {error.reason}")
            return False
        return True

    def _deliver(self, complete: bool) -> None:
        """Move the message in progress, or while `streaming` the part of it that can be shown, to the inbox."""
        message = self._message
        data: str | bytes
        if self._message_opcode == Opcode.TEXT:
            data = str(memoryview(message)[: self._valid], "utf-8")
            rest = message[self._valid :]
        else:
            data = bytes(message)
            rest = bytearray()
        if not self._skipping:
            self.inbox.append(Fragment(data, complete) if self.streaming else data)
            self.inbox_size += len(data)
        self._message = rest
        self._valid = 0
        if complete:
            self._message_opcode = 0
            self._message_size = 0
            self._fragments = 0
            self.streaming = False
            self._skipping = False

    def stream(self) -> None:
        """Deliver the next message, or the one in progress, in `Fragment`s as its frames come."""
        self.streaming = True
        if self._message_opcode and self._remaining < 0:
            self._deliver(False)

    def skip(self) -> None:
        """Drop what is left of a message that is being delivered in fragments."""
        self.streaming = self._skipping = self.streaming and self._message_opcode != 0
        self._keep([item for item in self.inbox[self.inbox_head :] if not isinstance(item, Fragment)])

    def drop(self, kept: int) -> None:
        """Keep so many messages of the inbox, the oldest."""
        self._keep(self.inbox[self.inbox_head :][:kept])

    def _keep(self, messages: list[str | bytes | Fragment]) -> None:
        self.inbox[:] = messages
        self.inbox_head = 0
        self.inbox_size = sum(map(len, messages))

    def take(self) -> str | bytes | Fragment:
        """Take the oldest of the inbox, which must not be empty."""
        inbox, head = self.inbox, self.inbox_head
        message = inbox[head]
        inbox[head] = ""  # its memory is the taker's
        head += 1
        if head == len(inbox):
            inbox.clear()
            head = 0
        elif head == 64:
            del inbox[:head]
            head = 0
        self.inbox_size -= len(message)
        self.inbox_head = head
        return message

    # Control frames, section 5.5.

    def _receive_control(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.PING:
            if self.blocked:
                self._pong = payload
            elif self.state is OPEN:
                self._append(FIN | Opcode.PONG, payload)
        elif opcode == Opcode.PONG:
            answered = self.keepalive.pong(payload, self.received_at)
            if answered:
                self.acknowledged += answered
                self.attention = True
        else:
            self._receive_close(payload)

    def _receive_close(self, payload: bytes) -> None:
        """Section 5.5.1, 7.1.5, 7.4."""
        if not payload:
            close = Close(CloseCode.NO_STATUS_RCVD)
        elif len(payload) == 1:
            self._fail(CloseCode.PROTOCOL_ERROR, "a close frame with half a code (section 5.5.1)")
            return
        else:
            code = int.from_bytes(payload[:2], "big")
            if not is_sendable(code):
                self._fail(CloseCode.PROTOCOL_ERROR, f"close code {code} (section 7.4)")
                return
            try:
                close = Close(code, str(payload[2:], "utf-8"))
            except UnicodeDecodeError as error:
                self._fail(CloseCode.INVALID_DATA, f"invalid UTF-8 in a close reason: {error.reason}")
                return
        self.rcvd = close
        if self.sent is None:
            self.who = "remote"
            self.verdict = Close(close.code)  # section 5.5.1: the answer echoes the code
        else:
            self.rcvd_then_sent = False
        self.deaf = True
        self.attention = True

    # The verdict: fail the connection, section 7.1.7.

    def _fail(self, code: CloseCode, rule: str, kind: type[ProtocolError] = ProtocolError) -> None:
        """The peer broke `rule`: close with `code`, hear no more."""
        self.failure = kind(code, rule)
        self.who = "remote"
        self.detail = rule
        self.verdict = Close(code, rule)
        self.deaf = True
        self.attention = True
        self._message = bytearray()
        self._message_opcode = 0

    def _fail_too_big(self, length: int) -> None:
        if length > self.max_size - self._message_size:
            rule = f"a message of {self._message_size + length} bytes is over the limit of {self.max_size}"
        else:
            rule = f"a frame of {length} bytes is over the limit of {self.max_frame}"
        self._fail(CloseCode.MESSAGE_TOO_BIG, rule, PayloadTooBig)

    def conclude(self, now: float) -> None:
        """The messages before the verdict are delivered: send its close frame."""
        close, self.verdict = self.verdict, None
        if close is not None and self.state is OPEN:
            self._send_close(close, now)

    def hold(self, now: float) -> None:
        """Messages before the verdict wait to be taken: let them be answered, for some time."""
        if self._verdict_at == FOREVER:
            self._verdict_at = now + min(HOLD, self.close_timeout)

    # Sending. What is said here leaves with the driver's next write.

    def _append(self, first: int, payload: bytes | bytearray | memoryview) -> None:
        keys = self._mask_keys
        append_frame(self.out, first, payload, None if keys is None else keys.next())

    def send(self, first: int, payload: bytes | bytearray | memoryview) -> None:
        """Send a message in one frame, whose first byte is `first`. Section 5.6.

        Raises ConnectionClosed; ConcurrencyError inside a message that is being sent in fragments (section 5.4).
        """
        if self.state is not OPEN or self.sending:
            raise self._refusal()
        keys = self._mask_keys
        append_frame(self.out, first, payload, None if keys is None else keys.next())

    def send_fragment(self, opcode: int, payload: bytes | bytearray | memoryview, fin: bool) -> None:
        """Send a part of a message, of TEXT or BINARY; `fin` marks the last. Raises ConnectionClosed. Section 5.4."""
        if self.state is not OPEN:
            raise self.error()
        self._append((FIN if fin else 0) | (Opcode.CONT if self.sending else opcode), payload)
        self.sending = 0 if fin else opcode

    def send_frame(self, frame: bytes) -> None:
        """Send a message as a frame that a server made once for many. Raises as `send` does."""
        if self.state is not OPEN or self.sending:
            raise self._refusal()
        self.out += frame

    def _refusal(self) -> WebSocketException:
        if self.state is OPEN:
            return ConcurrencyError("a message is being sent in fragments; no other may stand inside it (section 5.4)")
        return self.error()

    def ping(self, data: bytes | None, now: float) -> bytes:
        """Send a ping, by default with a payload of its own; return the payload.

        Raises ValueError if a ping with this payload is under way or it is over 125 bytes; ConnectionClosed.
        """
        if self.state is not OPEN:
            raise self.error()
        if data is not None:
            self._check_control(data)
        data = self.keepalive.ping(data, now)
        self._append(FIN | Opcode.PING, data)
        return data

    def pong(self, data: bytes) -> None:
        """Send a pong that nobody asked for, as a heartbeat. Raises ValueError over 125 bytes; ConnectionClosed."""
        if self.state is not OPEN:
            raise self.error()
        self._check_control(data)
        self._append(FIN | Opcode.PONG, data)

    def _check_control(self, data: bytes) -> None:
        if len(data) > limits.MAX_CONTROL:
            raise ValueError(f"a control frame holds at most {limits.MAX_CONTROL} bytes (RFC 6455, section 5.5)")

    def close(self, code: int | None, reason: str, now: float) -> None:
        """Begin the closing handshake, once. `code` None sends no code. Section 7.1.2.

        Raises ValueError for a code that may not be sent (section 7.4) or a reason over 123 bytes of UTF-8.
        """
        if code is None:
            if reason:
                raise ValueError("a close reason needs a code (RFC 6455, section 5.5.1)")
            code = CloseCode.NO_STATUS_RCVD
        elif not is_sendable(code):
            raise ValueError(f"close code {code} may not be sent (RFC 6455, section 7.4)")
        if len(reason.encode()) > limits.MAX_REASON:
            raise ValueError(f"a close reason holds at most {limits.MAX_REASON} bytes (RFC 6455, section 5.5)")
        if self.state is OPEN and self.sent is None:
            if self.rcvd is None and self.failure is None:
                self.who = "local"
            self._send_close(Close(code, reason), now)

    def _send_close(self, close: Close, now: float) -> None:
        payload = close.code.to_bytes(2, "big") + close.reason.encode()[: limits.MAX_REASON]
        self._append(FIN | Opcode.CLOSE, b"" if close.code == CloseCode.NO_STATUS_RCVD else payload)
        self.sent = close
        if self.rcvd is not None:
            self.rcvd_then_sent = True
        self._pong = None
        self._close_at = now + self.close_timeout
        self._move(Event.CLOSE_SENT)
        self.attention = True

    def unblock(self) -> None:
        """The driver can write again: a pong that waited goes before what comes now."""
        self.blocked = False
        pong, self._pong = self._pong, None
        if pong is not None and self.state is OPEN:
            later, self.out = self.out, bytearray()
            self._append(FIN | Opcode.PONG, pong)
            self.out += later

    # Time.

    def deadline(self) -> float:
        """When `expire()` wants to be called, on the clock of `now`; infinity for never."""
        if self.state is OPEN:
            return self.keepalive.deadline() if self.verdict is None else self._verdict_at
        if self.state is CLOSING:
            return self._close_at
        return FOREVER

    def expire(self, now: float) -> None:
        """Time has passed: send a ping, or give up on a peer that is silent. Does nothing before `deadline()`."""
        if self.state is CLOSING:
            if now >= self._close_at:
                self.end("remote", f"the peer did not end the closing handshake within {self.close_timeout:g} s")
        elif self.verdict is not None:
            if now >= self._verdict_at:
                self.conclude(now)
        elif self.state is OPEN:
            keepalive = self.keepalive
            if keepalive.is_silent(now, self.received_at, self.paused):
                self._send_close(Close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout"), now)
                self.end("remote", keepalive.describe_silence(now))
                return
            ping = keepalive.next_ping(now, self.paused)
            if ping is not None:
                self._append(FIN | Opcode.PING, ping)
