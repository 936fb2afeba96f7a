"""Reports: what came of a scenario, for people to read, print and archive, and for machines."""

import json
from pathlib import Path

from bench.report.context import Context
from bench.report.junit import junit
from bench.report.page import page
from bench.report.rows import rows
from bench.report.tables import tables
from bench.verdict import verdict, versions
from dertwin.scenario.run import ScenarioResult

__all__ = ["Context", "write_report"]


def write_report(result: ScenarioResult, context: Context, folder: Path) -> None:
    """Write report.html, junit.xml and result.json into a folder, and the CSV files of each case below.

    Files of the same names are replaced. Raises OSError.
    """
    judged = [list(rows(case)) for case in result.cases]
    _write(folder / "report.html", page(result, context, judged))
    _write(folder / "junit.xml", junit(result, context, judged))
    content = verdict(result) | {
        "ems": context.ems,
        "started_at": context.started_at.isoformat(timespec="seconds"),
        "took_s": context.took_s,
        "versions": versions(),
    }
    _write(folder / "result.json", json.dumps(content, indent=2) + "\n")
    for place, (case, each) in enumerate(zip(result.cases, judged, strict=True), start=1):
        for name, text in tables(case, each):
            _write(folder / f"case-{place}" / name, text)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Half of a surrogate pair, which a file of a scenario can have by an escape, has no bytes.
    file.write_bytes(text.encode(errors="replace"))
