"""What tshark makes of a capture file."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# It checks what it need not believe: a wrong checksum shows as bad.
_CHECKS = [
    word
    for name in ("ip.check_checksum", "tcp.check_checksum", "mbrtu.crc_verification")
    for word in ("-o", f"{name}:TRUE")
]


def tshark(file: Path, *options: str) -> str:
    """Return what tshark prints about a file."""
    done = subprocess.run(
        ["tshark", "-r", str(file), *_CHECKS, *options], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def packets(file: Path, fields: Sequence[str], *options: str) -> list[dict[str, Any]]:
    """Return the named fields of each packet, as text; a list where a packet has several."""
    wanted = [word for field in fields for word in ("-e", field)]
    found = json.loads(tshark(file, "-T", "json", *wanted, *options))
    return [
        {
            name: values[0] if len(values) == 1 else values
            for name, values in entry["_source"]["layers"].items()
        }
        for entry in found
    ]
