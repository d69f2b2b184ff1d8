"""Frames come in, messages come out: the half of a connection that reads, RFC 6455 sections 5 and 6.2.

Bytes go into `receive()`, whole messages gather in `inbox`. What a frame breaks is reported to `_fail`, a control frame
is given to `_receive_control`; both are the `Session`'s, which stands on this class.

Memory: a frame in progress, or a message in fragments, is one growing buffer; nothing is reserved for what was only
declared. What an extension has encoded is decoded piece by piece as it comes, so its encoded form is not held at all.
"""

from __future__ import annotations

import codecs

from . import leaves
from .codec import broken_rule, head_length, head_size
from .errors import PayloadTooBig, ProtocolError
from .extensions import Extension, widened
from .limits import MAX_QUEUE_SIZE, SMALL_FRAGMENT
from .opcodes import (
    BINARY_FRAME,
    CLOSE,
    CONT,
    FIN,
    MASK,
    MAX_FRAME_HEAD,
    NO_LIMIT,
    OPCODE,
    RSV,
    TEXT,
    TEXT_FRAME,
    CloseCode,
    is_sendable,
)
from .rate import Meter


class Fragment:
    """A part of a message, in the inbox while `Receiver.streaming`; `fin` marks the last one."""

    __slots__ = ("data", "fin")

    def __init__(self, data: str | bytes, fin: bool) -> None:
        self.data = data
        self.fin = fin

    def __len__(self) -> int:
        return len(self.data)


