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

What comes in is read by the `Receiver` that this class stands on. Pongs that cannot leave yet are one pong, the newest
(section 5.5.3).
"""

from __future__ import annotations

from typing import Final

from . import leaves
from .codec import MaskKeys
from .errors import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ProtocolError,
    WebSocketException,
    Who,
)
from .extensions import Extension, Payload
from .keepalive import FOREVER, Keepalive
from .limits import (
    CLOSE_TIMEOUT,
    MAX_CONTROL,
    MAX_MESSAGE,
    MAX_REASON,
    PING_INTERVAL,
    PING_TIMEOUT,
    UNLIMITED,
    Limits,
)
from .opcodes import CLOSED, CLOSING, CONNECTING, FIN, OPEN, Close, CloseCode, Opcode, is_sendable
from .rate import Pacer, make_meter
from .receiver import Receiver
from .states import TRANSITIONS, Event

# Seconds that a verdict waits for messages to be taken that came before it: the peer waits for its close frame.
HOLD: Final = 2.0
# Seconds that a close frame of ours waits at most for messages before it that the peer wants to have slowly.
PACED_CLOSE: Final = 60.0
# Seconds after which an extension is asked to give back what it does not use.
REST: Final = 20.0
# Control frames are counted over so many seconds.
CONTROL_WINDOW: Final = 10.0


class Session(Receiver):
    """The state of one connection, either role.

    `max_size` bounds a message in bytes, `max_frame` one frame of it. `ping_interval`, `ping_timeout` and
    `close_timeout` are seconds. None turns a bound off.
    """

    __slots__ = (
        # Settings.
        "limits close_timeout _mask_keys "
        # Read state.
        "paused resume_at _controls _controls_since "
        # Write state.
        "out blocked sending pacer _pong "
        # Close state.
        "state rcvd sent rcvd_then_sent verdict _verdict_at failure who detail limit _close_at "
        # Keepalive, and what is looked at now and then.
        "acknowledged keepalive attention _rest_at _idle_at _idle_looks"
    ).split()

    def __init__(
        self,
        server: bool,
        *,
        max_size: int | None = MAX_MESSAGE,
        max_frame: int | None = None,
        ping_interval: float | None = PING_INTERVAL,
        ping_timeout: float | None = PING_TIMEOUT,
        close_timeout: float | None = CLOSE_TIMEOUT,
        limits: Limits = UNLIMITED,
        mask_keys: MaskKeys | None = None,
    ) -> None:
        super().__init__(server, max_size, max_frame, limits.fragments)

        # Settings.
        self.limits = limits
        self.close_timeout = FOREVER if close_timeout is None else close_timeout
        # A client's frames are masked, a server's are not. Section 5.1.
        self._mask_keys = None if server else mask_keys or MaskKeys()

        # Read state.
        self.paused = False  # the driver has stopped reading: silence says nothing about the peer
        self.resume_at = 0.0  # when it may read on, where that is limited
        self._controls = 0  # control frames in the current window
        self._controls_since = 0.0

        # Write state.
        self.out = bytearray()
        self.blocked = False  # the driver cannot write now
        self.sending = 0  # the opcode of the message that is being sent in fragments
        self.pacer: Pacer | None = None  # the peer has said how fast it wants to be sent to
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
        self.limit = ""  # the name of the limit that ended the connection
        self._close_at = FOREVER

        # Keepalive, and what is looked at now and then.
        self._rest_at = FOREVER  # by the extension
        self._idle_at = FOREVER  # for `limits.idle_timeout` ...
        self._idle_looks = 0  # ... and how often there was nothing since
        self.acknowledged: list[tuple[bytes, float]] | None = None  # (ping, its round trip in seconds)
        # None: no pings of our own, and nobody else has sent one yet
        self.keepalive: Keepalive | None = None
        if ping_interval is not None:
            self.keepalive = Keepalive(ping_interval, FOREVER if ping_timeout is None else ping_timeout)

        # True: there is more than messages to look at (a verdict, pongs).
        self.attention = False

    # Opening and ending: called by the driver.

    def open(self, now: float, extension: Extension | None = None) -> None:
        """The opening handshake succeeded, and `extension` was agreed on."""
        self._move(Event.OPENED)
        self.received_at = now
        if self.keepalive is not None:
            self.keepalive.start(now)
        self.meter = make_meter(self.limits, now)
        if self.limits.idle_timeout is not None:
            self._idle_at = now + self.limits.idle_timeout / 4
        if extension is not None:
            self.extension = extension
            self._sees_all = extension.sees_all
            self._rsv = extension.rsv
            self._rest_at = now + REST
            if extension.send_rate < FOREVER:
                self.pacer = Pacer(extension.send_rate, now)

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
        """Nothing more is to be said: TCP may end once `out` is sent, and nothing is `waiting`."""
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

    # Control frames, section 5.5.

    def _receive_control(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.CLOSE:
            self._receive_close(payload)
        elif opcode == Opcode.PONG and (answered := self._match_pong(payload)):
            self.acknowledged = (self.acknowledged or []) + answered
            self.attention = True
        elif self._may_control() and opcode == Opcode.PING:
            if self.blocked:
                self._pong = payload
            elif self.state is OPEN:
                self._append(FIN | Opcode.PONG, payload)

    def _match_pong(self, payload: bytes) -> list[tuple[bytes, float]]:
        return [] if self.keepalive is None else self.keepalive.pong(payload, self.received_at)

    def _may_control(self) -> bool:
        """Count a control frame that nobody asked for, against a flood of them."""
        rate = self.limits.control_frames_per_second
        if rate is None:
            return True
        if self.received_at - self._controls_since >= CONTROL_WINDOW:
            self._controls_since = self.received_at
            self._controls = 0
        self._controls += 1
        if self._controls <= rate * CONTROL_WINDOW:
            return True
        rule = f"more than {rate:.12g} control frames a second"
        self._fail(CloseCode.POLICY_VIOLATION, rule, limit="control_frames_per_second")
        return False

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

    def _fail(
        self,
        code: int,
        rule: str,
        kind: type[ProtocolError] = ProtocolError,
        limit: str = "",
        cause: Exception | None = None,
    ) -> None:
        """The peer broke `rule`, or a limit of ours, or we failed by `cause`: close with `code`, hear no more."""
        self.who = "remote" if cause is None else "local"
        self.failure = kind(code, rule, self.who)
        self.failure.__cause__ = cause
        self.limit = limit
        self.detail = rule
        # The rule may be an extension's, in any words; a character that is cut in two would be a broken rule of ours.
        self.verdict = Close(code, rule.encode(errors="replace")[:MAX_REASON].decode(errors="ignore"))
        self.deaf = True
        self.attention = True
        self._message = None
        self._message_opcode = 0

    def _measure(self, size: int, messages: int) -> None:
        meter = self.meter
        assert meter is not None
        wait = meter.spend(size, messages, self.received_at)
        if not wait or self.deaf or self.state is not OPEN:
            return
        if meter.closes:
            self._fail(CloseCode.POLICY_VIOLATION, meter.rule, limit=meter.limit)
        else:
            self.resume_at = self.received_at + wait
            self.attention = True

    def conclude(self, now: float) -> None:
        """The messages before the verdict are delivered: send its close frame."""
        close, self.verdict = self.verdict, None
        if close is not None and self.state is OPEN:
            self._send_close(close, now)

    def hold(self, now: float) -> None:
        """Messages before the verdict wait to be taken: let them be answered, for some time."""
        if self._verdict_at == FOREVER:
            self._verdict_at = now + min(HOLD, self.close_timeout)

    # Sending. What is said here leaves with the driver's next write, or when its turn has come.

    def _append(self, first: int, payload: Payload) -> None:
        keys = self._mask_keys
        leaves.append_frame(self.out, first, payload, None if keys is None else keys.next())

    def _append_data(self, first: int, payload: Payload) -> None:
        self.active = True
        if self.pacer is None:
            self._append(first, payload)
        else:
            self.pacer.add(first, payload)

    def _encode(self, extension: Extension, first: int, payload: Payload, compress: bool | None) -> tuple[int, Payload]:
        first, payload = extension.encode(first, payload, compress)
        if not isinstance(payload, (bytes, bytearray, memoryview)):  # a tuple, which is quicker than `Payload`
            raise TypeError(f"an extension makes bytes of a message, not {type(payload).__name__}")
        return first, payload

    def send(self, first: int, payload: Payload, compress: bool | None = None) -> None:
        """Send a message in one frame, whose first byte is `first`. Section 5.6.

        `compress` is a word to the extension: False or True for this one message, None for whatever it does by itself.
        Raises ConnectionClosed; ConcurrencyError inside a message that is being sent in fragments (section 5.4).
        """
        if self.state is not OPEN or self.sending:
            raise self._refusal()
        if self.extension is not None:
            first, payload = self._encode(self.extension, first, payload, compress)
            self._append_data(first, payload)
            return
        self.active = True
        keys = self._mask_keys
        leaves.append_frame(self.out, first, payload, None if keys is None else keys.next())

    def send_head(self, first: int, size: int) -> bool:
        """Send a message of `size` bytes but for its payload, which the driver then writes behind `out`, as it is.

        False, and nothing sent, where payloads are changed, or wait: then it is for `send`. Raises as that does.
        """
        if self.state is not OPEN or self.sending:
            raise self._refusal()
        if self.extension is not None or self.pacer is not None or self._mask_keys is not None:
            return False
        self.active = True
        leaves.append_head(self.out, first, size)
        return True

    def send_fragment(self, opcode: int, payload: Payload, fin: bool, compress: bool | None = None) -> None:
        """Send a part of a message, of TEXT or BINARY; `fin` marks the last. Raises ConnectionClosed. Section 5.4."""
        if self.state is not OPEN:
            raise self.error()
        first = (FIN if fin else 0) | (Opcode.CONT if self.sending else opcode)
        if self.extension is not None:
            first, payload = self._encode(self.extension, first, payload, compress)
        self._append_data(first, payload)
        self.sending = 0 if fin else opcode

    def send_shared(self, first: int, payload: Payload, frame: bytes) -> None:
        """Send a message that was encoded for many, `frame` being the whole of a server's frame. Raises as `send`."""
        if self.state is not OPEN or self.sending:
            raise self._refusal()
        if self.extension is not None:
            self.extension.pass_shared(first)
        if self.server and self.pacer is None:
            self.active = True
            self.out += frame
        else:
            self._append_data(first, payload)

    def say_shared(self, first: int) -> bool:
        """As `send_shared`, of a frame that the driver then writes itself, before what will be in `out`.

        False, and nothing sent, where something else is there already, or the frame is not the whole of it.
        """
        if self.state is not OPEN or self.sending:
            raise self._refusal()
        if self.out or self.pacer is not None or self._mask_keys is not None:
            return False
        if self.extension is not None:
            self.extension.pass_shared(first)
        self.active = True
        return True

    def pace(self, now: float) -> None:
        """Move to `out` what the peer is willing to receive by now. The driver calls it before it writes."""
        pacer = self.pacer
        if pacer is not None and pacer.waiting:
            self.active = True  # what waits for its turn is on its way
            pacer.release(now, self._append)

    @property
    def waiting(self) -> int:
        """Bytes that wait for their turn, since the peer has said how fast it wants to be sent to."""
        return 0 if self.pacer is None else self.pacer.waiting

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
        if self.keepalive is None:
            self.keepalive = Keepalive(FOREVER, FOREVER)
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
        if len(data) > MAX_CONTROL:
            raise ValueError(f"a control frame holds at most {MAX_CONTROL} bytes (RFC 6455, section 5.5)")

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
        if len(reason.encode()) > MAX_REASON:
            raise ValueError(f"a close reason holds at most {MAX_REASON} bytes (RFC 6455, section 5.5)")
        if self.state is OPEN and self.sent is None:
            if self.rcvd is None and self.failure is None:
                self.who = "local"
            self._send_close(Close(code, reason), now)

    def _send_close(self, close: Close, now: float) -> None:
        payload = close.code.to_bytes(2, "big") + close.reason.encode()
        if close.code == CloseCode.NO_STATUS_RCVD:
            payload = b""
        self._close_at = now + self.close_timeout
        pacer = self.pacer
        if pacer is None or self.failure is not None or self.rcvd is not None:
            # The peer hears nothing more; it may have been told half a message (section 5.4).
            self.pacer = None
            self._append(FIN | Opcode.CLOSE, payload)
        else:
            self._close_at += min(pacer.seconds(), PACED_CLOSE)
            pacer.add(FIN | Opcode.CLOSE, payload)
        self.sent = close
        if self.rcvd is not None:
            self.rcvd_then_sent = True
        self._pong = None
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
            if self.verdict is None:
                due = min(self._rest_at, self._idle_at)
                if self.keepalive is not None:
                    due = min(due, self.keepalive.deadline())
            else:
                due = self._verdict_at
        elif self.state is CLOSING:
            due = self._close_at
        else:
            return FOREVER
        return due if self.pacer is None else min(due, self.pacer.deadline())

    def expire(self, now: float) -> None:
        """Time has passed: send a ping, or give up on a peer that is silent. Does nothing before `deadline()`."""
        self.pace(now)
        if self.state is CLOSING:
            if now >= self._close_at:
                self.end("remote", f"the peer did not end the closing handshake within {self.close_timeout:g} s")
        elif self.verdict is not None:
            if now >= self._verdict_at:
                self.conclude(now)
        elif self.state is OPEN:
            keepalive = self.keepalive
            if keepalive is not None:
                if keepalive.is_silent(now, self.received_at, self.paused):
                    self._send_close(Close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout"), now)
                    self.end("remote", keepalive.describe_silence(now))
                    return
                ping = keepalive.next_ping(now, self.paused)
                if ping is not None:
                    self._append(FIN | Opcode.PING, ping)
            if now >= self._rest_at:
                self._rest_at = now + REST
                assert self.extension is not None
                self.extension.rest()
            if now >= self._idle_at:
                self._check_idle(now)

    def _check_idle(self, now: float) -> None:
        """Activity has no clock; so it is looked for four times in a timeout."""
        timeout = self.limits.idle_timeout
        assert timeout is not None
        self._idle_at = now + timeout / 4
        if self.active:
            self.active = False
            self._idle_looks = 0
            return
        self._idle_looks += 1
        if self._idle_looks == 4:
            self.who = "local"
            self.limit = "idle_timeout"
            self.detail = f"no message for {timeout:g} s"
            self._send_close(Close(CloseCode.GOING_AWAY, self.detail), now)
