"""What the service promises at a bench, and whether it kept it."""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple

import kills
from ems import REPLY_WITHIN_S, SERVED_AGAIN_WITHIN_S, Tally
from kills import Kills
from vitals import Pulse, Shown, Vitals, Watcher, uncounted_steps

MEMORY_MIB = 2.0
# What happens to one adapter is news for the lines that still wait for theirs: it may be the one.
LOG_LINES_EACH_TIME, LOG_LINES_BESIDES = 8, 50
SHOWN_COMPLAINTS = 20


class Seen(NamedTuple):
    """What the soak has seen; `first` and `last` are scrapes, `warm` and `end` looks at the process."""

    tally: Tally
    watcher: Watcher
    pulse: Pulse
    warm: Vitals
    end: Vitals
    first: Shown
    last: Shown
    log: Sequence[dict[str, Any]]
    status: int
    kills: Kills


class Promise(NamedTuple):
    """One line of the result."""

    name: str
    must: str
    was: str
    kept: bool

    def cells(self) -> tuple[str, str, str, str]:
        """Return the line of the table."""
        return self.name, self.must, self.was, "yes" if self.kept else "NO"


def promises(seen: Seen) -> list[Promise]:
    """Return all promises, with the worst that was seen of each."""
    return [
        *_replies(seen),
        *_lines(seen),
        *_clock(seen),
        *_resources(seen),
        *_log(seen),
        *_kills(seen.kills),
    ]


def complaints(seen: Seen) -> list[str]:
    """Return the first of what was wrong, in words."""
    found = [
        *(f"wrong: {text}" for text in (*seen.tally.wrong, *seen.watcher.wrong, *seen.kills.wrong)),
        *(f"late: {text}" for text in seen.tally.late),
        *(f"not answered: {text}" for text in seen.tally.unanswered),
        *(f"log: {line}" for line in _errors(seen.log)),
        *(f"open and was not: {text}" for text in _kinds(seen.end.files) - _kinds(seen.warm.files)),
    ]
    return found[:SHOWN_COMPLAINTS]


def _replies(seen: Seen) -> list[Promise]:
    tally, scraped_s = seen.tally, seen.watcher.took_s
    worst_s, waited_s = max(tally.reply_s), seen.pulse.longest_wait_s
    answered = len(tally.reply_s) + tally.untimed
    counted = int(seen.last.total("dertwin_modbus_requests_total"))
    return [
        Promise(
            "wrong replies",
            "0",
            f"{len(tally.wrong)} of {answered:,}, on {tally.connections:,} TCP connections",
            not tally.wrong,
        ),
        Promise("requests without a reply", "0", f"{len(tally.unanswered)}", not tally.unanswered),
        Promise(
            "latest reply, beyond what the soak itself had to wait",
            f"<= {REPLY_WITHIN_S:g} s",
            f"{_ms(worst_s)}, waited {_ms(waited_s)}; median {_ms(median(tally.reply_s))}, "
            f"99.9 % within {_ms(quantiles(tally.reply_s, n=1000)[-1])}",
            worst_s - waited_s <= REPLY_WITHIN_S,
        ),
        Promise(
            "requests that the metrics count",
            "those that were made",
            f"{counted:,} of {answered:,} and up to {tally.uncertain:,} while nobody may have been there",
            answered <= counted <= answered + tally.uncertain,
        ),
        Promise(
            "scrapes that show a site that adds up",
            "all",
            f"{len(scraped_s)}, {len(seen.watcher.wrong)} wrong; the longest took {_ms(max(scraped_s))}",
            not seen.watcher.wrong,
        ),
    ]


def _lines(seen: Seen) -> list[Promise]:
    found = []
    for name, times in (
        ("line served again after its adapter's return", seen.tally.served_again_s),
        ("virtual pair in its place after it was pulled", seen.tally.stood_in_s),
    ):
        was = f"{max(times):.2f} s; median {median(times):.2f} s of {len(times)}" if times else "none"
        kept = bool(times) and max(times) <= SERVED_AGAIN_WITHIN_S
        found.append(Promise(name, f"<= {SERVED_AGAIN_WITHIN_S:g} s", was, kept))
    return found


def _clock(seen: Seen) -> list[Promise]:
    def counted(name: str) -> int:
        return int(seen.last.total(name) - seen.first.total(name))

    steps, late, skipped = (counted(f"dertwin_ticks{each}_total") for each in ("", "_late", "_skipped"))
    uncounted = uncounted_steps(seen.first, seen.last)
    return [
        Promise(
            "steps missed and not counted as skipped",
            "0",
            f"{uncounted} of {steps:,}; late {late}, skipped {skipped}",
            uncounted == 0,
        ),
    ]


def _resources(seen: Seen) -> list[Promise]:
    warm, end = seen.warm, seen.end
    memory = seen.watcher.resident_bytes
    grown = memory[-1] - memory[len(memory) // 2]
    things = {"files": (len(warm.files), len(end.files))}
    things |= {name: (getattr(warm, name), getattr(end, name)) for name in ("tasks", "threads", "children")}
    return [
        Promise(
            "growth of resident memory in the second half",
            f"<= {MEMORY_MIB:g} MiB",
            f"{_mib(grown)}, to {_mib(memory[-1])}",
            grown <= MEMORY_MIB * 2**20,
        ),
        Promise(
            "more files, tasks, threads, children than when warm",
            "0",
            "; ".join(f"{name} {then}, then {now}" for name, (then, now) in things.items()),
            all(now <= then for then, now in things.values()),
        ),
    ]


def _log(seen: Seen) -> list[Promise]:
    errors = len(_errors(seen.log))
    most = LOG_LINES_EACH_TIME * len(seen.tally.served_again_s) + LOG_LINES_BESIDES
    return [
        Promise(
            "lines of the log",
            f"<= {most}, no error",
            f"{len(seen.log)}, {errors} errors; exit status {seen.status}",
            len(seen.log) <= most and not errors and seen.status == 0,
        )
    ]


def _errors(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in log if line["level"] in ("error", "critical") or "exception" in line]


def _kills(killed: Kills) -> list[Promise]:
    limit_s = kills.SAVE_EVERY_S + kills.SLACK_S
    lost = killed.lost_s
    return [
        Promise(
            f"lost when killed (-9, {kills.ROUNDS} times), saving each {kills.SAVE_EVERY_S:g} s",
            f"<= {limit_s:g} s, always readable",
            f"{max(lost):.2f} s; {len(lost)} restarts looked at, {len(killed.wrong)} wrong",
            max(lost) <= limit_s and not killed.wrong,
        )
    ]


def _kinds(files: Sequence[str]) -> Counter[str]:
    """Count files by what they are, whatever number they have."""
    return Counter(re.sub(r"\d+", "N", file) for file in files)


def _mib(number: float) -> str:
    return f"{number / 2**20:.1f} MiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.{0 if seconds >= 0.1 else 1}f} ms"