class Receiver:
    """What a session knows of what comes in."""

    __slots__ = (
        # Settings.
        "server max_size max_frame max_fragments extension meter "
        # Read state.
        "received_at _stash _opcode _fin _key _remaining _control _message _message_opcode _message_size _fragments "
        "_valid _encoded _sees_all _rsv _skipping _decoded completed inbox inbox_head inbox_size streaming deaf "
        "active rest"
    ).split()

    def __init__(self, server: bool, max_size: int | None, max_frame: int | None, max_fragments: int | None) -> None:
        # Settings.
        self.server = server
        self.max_size = NO_LIMIT if max_size is None else max_size
        self.max_frame = self.max_size if max_frame is None else min(max_frame, self.max_size)
        self.max_fragments = NO_LIMIT if max_fragments is None else max_fragments
        self.extension: Extension | None = None
        self.meter: Meter | None = None

        # Read state. The frame in progress ...
        self.received_at = 0.0
        self._stash = b""  # the head's bytes, while it is incomplete
        self._opcode = 0
        self._fin = False
        self._key = b""  # its mask key, turned to where the payload stands
        self._remaining = -1  # payload bytes still to come; -1: between two frames
        self._control = b""  # the payload so far of a control frame
        # ... the message in progress ...
        self._message: bytearray | None = None  # None: between two messages ...
        self._message_opcode = 0  # ... and 0
        self._message_size = 0
        self._fragments = 0  # small ones
        self._valid = 0  # so many bytes of it are valid UTF-8
        self._encoded = False  # the extension decodes it
        self._sees_all = False  # ... as it does all messages
        self._rsv = 0  # the reserved bits that have a meaning
        self._skipping = False  # nobody wants the rest of it
        # ... what has become of this read ...
        self._decoded = 0  # bytes that an extension has made
        self.completed = 0  # messages
        self.rest: bytearray | None = None  # what is left of it, when so much was made of it that it is enough for now
        # ... and what is complete. Taken from inbox_head on, so that taking is quick and keeps order.
        self.inbox: list[str | bytes | Fragment] | None = None  # None: nothing
        self.inbox_head = 0
        self.inbox_size = 0
        self.streaming = False
        self.deaf = False  # what comes is discarded: after a close frame, after a failure
        self.active = False  # a message came, or went, since somebody looked

    # What the session does about it.

    def _receive_control(self, opcode: int, payload: bytes) -> None:
        """A control frame came."""
        raise NotImplementedError

    def _fail(
        self,
        code: int,
        rule: str,
        kind: type[ProtocolError] = ProtocolError,
        limit: str = "",
        cause: Exception | None = None,
    ) -> None:
        """The peer broke `rule`, or we failed by `cause`: be `deaf` from now on, forget the message in progress."""
        raise NotImplementedError

    def _measure(self, size: int, messages: int) -> None:
        """So much was read, and there is a `meter`."""
        raise NotImplementedError

    # Receiving.

    def receive(self, data: bytearray, size: int, now: float) -> None:
        """The first `size` bytes of `data` came from the peer."""
        self.received_at = now
        if not self.deaf:
            self._receive(data, size)

    def go_on(self) -> None:
        """Receive the `rest` of what came; some of it may be left again."""
        rest, self.rest = self.rest, None
        if rest is not None and not self.deaf:
            self._receive(rest, len(rest))

    def _receive(self, data: bytearray, size: int) -> None:
        at = 0
        self._decoded = self.completed = 0
        usual_ones = 0
        if self._remaining >= 0:
            at = self._receive_payload(data, 0, size)
        elif self._stash:
            at = self._receive_frame(data, 0, size)
        masked = self.server
        bit = MASK if masked else 0
        longest = self.max_frame
        usual = self._expects_message()
        total = 0
        while at < size:
            # The usual frame: a whole message, all of it in this buffer, its length in the shortest form.
            first = data[at]
            if usual and (first == BINARY_FRAME or first == TEXT_FRAME) and size - at > 3:
                length = data[at + 1] - bit
                start = at + (6 if bit else 2)
                if length == 126:
                    length = data[at + 2] << 8 | data[at + 3]
                    start += 2
                    if length < 126:
                        length = -1
                elif length == 127:
                    start += 8
                    length = leaves.long_length(data, at + 2) if size - at > 10 else -1
                elif length > 127:
                    length = -1
                if 0 <= length <= longest and length <= size - start:
                    stop = start + length
                    message: str | bytes
                    if first == BINARY_FRAME:
                        message = leaves.payload(data, start, stop, masked)
                        total += length
                    else:
                        try:
                            message = leaves.text(data, start, stop, masked)
                        except UnicodeDecodeError as error:
                            self._fail_utf8(error)
                            break
                        total += len(message)
                    if self.inbox is None:
                        self.inbox = [message]
                    else:
                        self.inbox.append(message)
                    usual_ones += 1
                    at = stop
                    continue
            if self._decoded >= MAX_QUEUE_SIZE:
                # Little can be made into much, message after message: not more of it than is held of them anyway.
                self.rest = data[at:size]
                break
            at = self._receive_frame(data, at, size)
            usual = self._expects_message()
        self.inbox_size += total
        if usual_ones:
            self.active = True
            self.completed += usual_ones
        if self.meter is not None:
            self._measure(at, self.completed)

    def _expects_message(self) -> bool:
        """The next frame may be a whole message, to be delivered as such."""
        return not (self.deaf or self._message_opcode or self.streaming or self._sees_all)

    def _receive_frame(self, data: bytearray, at: int, size: int) -> int:
        """Read any frame, or what there is of it; return where it stopped."""
        if self.deaf:
            return size
        at = self._receive_head(data, at, size)
        return at if self._remaining < 0 else self._receive_payload(data, at, size)

    def _receive_head(self, data: bytearray, at: int, size: int) -> int:
        """Read a frame's head from `at` on, or as much as there is; return where it stopped."""
        held = len(self._stash)
        head = self._stash + leaves.payload(data, at, min(size, at + MAX_FRAME_HEAD - held), False)
        self._stash = head
        if len(head) < 2:
            return size
        rule = broken_rule(head[0], head[1], self.server, self._message_opcode != 0, self._rsv)
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
        elif opcode >= CLOSE or self._begin_data(head[0], length):
            self._opcode = opcode
            self._fin = head[0] & FIN != 0
            self._key = head[need - 4 : need] if self.server else b""
            self._remaining = length
        return at + need - held

    def _begin_data(self, first: int, length: int) -> bool:
        """Tell whether a data frame of this length may come."""
        opcode = first & OPCODE
        if opcode != CONT:
            extension = self.extension
            self._encoded = extension is not None and (self._sees_all or first & self._rsv != 0)
            if self._encoded:
                assert extension is not None
                extension.begin(first & RSV)
            self._message = bytearray()
            self._message_opcode = opcode
        if self._encoded:
            if length > widened(self.max_frame):
                self._fail_too_big(length)
                return False
        elif length > min(self.max_frame, self.max_size - self._message_size):
            self._fail_too_big(length)
            return False
        else:
            self._message_size += length
        if length < SMALL_FRAGMENT:
            if self._fragments == self.max_fragments:
                rule = f"more than {self.max_fragments} fragments under {SMALL_FRAGMENT} bytes in a message"
                self._fail(CloseCode.MESSAGE_TOO_BIG, rule, PayloadTooBig, "fragments")
                return False
            self._fragments += 1
        return True

    def _receive_payload(self, data: bytearray, at: int, size: int) -> int:
        """Read what there is of the payload of the frame in progress; return where it stopped."""
        length = min(self._remaining, size - at)
        key = self._key
        is_plain = self._opcode < CLOSE and not self._encoded
        message = self._message
        piece = message if is_plain and message is not None else bytearray()
        leaves.extend(piece, data, at, at + length, key)
        if length & 3:
            self._key = key[length & 3 :] + key[: length & 3]
        self._remaining -= length
        if self._opcode >= CLOSE:
            self._control += piece
            if not self._remaining:
                self._remaining = -1
                payload, self._control = self._control, b""
                self._receive_control(self._opcode, payload)
        else:
            self.active = True
            complete = not self._remaining and self._fin
            if self._encoded:
                assert message is not None
                message += self._decode(bytes(piece), complete)
                if self.deaf:
                    return size
            at_once = complete and not self._valid  # then it is checked when it is delivered
            if self._message_opcode == TEXT and not at_once and not self._is_utf8(complete):
                return size
            if not self._remaining:
                self._remaining = -1
                if complete or self.streaming:
                    self._deliver(complete)
        return size if self.deaf else at + length

    def _decode(self, piece: bytes, complete: bool) -> bytes:
        """What the extension makes of a piece of a message; nothing if that breaks a rule."""
        extension = self.extension
        assert extension is not None
        left = self.max_size - self._message_size
        try:
            made = extension.decode(piece, complete, left)
            piece = made if type(made) is bytes else bytes(memoryview(made))
        except PayloadTooBig:
            self._fail_decoded()
            return b""
        except ProtocolError as error:
            code = error.code if is_sendable(error.code) else CloseCode.PROTOCOL_ERROR
            self._fail(code, error.rule, type(error))
            return b""
        except Exception as error:
            # Not the peer's fault. Closing tells it so; our side learns what happened from the error's cause.
            self._fail(CloseCode.INTERNAL_ERROR, "an extension failed", cause=error)
            return b""
        if len(piece) > left:
            self._fail_decoded()
            return b""
        self._message_size += len(piece)
        self._decoded += len(piece)
        return piece

    def _fail_decoded(self) -> None:
        rule = f"a message of more than {self.max_size} bytes once decoded is over the limit"
        self._fail(CloseCode.MESSAGE_TOO_BIG, rule, PayloadTooBig, "max_size")

    def _is_utf8(self, complete: bool) -> bool:
        """Check what is new of a text message, so that it fails at its first wrong byte. Section 8.1."""
        message = self._message
        assert message is not None
        try:
            self._valid += codecs.utf_8_decode(memoryview(message)[self._valid :], "strict", complete)[1]
            # The decoder waits for the last byte of a surrogate, though no byte can make it valid.
            if message[self._valid : self._valid + 1] == b"\xed" and message[self._valid + 1 :] >= b"\xa0":
                str(message[self._valid :] + b"\x80", "utf-8")
        except UnicodeDecodeError as error:
            self._fail_utf8(error)
            return False
        return True

    def _fail_utf8(self, error: UnicodeDecodeError) -> None:
        self._fail(CloseCode.INVALID_DATA, f"invalid UTF-8 in a text message: {error.reason}")

    def _deliver(self, complete: bool) -> None:
        """Move the message in progress, or while `streaming` the part of it that can be shown, to the inbox."""
        message = self._message
        assert message is not None
        data: str | bytes
        rest = None
        if self._message_opcode != TEXT:
            data = leaves.payload(message, 0, len(message), False)
        elif complete and not self._valid:
            try:
                data = str(message, "utf-8")
            except UnicodeDecodeError as error:
                self._fail_utf8(error)
                return
        else:
            data = str(memoryview(message)[: self._valid], "utf-8")
            rest = message[self._valid :]
        if not self._skipping:
            item = Fragment(data, complete) if self.streaming else data
            if self.inbox is None:
                self.inbox = [item]
            else:
                self.inbox.append(item)
            self.inbox_size += len(data)
        self._message = None if complete else rest or bytearray()
        self._valid = 0
        if complete:
            self.completed += 1
            self._message_opcode = 0
            self._message_size = 0
            self._fragments = 0
            self.streaming = False
            self._skipping = False

    def _fail_too_big(self, length: int) -> None:
        if not self._encoded and length > self.max_size - self._message_size:
            rule = f"a message of {self._message_size + length} bytes is over the limit of {self.max_size}"
        else:
            rule = f"a frame of {length} bytes is over the limit of {self.max_frame}"
        self._fail(CloseCode.MESSAGE_TOO_BIG, rule, PayloadTooBig, "max_size")

    def stream(self) -> None:
        """Deliver the next message, or the one in progress, in `Fragment`s as its frames come."""
        self.streaming = True
        if self._message_opcode and self._remaining < 0:
            self._deliver(False)

    def skip(self) -> None:
        """Drop what is left of a message that is being delivered in fragments."""
        self.streaming = self._skipping = self.streaming and self._message_opcode != 0
        self._keep([item for item in self._untaken() if not isinstance(item, Fragment)])

    def drop(self, kept: int) -> None:
        """Keep so many messages of the inbox, the oldest."""
        self._keep(self._untaken()[:kept])

    def _untaken(self) -> list[str | bytes | Fragment]:
        return [] if self.inbox is None else self.inbox[self.inbox_head :]

    def _keep(self, messages: list[str | bytes | Fragment]) -> None:
        self.inbox = messages or None
        self.inbox_head = 0
        self.inbox_size = sum(map(len, messages))

    def queued(self) -> int:
        """Messages in the inbox."""
        return 0 if self.inbox is None else len(self.inbox) - self.inbox_head

    def spare(self, delivered: list[str | bytes | Fragment]) -> None:
        """An inbox was taken as a whole, and delivered: what nobody has kept is memory, in C, for what comes next."""
        leaves.spare(delivered)

    def take(self) -> str | bytes | Fragment:
        """Take the oldest of the inbox, which must not be empty."""
        inbox, head = self.inbox, self.inbox_head
        assert inbox is not None
        message = inbox[head]
        inbox[head] = ""  # its memory is the taker's
        head += 1
        if head == len(inbox):
            self.inbox = None
            head = 0
        elif head == 64:
            del inbox[:head]
            head = 0
        self.inbox_size -= len(message)
        self.inbox_head = head
        return message
