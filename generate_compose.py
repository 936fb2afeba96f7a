#!/usr/bin/env python3
"""Write docker-compose.yml for a site config into the working directory."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"

try:
    import yaml

    from bench.check import check_site
    from bench.cli import EX_CONFIG
    from bench.container import METRICS_PORT, Bridge, bridges
    from dertwin.bindings import RtuBinding, TcpBinding
    from dertwin.config import SiteConfig, read_site
    from dertwin.config_errors import ConfigError, ConfigErrors, show
    from dertwin.config_links import pair_path
except ImportError as error:
    # Started with another Python than that of `make run`, or before there is any.
    if sys.prefix != str(ENVIRONMENT) and (ENVIRONMENT / "bin/python").exists():
        os.execv(ENVIRONMENT / "bin/python", [str(ENVIRONMENT / "bin/python"), *sys.argv])
    install = f"python3 -m venv {ENVIRONMENT} && {ENVIRONMENT}/bin/pip install {ROOT}"
    sys.exit(f"{error.name} is missing; run once: {install}")

OUTPUT = Path("docker-compose.yml")
WRITTEN_BY = "# Written by generate_compose.py"
# As in the Dockerfile: where `dertwin run` is started, and where configs are.
APP = "/app"
CONFIGS = f"{APP}/configs"
ANY = "0.0.0.0"
FOLDER_OF_LINES = "/tmp"


def compose(config: SiteConfig, file: Path) -> dict[str, Any]:
    """Return the Compose document for a site config that is in `file`."""
    bindings = [binding for asset in config.assets for binding in asset.protocols]
    served = sorted({binding.port for binding in bindings if isinstance(binding, TcpBinding)})
    ports = [*served, *(bridge.port for bridge in bridges(config))]
    service: dict[str, Any] = {
        "build": _here(ROOT),
        "image": "dertwin-simulator",
        "environment": {"CONFIG_PATH": _escaped(f"{CONFIGS}/{file.name}")},
        "volumes": [
            {"type": "bind", "source": _here(source), "target": _escaped(target), "read_only": True}
            for target, source in folders(config, file).items()
        ],
        "ports": [*(f"{port}:{port}" for port in ports), f"127.0.0.1:{METRICS_PORT}:{METRICS_PORT}"],
        "read_only": True,
        "tmpfs": [FOLDER_OF_LINES],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    if any(port < 1024 for port in ports):
        service["sysctls"] = {"net.ipv4.ip_unprivileged_port_start": 0}  # Docker's default, not everyone's
    return {"services": {"simulator": service}}


def folders(config: SiteConfig, file: Path) -> dict[str, Path]:
    """Return the folders that the site reads, by where they are in the container."""
    found = {CONFIGS: file.parent}
    if root := config.register_map_root:
        beside = (file.parent / root).is_dir()
        target = os.path.normpath(os.path.join(CONFIGS if beside else APP, root))
        if not Path(target).is_relative_to(CONFIGS):
            found[target] = file.parent / root if beside else Path(root)
    return found


def check(file: Path) -> SiteConfig:
    """Return a good site config. Raises ConfigErrors with all that is wrong, in a container or anywhere."""
    errors: list[ConfigError] = []
    site = read_site(file)
    try:
        check_site(file)
    except ConfigErrors as found:
        errors += found.errors
    for part in site.parts.values():
        for place, binding in part.bindings.items():
            errors += (
                ConfigError(str(file), f"{place}.{key}", problem) for key, problem in _misfits(binding)
            )
    if site.config is None or errors:
        raise ConfigErrors(errors)
    return site.config


def _misfits(binding: TcpBinding | RtuBinding) -> Iterator[tuple[str, str]]:
    """Yield what cannot be served from a container, by key."""
    if isinstance(binding, TcpBinding):
        if binding.ip != ANY:
            yield "ip", f"{show(binding.ip)} is not allowed in a container; use {show(ANY)}"
        if binding.port == METRICS_PORT:
            yield "port", f"{binding.port} is not allowed in a container, whose metrics it has; use another"
    elif os.path.dirname(pair_path(binding.port)) != FOLDER_OF_LINES:
        problem = "is not allowed in a container; use a path in /tmp, or pty: and a name"
        yield "port", f"{show(binding.port)} {problem}"


def _here(path: Path) -> str:
    """Return a path as Compose wants it: relative to the file that is written if it is below it."""
    path, here = path.resolve(), Path.cwd()
    if path.is_relative_to(here):
        return _escaped("/".join([".", *path.relative_to(here).parts]))
    return _escaped(str(path))


def _escaped(text: str) -> str:
    return text.replace("$", "$$")  # Compose would put a variable of the environment there


def _text(document: dict[str, Any], file: Path, lines: list[Bridge]) -> str:
    comments = [f"{WRITTEN_BY} from {show(str(file))}; run it again when ports or lines change."]
    if lines:
        comments += ["#", "# Serial ports for clients on this machine:", *(f"#   {line}" for line in lines)]
    return "\n".join([*comments, yaml.safe_dump(document, sort_keys=False)])


def main(arguments: Sequence[str]) -> int:
    """Write the file and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="site config, JSON or YAML")
    file: Path = parser.parse_args(arguments).config
    try:
        config = check(file)
        _refuse_to_replace_what_others_wrote()
        OUTPUT.write_text(_text(compose(config, file), file, bridges(config)))
    except ConfigErrors as errors:
        print(*errors.errors, sep="\n", file=sys.stderr)
        return EX_CONFIG
    except OSError as error:
        print(f"{OUTPUT}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"Wrote {OUTPUT}; start the site: docker compose up --build")
    if lines := bridges(config):
        print("Then make the serial ports that clients open on this machine:", *lines, sep="\n  ")
    return 0


def _refuse_to_replace_what_others_wrote() -> None:
    if OUTPUT.exists() and not OUTPUT.read_text(errors="replace").startswith(WRITTEN_BY):
        problem = "is there and was not written by this program; move it away or work in another folder"
        raise ConfigErrors([ConfigError(str(OUTPUT), "", problem)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
