"""Reports: what came of a scenario, for people to read, print and archive, and for machines."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.report.context import Context
from bench.report.junit import junit
from bench.report.page import page
from bench.report.rows import rows
from bench.report.tables import tables
from bench.verdict import verdict, versions
from dertwin.scenario.packs import PACKS
from dertwin.scenario.run import CaseResult, ScenarioResult

__all__ = ["Context", "write_report"]


def write_report(result: ScenarioResult, context: Context, folder: Path) -> None:
    """Write report.html, junit.xml and result.json into a folder, and the files of each case below.

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
    began = context.started_at.astimezone(UTC)
    for place, (case, each) in enumerate(zip(result.cases, judged, strict=True), start=1):
        for name, text in (*tables(case, each), *_for_others(case, began)):
            _write(folder / f"case-{place}" / name, text)
        began += timedelta(seconds=case.duration_s)


def _for_others(case: CaseResult, began: datetime) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file that a pack has for others to evaluate."""
    for found in case.verdicts:
        if found.params is not None:
            at = began + timedelta(seconds=found.started_s)
            yield from PACKS[found.pack].files(found.params, case.record, found.started_s, at).items()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Half of a surrogate pair, which a file of a scenario can have by an escape, has no bytes.
    file.write_bytes(text.encode(errors="replace"))
