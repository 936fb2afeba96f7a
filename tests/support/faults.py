"""Faults as a scenario file has them."""

from typing import Any

from pydantic import TypeAdapter

from dertwin.scenario.link import LinkFault
from dertwin.scenario.wire import WireFault

_WIRE: TypeAdapter[Any] = TypeAdapter(WireFault)
_LINK: TypeAdapter[Any] = TypeAdapter(LinkFault)


def wire_fault(kind: str, **keys: Any) -> Any:
    """Return a wire fault; one that is not said when to end acts once."""
    end = {} if "duration" in keys or "count" in keys else {"count": 1}
    return _WIRE.validate_python({"wire_fault": kind, **end, **keys})


def link_fault(kind: str, **keys: Any) -> Any:
    """Return a link fault; one that is not said how long it lasts does so until the test ends it."""
    return _LINK.validate_python({"link_fault": kind, "duration": 60.0, **keys})
