"""Echo server on socketify: uWebSockets, in C++, from Python."""

from typing import Any

from socketify import App, CompressOptions

from .options import parse


def echo(ws: Any, message: str | bytes, opcode: Any) -> None:
    ws.send(message, opcode)


app = App()
app.ws(
    "/*", {"compression": CompressOptions.DISABLED, "max_payload_length": 2**31 - 1, "idle_timeout": 0, "message": echo}
)
app.listen({"host": "127.0.0.1", "port": parse().port}, lambda config: None)
app.run()
