import pytest

pytest.register_assert_rewrite("e2e.tools")
