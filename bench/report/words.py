"""How numbers, units and verdicts are written in a report."""

import math
import re
from xml.sax.saxutils import escape, quoteattr

_UNITS = {
    "w": "W",
    "var": "var",
    "va": "VA",
    "wh": "Wh",
    "hz": "Hz",
    "v": "V",
    "a": "A",
    "c": "°C",
    "s": "s",
    "m2": "W/m²",
    "bar": "bar",
    "rpm": "rpm",
    "pct": "%",
}
# What XML 1.0 has no place for, escaped or not; lone halves of surrogate pairs cannot be encoded at all.
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-�\U00010000-\U0010ffff]")
_SMALLEST = 1e-300


def text(value: object) -> str:
    """Return a text from somewhere as it stands between tags."""
    return escape(_NOT_IN_XML.sub("�", str(value)))


def attribute(value: object) -> str:
    """Return a text from somewhere as the value of an attribute, quotes included."""
    return quoteattr(_NOT_IN_XML.sub("�", str(value)))


def unit(signal: str) -> str:
    """Return the unit that the name of a signal ends in, as it is written; empty if it has none."""
    last = signal.rpartition(".")[2]
    return _UNITS.get(last.rpartition("_")[2], "") if "_" in last else ""


def number(value: float) -> str:
    """Return a number in five digits, with thin spaces between thousands and a true minus sign."""
    if math.isnan(value):
        return "no value"
    if math.isinf(value):
        return "∞" if value > 0 else "\u2212∞"
    if 0.0 < abs(value) < _SMALLEST:
        return "0" if value > 0 else "\u22120"
    rounded = f"{value:.5g}"
    if "e" not in rounded or 1e5 <= abs(value) < 1e9:
        rounded = f"{float(rounded):,.10f}".rstrip("0").rstrip(".").replace(",", "\u202f")
    return rounded.replace("-", "\u2212")


def quantity(value: float, of: str) -> str:
    """Return a number with its unit, kept on one line."""
    return f"{number(value)}\u00a0{of}" if of and not math.isnan(value) else number(value)


def limits(low: float, high: float, of: str) -> str:
    """Return in words where a value must lie."""
    if math.isinf(low) and math.isinf(high):
        return "any"
    if math.isinf(low):
        return f"at most {quantity(high, of)}"
    if math.isinf(high):
        return f"at least {quantity(low, of)}"
    return quantity(low, of) if low == high else f"{number(low)} to {quantity(high, of)}"
