"""Every bound on what a peer can make us hold or do, with its reason. Sizes are bytes, times are seconds.

Those that a program may want to change are defaults of `serve` and `connect`; the rest are the same for everybody.
"""

from __future__ import annotations

from typing import Final

# The opening handshake. Nginx, Apache and Node all take a line of 8 KiB; the sum is bounded as well, since
# many lines of a legal length are an attack like one that is too long.
MAX_LINE: Final = 8_192
MAX_HEADERS: Final = 128
MAX_HEAD: Final = 65_536
MAX_BODY: Final = 1_048_576  # of a response that refuses us: enough for any error page
MAX_INTERIM: Final = 16  # responses 1xx before the one that counts; servers send one or two

# Messages. 1 MiB is what users of `websockets` expect, and holds most JSON documents.
MAX_MESSAGE: Final = 1_048_576
# Fragments gather in one growing buffer, so a small one costs no more than its bytes. What is left to bound is a
# message of empty fragments that never ends. Autobahn's smallest honest fragments are 65,536 for one message.
MAX_FRAGMENTS: Final = 131_072

# Control frames: RFC 6455, section 5.5. A close frame spends two of its bytes on the code.
MAX_CONTROL: Final = 125
MAX_REASON: Final = 123

# Queues. Reading stops at either bound of what waits for recv(); send() waits at the bound of what waits for the peer.
MAX_QUEUE: Final = 16
MAX_QUEUE_SIZE: Final = 1_048_576
WRITE_LIMIT: Final = 32_768

# Time.
OPEN_TIMEOUT: Final = 10.0
PING_INTERVAL: Final = 20.0
PING_TIMEOUT: Final = 20.0
CLOSE_TIMEOUT: Final = 10.0
