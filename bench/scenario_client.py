"""`dertwin scenario start | stop | status`: scenarios on a service that is already running."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from bench.control import Refused, ask, find_path
from dertwin.documents import read_document
from dertwin.scenario.document import files_beside

PASSED, FAILED, NOT_COMPLETE = 0, 1, 3
EX_UNAVAILABLE = 69  # as in sysexits.h: there is no service, or it does not do what was asked
LOOK_S = 0.5


def start(options: argparse.Namespace) -> int:
    """Start a scenario; with --wait return its verdict as the exit status. Raises ConfigErrors."""
    files = files_beside(options.file, read_document(options.file).content)
    files[options.file.name] = options.file.read_text(encoding="utf-8-sig")
    request = {"verb": "scenario start", "name": options.file.name, "files": files}
    return _asked(options, request)


def stop(options: argparse.Namespace) -> int:
    """Stop the scenario that runs."""
    return _asked(options, {"verb": "scenario stop"})


def status(options: argparse.Namespace) -> int:
    """Show how the scenario stands that runs, or ran last."""
    return _asked(options, {"verb": "scenario status"})


def _asked(options: argparse.Namespace, request: Mapping[str, Any]) -> int:
    try:
        path = options.control or find_path()
        content = ask(path, request).content
        told = 0
        while getattr(options, "wait", False) and content["running"]:
            told = _tell(content, told)
            time.sleep(LOOK_S)
            content = ask(path, {"verb": "scenario status"}).content
        if getattr(options, "wait", False):
            _tell(content, told)
    except Refused as error:
        print(error, file=sys.stderr)
        return EX_UNAVAILABLE
    if getattr(options, "json", False):
        print(json.dumps(content, indent=2))
    else:
        print("\n".join(_lines(content)))
    if not getattr(options, "wait", False):
        return PASSED
    return NOT_COMPLETE if not content["complete"] else PASSED if content["passed"] else FAILED


def _tell(content: Mapping[str, Any], told: int) -> int:
    """Print the events that are new, and return how many there were so far."""
    new, events = content["told"] - told, content["events"]
    if new > len(events):
        print(f"{'...':>9}    {new - len(events)} more", flush=True)
    for event in events[max(0, len(events) - new) :]:
        print(f"{event['time_s']:9.1f} s  {event['kind']:<8} {event['text']}", flush=True)
    count: int = content["told"]
    return count


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    if content["scenario"] is None:
        yield "no scenario has run"
        return
    for case in content["cases"]:
        yield f"{case['name'] or 'all steps'}: {case['time_s']:g} s"
        for check in case["expectations"]:
            margin = "" if check["margin"] is None else f", margin {check['margin']:.4g}"
            yield f"  {check['outcome']:<8} {check['text']}{margin}"
        for verdict in case["verdicts"]:
            outcome = "passed" if verdict["passed"] else "failed"
            yield f"  {outcome:<8} {verdict['title']} ({verdict['edition']})"
    if content["report"]:
        yield f"report: {content['report']}"
    state = "running" if content["running"] else "passed" if content["passed"] else "failed"
    yield f"{content['scenario']}: {state if content['running'] or content['complete'] else 'not complete'}"
