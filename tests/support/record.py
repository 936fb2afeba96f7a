"""How measured figures are kept: a table and the machine it is from, between two marker lines of a page."""

import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table; the first one is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = rows
    lines = [head, ["-" * width for width in widths], *body]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def machine() -> str:
    """Return the date, the processor and the Python version in one sentence without its full stop."""
    return (
        f"Measured on {date.today().isoformat()}: {os.cpu_count()} cores of {_cpu_model()}, "
        f"Python {platform.python_version()}"
    )


def write_between_markers(path: Path, name: str, text: str) -> None:
    """Replace what stands between the two marker lines of a page; raises ValueError if they are missing."""
    first, last = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, start, rest = path.read_text().partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise ValueError(f"{path} needs the lines {first} and {last}")
    path.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}")


def cpu_of_others_s() -> float:
    """Return the CPU time (s) of all programs since boot, without this one and those it has run."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    everybody_s = (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return everybody_s - own.user - own.system - own.children_user - own.children_system


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()
