"""The driver of sessions: sockets, TLS, poller, timers, corking. It knows bytes and sessions, and no API."""
