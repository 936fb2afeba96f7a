"""The lists that an image is made of, keys for what was made of them, and how the tools are called."""

import hashlib
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent


def words(name: str) -> list[str]:
    """Return the entries of a list in this folder; # begins a comment."""
    lines = (HERE / name).read_text().splitlines()
    return [word for line in lines for word in line.partition("#")[0].split()]


def key(*inputs: str | Path) -> str:
    """Return a short digest of texts and of files' contents."""
    digest = hashlib.sha256()
    for given in inputs:
        digest.update(given.read_bytes() if isinstance(given, Path) else given.encode())
    return digest.hexdigest()[:12]


def run(*command: object, **environment: str) -> None:
    """Run a tool with these variables in its environment. Raises CalledProcessError."""
    subprocess.run([str(word) for word in command], check=True, env=os.environ | environment)
