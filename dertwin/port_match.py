"""Which serial port is meant, whatever the kernel calls it today."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from dertwin.schema import FrozenModel

Text = Annotated[str, Field(min_length=1)]


def _usb_id(value: str) -> str:
    if len(value) != 4 or not all(c in "0123456789abcdefABCDEF" for c in value):
        raise ValueError(f'"{value}" is not allowed; use four hexadecimal digits, as in "0403"')
    return value.lower()


UsbId = Annotated[str, AfterValidator(_usb_id)]

# The udev properties that may hold each key, the surest first: of a USB device behind another bus,
# only those with USB in their name are its own (systemd 257 and later).
_PROPERTIES = {
    "serial": ("ID_USB_SERIAL_SHORT", "ID_SERIAL_SHORT"),
    "path": ("ID_PATH",),
    "vendor": ("ID_USB_VENDOR_ID", "ID_VENDOR_ID"),
    "product": ("ID_USB_MODEL_ID", "ID_MODEL_ID"),
    "interface": ("ID_USB_INTERFACE_NUM",),
    "tag": ("CURRENT_TAGS", "TAGS"),
}


class PortMatch(FrozenModel):
    """What udev tells of a serial port; every key that is given must fit.

    `serial` is the adapter's serial number, `path` the socket it is plugged into (ID_PATH), `vendor`
    and `product` its USB ids, `interface` the number of a port of an adapter that has several, and
    `tag` a tag set by a udev rule.
    """

    serial: Text | None = None
    path: Text | None = None
    vendor: UsbId | None = None
    product: UsbId | None = None
    interface: int | None = Field(default=None, ge=0, le=255)
    tag: Text | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.keys():
            raise ValueError(f"is empty; use one or more of {', '.join(_PROPERTIES)}")
        return self

    def keys(self) -> dict[str, str | int]:
        """Return what must fit, without the keys that may be anything."""
        return self.model_dump(exclude_none=True)

    def matches(self, properties: Mapping[str, str]) -> bool:
        """Tell whether udev properties are those of the port that is meant."""
        return not self.differences(properties)

    def differences(self, properties: Mapping[str, str]) -> list[str]:
        """Return why a port with these udev properties does not match; empty if it does."""
        found = []
        for key, wanted in self.keys().items():
            has = identity(key, properties)
            if key == "tag":
                if wanted not in has.split(":"):
                    found.append(f"no tag {wanted}")
            elif key == "interface" and has:
                if int(has, 16) != wanted:
                    found.append(f"interface {int(has, 16)}")
            elif not has:
                found.append(f"no {key}")
            elif has.lower() != wanted if key in ("vendor", "product") else has != wanted:
                found.append(f"{key} {has}")
        return found

    def __str__(self) -> str:
        keys = self.keys()
        if keys.keys() == {"serial"}:
            return f"usb:{self.serial}"
        return "{" + ", ".join(f"{key}: {value}" for key, value in keys.items()) + "}"


def identity(key: str, properties: Mapping[str, str]) -> str:
    """Return what udev properties tell about a key of a PortMatch; empty if nothing."""
    return next((properties[name] for name in _PROPERTIES[key] if properties.get(name)), "")
