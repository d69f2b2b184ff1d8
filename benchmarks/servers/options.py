"""What an echo server is told:  PORT [--tls PEM] [--deflate [--level N] [--zlib-ng]]"""

from __future__ import annotations

import argparse
import ssl


class Options(argparse.Namespace):
    """`ssl` is a context, or None for plain TCP."""

    port: int
    tls: str | None
    deflate: bool
    level: int | None
    zlib_ng: bool
    ssl: ssl.SSLContext | None = None


def parse() -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--tls", metavar="PEM", help="a file with a key and its certificate")
    parser.add_argument("--deflate", action="store_true", help="agree on permessage-deflate")
    parser.add_argument("--level", type=int, help="of compression, instead of the default; ours only")
    parser.add_argument("--zlib-ng", action="store_true", help="compress with it, instead of zlib; aiohttp only")
    options = parser.parse_args(namespace=Options())
    if options.tls is not None:
        options.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options.ssl.load_cert_chain(options.tls)
    return options
