"""The one place that retries: what it tells of a link that fails, and how often."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from bench.links.link import LinkDown
from bench.links.supervise import ORDINARY_BREAKS, RETRY_S, LinkStatus, supervise
from bench.unit import Unit

UP = "up"
HOLDS = "holds"
HOLDS_AFTER_S = 0.01


@pytest.fixture(autouse=True)
def a_link_holds_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.links.supervise.HOLDS_AFTER_S", HOLDS_AFTER_S)


class ScriptedLink:
    """Meets with what the script says at each attempt: an error, or UP and then a broken line.

    With HOLDS the line breaks only when the time has passed that shows that it holds.
    """

    name = "scripted"

    def __init__(self, script: list[Exception | str]) -> None:
        self.units: dict[int, Unit] = {}
        self._script = iter(script)

    async def serve(self, up: Callable[[str], None]) -> None:
        step = next(self._script, None)
        if step is None:
            raise asyncio.CancelledError
        if isinstance(step, Exception):
            raise step
        up("here")
        if step == HOLDS:
            await asyncio.sleep(2 * HOLDS_AFTER_S)
        raise LinkDown("broke")


def run(script: list[Exception | str]) -> tuple[LinkStatus, list[str], list[float]]:
    """Return the last status, the log as text, and the pauses between attempts."""
    status, pauses = LinkStatus(), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    with capture_logs() as log, pytest.raises(asyncio.CancelledError):
        asyncio.run(supervise(ScriptedLink(script), status, sleep))
    return status, [" ".join(filter(None, (e["event"], e.get("reason")))) for e in log], pauses


def test_the_same_failure_is_told_once_and_tried_again_at_an_even_pace() -> None:
    status, log, pauses = run([LinkDown("no port")] * 50)
    assert log == ["link down no port"]
    assert (status.up, status.reason, status.settled.is_set()) == (False, "no port", True)
    assert pauses == [RETRY_S] * 50


def test_each_change_of_state_or_reason_is_told() -> None:
    absent, denied = LinkDown("no port"), OSError("denied")
    status, log, _ = run([absent, absent, denied, denied, UP, UP, absent])
    assert log == [
        "link down no port",
        "link down denied",
        "link up",
        "link down broke",
        "link up",
        "link down broke",
        "link down no port",
    ]
    assert status.times_up == 2


def test_a_defect_is_told_with_its_traceback_once_and_the_link_is_tried_again() -> None:
    _, log, _ = run([ZeroDivisionError("oops"), ZeroDivisionError("oops"), UP])
    assert log == ["link down ZeroDivisionError('oops')", "link failed", "link up", "link down broke"]


def test_a_line_that_breaks_whenever_it_is_opened_is_soon_told_of_no_more_but_tried_as_often() -> None:
    status, log, pauses = run([UP] * 40)
    assert log == ["link up", "link down broke"] * (ORDINARY_BREAKS + 1)
    assert pauses == [RETRY_S] * 40
    assert RETRY_S < 2.0, "a line that has come back must be served by then"
    assert status.times_up == 40


def test_a_loose_line_is_told_of_again_once_it_has_held() -> None:
    _, log, _ = run([*[UP] * 10, HOLDS, UP])
    assert log == ["link up", "link down broke"] * (ORDINARY_BREAKS + 3)


def test_a_line_that_held_before_it_broke_is_not_loose_however_often_it_breaks() -> None:
    _, log, _ = run([HOLDS] * 10)
    assert log == ["link up", "link down broke"] * 10


def test_a_loose_line_that_goes_for_good_is_told_once_with_each_reason() -> None:
    gone = LinkDown("no port")
    _, log, _ = run([*[UP, gone] * 10, gone, gone])
    assert log == [*["link up", "link down broke", "link down no port"] * (ORDINARY_BREAKS + 1)]
