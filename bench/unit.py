"""One device behind one unit id of a link."""

from collections import defaultdict

import structlog

from bench.log import OncePerMinute
from dertwin.modbus.errors import ServerDeviceFailure
from dertwin.modbus.pdu import exception_reply, respond
from dertwin.registers.image import RegisterImage

log = structlog.get_logger()


class Unit:
    """Answers the requests of one link for one device and counts them.

    `requests` counts by (function code, exception code of the reply or 0). While the device has `failed`,
    every request is refused. The units of a device share `failures`: one that fails at every request must
    not fill the disk.
    """

    __slots__ = ("_failures", "asset_id", "failed", "image", "requests")

    def __init__(self, asset_id: str, image: RegisterImage, failures: OncePerMinute) -> None:
        """Answer from the image of the device `asset_id`."""
        self.asset_id = asset_id
        self.image = image
        self.failed = False
        self._failures = failures
        self.requests: defaultdict[tuple[int, int], int] = defaultdict(int)

    def respond(self, pdu: bytes) -> bytes:
        """Return the reply to a request PDU; empty if it gets none."""
        try:
            reply = _refuse(pdu) if self.failed else respond(pdu, self.image)
        except Exception:
            if self._failures.due(self.asset_id):
                log.exception("request failed", device=self.asset_id, pdu=pdu.hex())
            reply = exception_reply(pdu[0], ServerDeviceFailure.code)
        if reply:
            self.requests[pdu[0], reply[1] if reply[0] & 0x80 else 0] += 1
        return reply


def _refuse(pdu: bytes) -> bytes:
    # What is no request gets no reply, as from a device that works.
    return exception_reply(pdu[0], ServerDeviceFailure.code) if pdu and pdu[0] < 0x80 else b""
