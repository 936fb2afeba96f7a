"""The start of a container: leads each serial line to a TCP port, then becomes `dertwin run`.

Pseudo-terminals do not leave a container. A relay joins the client end of each virtual pair with a port,
and socat on the other side makes a serial port of that again.
"""

import contextlib
import os
import subprocess
import sys
import termios
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from bench.links.pty import served_path
from dertwin.bindings import RtuBinding, TcpBinding
from dertwin.config import SiteConfig, load_site
from dertwin.config_errors import ConfigErrors
from dertwin.config_links import client_end, link_name

FIRST_BRIDGE_PORT = 56001
METRICS_PORT = 9555

# The port is open while the pair is there. A line has one client: the lock turns a second one away at
# once, instead of letting both take bytes from each other's replies. A reply that the client before has
# not waited for is dropped. A client whose machine has vanished gives the line back within 25 s.
_RELAY = f"""
while :; do
  [ -e "$2" ] && socat -t0.01 -lp "bridge $1" \
    "TCP-LISTEN:$1,fork,reuseaddr,nodelay,keepalive,keepidle=10,keepintvl=5,keepcnt=3" \
    "OPEN:$2,rawer,flock-ex-nb,ioctl-int={termios.TCFLSH}:{termios.TCIFLUSH}"
  sleep 0.5
done
"""


class Bridge(NamedTuple):
    """The TCP port of a serial line, and the path that clients open, inside and outside."""

    port: int
    client: str

    def __str__(self) -> str:
        """Return the command that makes the serial port on the other side."""
        return f"socat pty,rawer,link={self.client} tcp:localhost:{self.port},nodelay &"


def bridges(config: SiteConfig) -> list[Bridge]:
    """Return a bridge for each serial line, in the order of the config; ports of devices are left out."""
    bindings = [binding for asset in config.assets for binding in asset.protocols]
    taken = {binding.port for binding in bindings if isinstance(binding, TcpBinding)}
    ports = (port for port in count(FIRST_BRIDGE_PORT) if port not in taken)
    lines = {link_name(binding): binding.port for binding in bindings if isinstance(binding, RtuBinding)}
    return [Bridge(next(ports), client_end(served_path(line))) for line in lines.values()]


def main(options: Sequence[str]) -> None:
    """Start the relays for the config in $CONFIG_PATH and become `dertwin run`, with more options of it."""
    config = os.environ.get("CONFIG_PATH")
    if not config:
        sys.exit("CONFIG_PATH is not set; set it to the path of a site config, JSON or YAML")
    lines: list[Bridge] = []
    with contextlib.suppress(ConfigErrors):  # `dertwin run` tells them
        lines = bridges(load_site(config))
    for line in lines:
        subprocess.Popen(["sh", "-c", _RELAY, "relay", str(line.port), line.client])
    if lines:
        print("For each serial line, to be run where its client is:", *lines, sep="\n  ", flush=True)
    listen = f"0.0.0.0:{METRICS_PORT}"  # of the container; what others reach is what is published
    run = ["run", "-c", config, "--fallback", "pty", "--listen-metrics", listen, *options]
    # In our place, so that a signal to the container is one to the service.
    os.execv(sys.executable, [sys.executable, "-m", "bench.cli", *run])


if __name__ == "__main__":
    main(sys.argv[1:])
