"""A defect in a device: exception 04 for the request, a line in the log, no harm to other devices."""

import dataclasses

import pytest
from structlog.testing import capture_logs

from bench.check import check_site
from bench.log import OncePerMinute
from bench.unit import Unit
from dertwin.registers.image import RegisterImage

READ = b"\x04\x00\x00\x00\x01"
FAILED = b"\x84\x04"


class Time:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def broken_pack(*raws: float) -> bytes:
    raise ZeroDivisionError("a defect")


def units(failures: OncePerMinute) -> tuple[Unit, Unit, Unit]:
    """Return two units of a device whose registers cannot be encoded, and one of a device that is well."""
    checked = check_site({"assets": [{"type": "bess", "port": 55001}]})
    (layout,) = checked.layouts["bess-1"]
    device = checked.config.assets[0].build()

    def unit(asset_id: str, broken: bool) -> Unit:
        image = RegisterImage(dataclasses.replace(layout, pack=broken_pack) if broken else layout)
        image.publish(device.measurements)
        return Unit(asset_id, image, failures)

    return unit("ill", True), unit("ill", True), unit("well", False)


def test_a_defect_is_exception_04_for_its_requests_only() -> None:
    first, second, well = units(OncePerMinute())
    with capture_logs() as log:
        assert first.respond(READ) == second.respond(READ) == FAILED
        assert well.respond(READ)[0] == READ[0]
    assert first.requests == {(4, 4): 1}
    assert well.requests == {(4, 0): 1}
    assert [(line["event"], line["log_level"], line["device"]) for line in log] == [
        ("request failed", "error", "ill")
    ]
    assert log[0]["exc_info"]


@pytest.mark.parametrize(("seconds", "lines"), [(59, 1), (60, 2), (600, 11)])
def test_a_device_that_fails_at_every_request_has_a_line_a_minute(seconds: int, lines: int) -> None:
    time = Time()
    first, second, _ = units(OncePerMinute(time))
    with capture_logs() as log:
        for second_s in range(seconds + 1):
            time.s = float(second_s)
            for unit in (first, second):
                assert unit.respond(READ) == FAILED
    assert len(log) == lines
