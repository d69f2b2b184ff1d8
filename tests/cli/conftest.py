import pytest

pytest.register_assert_rewrite("cli.command")
