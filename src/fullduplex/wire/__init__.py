"""The protocol: bytes and the time in; messages, bytes and the next deadline out. No I/O, no clock."""
