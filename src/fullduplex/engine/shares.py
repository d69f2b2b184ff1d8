"""How much of a tick each may take: sockets, answers, what is said to many, and who comes."""

from __future__ import annotations

from typing import Final

# What one socket may bring before others have their turn, so that none can hog a tick ...
BUFFER: Final = 131_072
# ... and less at once where it is the only one, and several messages, on the average no larger than SMALL, came in its
# last read: what is made of so much stays in the processor's cache.
SOLE: Final = 65_536
SMALL: Final = 16_384
# Bytes that OpenSSL is given at once: two records.
PORTION: Final = 32_768
# Sockets served in one tick, and connections accepted from one listening socket.
BATCH: Final = 512
# Answers that leave together, so that a peer which sleeps is woken once and not by each of them; fewer after a SLICE.
TOGETHER: Final = 32
# Seconds that a tick goes on for while there is more to serve: a trip through the event loop costs as much as serving
# some sockets, and so long nobody else in the loop has its turn.
SPELL: Final = 0.001
# Seconds that writing for others than who is served takes at a stretch; after how many writes the clock is looked at.
SLICE: Final = 0.001
LOOK: Final = 8
# Seconds without accepting after an error, such as no descriptors left.
ACCEPT_PAUSE: Final = 0.25
