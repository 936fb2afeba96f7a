"""Runs a command of `dertwin` on a box, over SSH."""

import subprocess
import sys
from collections.abc import Sequence
from typing import IO

from bench.appliance.system_files import USER

CHUNK_BYTES = 1 << 20


def over_ssh(host: str, words: Sequence[str], stream: IO[bytes] | None = None) -> int:
    """Run `dertwin WORDS` on a box, feed it with a stream, and return its exit status (255: no connection).

    HOST is as ssh has it, `[USER@]NAME` or `ssh://[USER@]NAME[:PORT]`; the user is `bench` if not given.
    """
    bare = host.removeprefix("ssh://")
    target = host if "@" in bare else host.removesuffix(bare) + f"{USER}@{bare}"
    command = ["ssh", "--", target, "sudo", "-n", "dertwin", *words]
    source = subprocess.DEVNULL if stream is None else subprocess.PIPE
    try:
        with subprocess.Popen(command, stdin=source) as process:
            if stream is not None and process.stdin is not None:
                _feed(stream, process.stdin)
            return process.wait()
    except FileNotFoundError:
        print("ssh is not installed here; install openssh-client", file=sys.stderr)
        return 1


def _feed(stream: IO[bytes], pipe: IO[bytes]) -> None:
    try:
        with pipe:
            while chunk := stream.read(CHUNK_BYTES):
                pipe.write(chunk)
    except BrokenPipeError:
        pass  # the other side has said why
