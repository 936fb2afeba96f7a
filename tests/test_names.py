"""The names that maps and configs may use, as docs/names.md lists them for people."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dertwin.config import parse_asset
from dertwin.devices.classic import CLASSIC

PAGE = Path(__file__).parent.parent / "docs" / "names.md"
UNITS = {
    "w": "W",
    "var": "var",
    "va": "VA",
    "wh": "Wh",
    "v": "V",
    "a": "A",
    "hz": "Hz",
    "s": "s",
    "c": "degC",
    "rpm": "rpm",
    "bar": "bar",
    "m2": "W/m2",
}
TYPES = ["bess", "inverter", "chp", "energy_meter"]


def unit_of(si_name: str) -> str:
    """Return the unit that a name ends with, if it does."""
    return "h" if si_name == "operating_hours" else UNITS.get(si_name.rpartition("_")[2], "")


def classic_unit(si_name: str, factor: float) -> str:
    return {1e-3: f"k{unit_of(si_name)}", 100.0: "%"}.get(factor, unit_of(si_name))


def rows(device_type: str) -> Iterator[str]:
    """Yield what the page must say of each name of a type."""
    device = parse_asset({"type": device_type}).build()
    measured, commands = device.measurements._fields, device.commands
    for name in [*measured, *(name for name in commands if name not in measured)]:
        classics = [(old, factor) for old, (si, factor) in CLASSIC[device_type].items() if si == name]
        ratio = any(factor == 100.0 for _, factor in classics) or "_soc_limit" in name
        unit = "ratio" if ratio else unit_of(name)
        old_names = ", ".join(f"`{old}`" for old, _ in classics)
        old_units = ", ".join(dict.fromkeys(classic_unit(name, factor) for _, factor in classics))
        access = " ".join(word for word, known in (("read", measured), ("write", commands)) if name in known)
        yield f"| `{name}` | {unit} | {old_names} | {old_units} | {access} |".replace("|  ", "| ")


@pytest.mark.parametrize("device_type", TYPES)
def test_the_page_lists_every_name_of_a_type_with_its_unit(device_type: str) -> None:
    section = PAGE.read_text().split(f"\n## {device_type}\n")[1].split("\n## ")[0]
    shown = [line for line in section.splitlines() if line.startswith("| `")]
    assert "\n".join(shown) == "\n".join(rows(device_type))


def test_the_page_has_every_type() -> None:
    assert set(TYPES) == set(CLASSIC)
    for device_type in TYPES:
        for name in CLASSIC[device_type]:
            assert f"`{name}`" in PAGE.read_text()
