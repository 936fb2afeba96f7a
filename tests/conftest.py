"""What every test begins with."""

import os
import signal

import pytest
import structlog

# What a shell runs in the background ignores it, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What users have not set either: with it nothing is left to be written when a program ends.
os.environ.pop("PYTHONUNBUFFERED", None)


@pytest.fixture(autouse=True)
def _log_as_nobody_has_set_it_up() -> None:
    """Forget what a command that a test ran in this process has made of the log."""
    structlog.reset_defaults()
