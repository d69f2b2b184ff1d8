import signal

import pytest

pytest.register_assert_rewrite("cli.command")

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would the commands they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
