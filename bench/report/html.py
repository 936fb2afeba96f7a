"""The few elements that the pages of a report are made of; what comes in as text is escaped here."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.report.words import attribute, text
from dertwin.scenario.run import ScenarioResult

_WORDS = {"passed": "✔ PASSED", "failed": "✘ FAILED", "pending": "NOT COMPLETE"}


class Cell(NamedTuple):
    """A cell of a table: its content as HTML, and its class (n: a number, tag: a short label)."""

    html: str
    kind: str = ""


def cell(value: object, detail: str = "", kind: str = "") -> Cell:
    """Return a cell with a text, and a smaller one below it."""
    return Cell(f"{text(value)}<small>{text(detail)}</small>" if detail else text(value), kind)


def figure(value: str) -> Cell:
    """Return a cell with a number, and maybe its unit, at the right."""
    return cell(value, kind="n")


def table(
    heads: Iterable[str], lines: Iterable[tuple[str, Sequence[Cell]]], caption: str = "", name: str = ""
) -> str:
    """Return a table. A head that ends in `:n` is that of numbers; a line begins with its class.

    `caption` is HTML. A first cell of the kind tag becomes the target of links: `name` and its content.
    """
    titles = "".join(
        f'<th class="n">{text(head[:-2])}</th>' if head.endswith(":n") else f"<th>{text(head)}</th>"
        for head in heads
    )
    body = "".join(_line(kind, cells, name) for kind, cells in lines)
    top = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{top}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _line(kind: str, cells: Sequence[Cell], name: str) -> str:
    target = f" id={attribute(f'{name}-{cells[0].html}')}" if name else ""
    content = "".join(
        f'<td class="{each.kind}">{each.html}</td>' if each.kind else f"<td>{each.html}</td>"
        for each in cells
    )
    return f'<tr class="{kind}"{target}>{content}</tr>\n' if kind else f"<tr{target}>{content}</tr>\n"


def verdict_of(result: ScenarioResult) -> str:
    """Return the verdict as the name of its class: passed, failed or, if it was stopped, pending."""
    return "passed" if result.passed else "failed" if result.complete else "pending"


def word(outcome: str) -> str:
    """Return an outcome as a reader sees it, with or without colour."""
    return _WORDS[outcome]
