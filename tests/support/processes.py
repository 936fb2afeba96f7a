"""What a process uses, from /proc."""

import os
import time
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Return the processor time that a process and its ended children have used."""
    # The second field, the name in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def cpu_share(pid: int, during_s: float) -> float:
    """Return which part of one core a process uses while we wait."""
    before, start = cpu_s(pid), time.monotonic()
    time.sleep(during_s)
    return (cpu_s(pid) - before) / (time.monotonic() - start)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet waited for."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
