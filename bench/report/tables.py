"""The plain data of a case as CSV: what was recorded, what happened, what was judged."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence

from bench.report.rows import Row
from dertwin.scenario.record import Happened, Received
from dertwin.scenario.run import CaseResult


def tables(case: CaseResult, judged: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file; times in s since the start of the case, no value is empty."""
    record = case.record
    columns = [_column(values) for values in record.columns.values()]
    yield "signals.csv", _csv(("time_s", *record.columns), zip(record.times, *columns, strict=True))
    yield "events.csv", _csv(Happened._fields, record.happened)
    yield "commands.csv", _csv(Received._fields, record.received)
    yield "requirements.csv", _csv(Row._fields, (map(_cell, row) for row in judged))


def _column(values: Sequence[float]) -> Iterable[object]:
    return map(_cell, values) if math.isnan(sum(values)) else values


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _csv(head: Sequence[str], content: Iterable[Iterable[object]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(head)
    writer.writerows(content)
    return file.getvalue()
