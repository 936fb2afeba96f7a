"""The pytest plugin that comes with dertwin: sites for tests of an EMS.

The fixture `dertwin` makes them: `dertwin.stepped(site)` in simulated time without ports,
`dertwin.served(site)` in real time on free TCP ports and virtual serial lines.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # a test session that needs no site shall not wait for this
    from bench.staged import ServedSite, SteppedSite

SITES = pytest.StashKey[list["SteppedSite | ServedSite"]]()


class Sites:
    """Makes the sites of one test, and takes them down after it."""

    def __init__(self, folder: Path) -> None:
        """Put the virtual lines of served sites into a folder."""
        self.made: list[SteppedSite | ServedSite] = []
        self._folder = folder
        self._open = ExitStack()

    def stepped(self, site: Path | str | Mapping[str, Any]) -> SteppedSite:
        """Return a site in simulated time, from a config file or a mapping. Raises ConfigErrors."""
        from bench.check import check_site
        from bench.staged import SteppedSite

        made = SteppedSite(check_site(site))
        self.made.append(made)
        return made

    def served(self, site: Path | str | Mapping[str, Any], as_configured: bool = False) -> ServedSite:
        """Return a site that is served in real time, from a config file or a mapping. Raises ConfigErrors.

        Devices on TCP get free ports of this machine, those on serial lines virtual pairs in the test's
        folder; with `as_configured` they are where the config says.
        """
        from bench.check import check_site
        from bench.staged import served

        checked = check_site(site)
        if not as_configured:
            checked = checked._replace(config=_moved(checked.config, self._folder))
        made = self._open.enter_context(served(checked))
        self.made.append(made)
        return made

    def close(self) -> None:
        """Take all down."""
        self._open.close()


@pytest.fixture
def dertwin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sites]:
    """Sites for this test: `dertwin.stepped(site)` or `dertwin.served(site)`."""
    sites = Sites(tmp_path)
    request.node.stash[SITES] = sites.made
    try:
        yield sites
    finally:
        sites.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the last requests and signals of its sites to the report of a test that failed."""
    report = yield
    if report.when == "call" and report.failed:
        for site in item.stash.get(SITES, []):
            report.sections.append((f"dertwin site {site.stage.bench.site.config.site_name}", site.story()))
    return report


def _moved(config: Any, folder: Path) -> Any:
    """Return a site config whose links are on free ports of this machine and virtual pairs in a folder."""
    from dertwin.bindings import TcpBinding

    places: dict[str, Any] = {}

    def moved(binding: Any) -> Any:
        if isinstance(binding, TcpBinding):
            port = places.setdefault(f"{binding.ip}:{binding.port}", _free_port())
            return binding.model_copy(update={"ip": "127.0.0.1", "port": port})
        path = places.setdefault(str(binding.port), str(folder / f"line{len(places) + 1}"))
        return binding.model_copy(update={"port": path, "fallback": "pty"})

    assets = [
        asset.model_copy(update={"protocols": [moved(binding) for binding in asset.protocols]})
        for asset in config.assets
    ]
    return config.model_copy(update={"assets": assets})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
