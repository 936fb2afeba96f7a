"""What every test begins with."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def _log_as_nobody_has_set_it_up() -> None:
    """Forget what a command that a test ran in this process has made of the log."""
    structlog.reset_defaults()
