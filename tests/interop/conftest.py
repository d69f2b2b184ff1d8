from __future__ import annotations

import ssl

import pytest

from peers import tls

pytest.register_assert_rewrite("interop.libraries", "interop.compressing", "interop.tap")


@pytest.fixture(scope="session")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server that is `localhost`, and for a client that trusts it; a certificate takes its time to make."""
    return tls()
