"""TLS between a link and its socket. OpenSSL works in memory; the socket is read and written here.

    socket -> incoming -> OpenSSL -> `Engine.buffer`      one read for all the records that are there
    socket <- outgoing <- OpenSSL <- `Session.out`        one write, likewise

OpenSSL could have the socket itself. Then it asks the kernel twice for each record, for its head and for the rest.

A memory BIO keeps the room that it once needed, so it is given little at a time.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import calls
from .shares import BUFFER, PORTION

if TYPE_CHECKING:
    from .engine import Engine


class TLS:
    """See above. `wants_read`: it has to read before it can write on; `wants_write`: or to write before it can read on.

    `ssl_object` is for whoever wants to know the peer's certificate, or the cipher.
    """

    __slots__ = (
        "sock fd incoming outgoing ssl_object _openssl sealed more wants_read wants_write _taken _over _error"
    ).split()

    def __init__(
        self, sock: socket.socket, fd: int, context: ssl.SSLContext, server: bool, hostname: str | None
    ) -> None:
        self.sock = sock
        self.fd = fd  # for `calls`
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self.incoming, self.outgoing, server_side=server, server_hostname=hostname)
        self._openssl: Any = getattr(self.ssl_object, "_sslobj", self.ssl_object)  # which it passes all on to
        self.sealed = bytearray()  # what the kernel has not taken
        self.more = False  # there may be something to read, whatever the kernel says
        self.wants_read = False
        self.wants_write = False
        self._taken = 0  # plain bytes in `sealed`, at most, that have not been told to be written
        self._over = False  # our half is ended
        self._error: OSError | None = None  # what came behind the bytes that were read last

    def shake(self) -> bool:
        """Go on with the handshake: whether it is complete. Raises OSError."""
        done = False
        if self.flush():
            data = calls.read_bytes(self.sock, self.fd, PORTION)
            if data:
                self.incoming.write(data)
            elif data is not None:
                self.incoming.write_eof()
            try:
                self.ssl_object.do_handshake()
                self.more = done = True
            except ssl.SSLWantReadError:
                pass
            self.flush()
        self.wants_write = bool(self.sealed)
        return done

    def read(self, engine: Engine, most: int) -> int:
        """Read into the engine's buffer, no more than that: how much, 0 at the end, -1 if nothing. Raises OSError."""
        if self._over:
            return calls.read(self.sock, self.fd, engine.buffer, BUFFER)  # nobody listens any more
        if self._error is not None:
            raise self._error
        if self.wants_write:
            return -1
        self.wants_read = False
        size, count = 0, PORTION
        try:
            while size < most:
                if not self.more:
                    if count < PORTION:
                        break
                    data = calls.read_bytes(self.sock, self.fd, PORTION)
                    if not data:
                        return size or (-1 if data is None else 0)  # an end is there again next time
                    self.incoming.write(data)
                    count = len(data)
                try:
                    view = engine.view[size:] if size else engine.view
                    opened: int = self._openssl.read(most - size, view)
                except ssl.SSLWantReadError:
                    self.more = False
                    continue
                size += opened
                # A record at a time. Of one that was cut, or after a close_notify, OpenSSL itself knows.
                self.more = self.incoming.pending > 0 or size == most or not opened
                if not opened:
                    return size
        except OSError as error:
            if not size:
                raise
            self._error = error.with_traceback(None)  # no views that live on
            self.more = True
        if self.outgoing.pending:  # it has been asked for new keys, or for a new handshake
            self.wants_write = not self.flush()
        return size or -1

    def write(self, data: bytearray) -> int:
        """Write of `data` so many bytes as the kernel takes. The rest has to be given again. Raises OSError."""
        done = self._taken
        self.wants_read = False
        if self.sealed:
            self.flush()
        while done < len(data) and not self.sealed and not self.wants_read:
            try:
                whole = not done and len(data) <= PORTION
                done += self._openssl.write(data if whole else data[done : done + PORTION])
            except ssl.SSLWantReadError:
                self.wants_read = True
            self.flush()
        self._taken = min(len(self.sealed), done)
        return done - self._taken

    def flush(self) -> bool:
        """Send what is sealed: whether all of it has left. Raises OSError."""
        sealed = self.sealed
        data = self.outgoing.read()
        if sealed:
            sealed += data
            del sealed[: calls.write(self.sock, self.fd, sealed)]
        elif data:
            sent = calls.write(self.sock, self.fd, data)
            if sent < len(data):
                sealed += data[sent:]
        return not sealed

    def end(self) -> None:
        """Send a close_notify. The peer's own need not be awaited: RFC 8446, section 6.1."""
        self._over = True
        with suppress(ssl.SSLError):  # it has not come yet
            self.ssl_object.unwrap()
        with suppress(OSError):  # there is nobody to read it
            self.flush()
