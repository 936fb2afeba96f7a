"""The commands `dertwin record dump` and `dertwin replay`."""

import argparse
import sys
from contextlib import closing, nullcontext
from pathlib import Path

from bench.control import Refused, ask, find_path
from bench.files import replace_file
from bench.replay import Replayed, replay, tables


def dump(options: argparse.Namespace) -> int:
    """Write the incident bundle of a running service and say where; return the exit status."""
    try:
        answer = ask(options.control or find_path(), {"verb": "record dump"})
        file = options.file or Path(str(answer.content["name"]))
        replace_file(file, answer.attached)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{file}: {len(answer.attached)} bytes")
    return 0


def replay_bundle(options: argparse.Namespace) -> int:
    """Replay a bundle and say what came of it; return 0 if it was the same. Raises ConfigErrors."""
    try:
        with closing(tables(options.csv)) if options.csv else nullcontext() as csv:
            replayed = replay(options.bundle, csv.observe) if csv else replay(options.bundle)
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(_in_words(options.bundle, replayed))
    return 0 if replayed.same else 1


def _in_words(bundle: Path, replayed: Replayed) -> str:
    steps = f"{replayed.steps} steps from {replayed.start_s:.3f} s to {replayed.end_s:.3f} s"
    lines = [f"{bundle}: {replayed.site}, {steps}"]
    if replayed.differs_at_s is None:
        lines.append("same: every step came out as recorded")
    else:
        lines.append(f"differs: first in the step that ends at {replayed.differs_at_s:.3f} s")
    if replayed.verdict:
        word = _word(replayed.verdict)
        if replayed.verdict == replayed.recorded:
            lines.append(f"same: {replayed.verdict['scenario']}: {word}, every check as recorded")
        else:
            was = _word(replayed.recorded) if replayed.recorded else "nothing"
            lines.append(f"differs: {replayed.verdict['scenario']}: {word}; recorded is {was}")
    return "\n".join(lines)


def _word(verdict: object) -> str:
    assert isinstance(verdict, dict)
    return "passed" if verdict["passed"] else "failed" if verdict["complete"] else "not complete"
