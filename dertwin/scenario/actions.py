"""Actions: what a scenario does to a site. Each has one key that says what it is."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Field, Tag, TypeAdapter

from dertwin.faults import DeviceFault
from dertwin.overrides import Override
from dertwin.scenario.link import LinkFault
from dertwin.scenario.wire import WireFault
from dertwin.schema import FrozenModel


class WriteCommand(FrozenModel):
    """A write to a device as if its EMS had made it: `write: {bess-1.start_stop_standby: 1}`, SI values."""

    write: dict[str, float] = Field(min_length=1)


class CallPack(FrozenModel):
    """Runs a verdict pack from now on: `verdict` names it, `with` has its parameters."""

    verdict: str = Field(min_length=1)
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")


KINDS = ("environment", "device_fault", "wire_fault", "link_fault", "write", "verdict")


def _kind(value: Any) -> str | None:
    for kind in KINDS:
        if (kind in value) if isinstance(value, dict) else hasattr(value, kind):
            return kind
    return None


Action: TypeAlias = Annotated[
    Annotated[Override, Tag("environment")]
    | Annotated[DeviceFault, Tag("device_fault")]
    | Annotated[WireFault, Tag("wire_fault")]
    | Annotated[LinkFault, Tag("link_fault")]
    | Annotated[WriteCommand, Tag("write")]
    | Annotated[CallPack, Tag("verdict")],
    Discriminator(
        _kind,
        custom_error_type="no_action",
        custom_error_message=f"is no action; an action has one of the keys {', '.join(KINDS)}",
    ),
]

_ACTION: TypeAdapter[Action] = TypeAdapter(Action)


def action_of(document: Mapping[str, Any]) -> Action:
    """Return an action that is written as in a scenario file. Raises pydantic.ValidationError."""
    return _ACTION.validate_python(dict(document))
