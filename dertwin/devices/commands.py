"""What every device makes of a commanded value."""

import math
from collections.abc import Mapping

from dertwin.devices.device import CommandRange
from dertwin.stepping import clamp


def accept(commands: Mapping[str, CommandRange], name: str, value: float) -> float | None:
    """Return the value that a device takes for a command: clamped to its range, None if it takes none.

    None is the answer to what is no number or not among the allowed values. Raises KeyError, naming
    the commands there are, for an unknown one.
    """
    accepted = commands.get(name)
    if accepted is None:
        raise KeyError(f"no command {name!r}; use one of {', '.join(commands)}")
    if math.isnan(value) or (accepted.allowed is not None and value not in accepted.allowed):
        return None
    return clamp(value, accepted.low, accepted.high)
