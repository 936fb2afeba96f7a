"""Plays a scenario on a site without a bench."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dertwin.devices.device import Command
from dertwin.faults import Fault
from dertwin.overrides import Override
from dertwin.scenario.actions import WriteCommand
from dertwin.scenario.check import split_command
from dertwin.scenario.document import LoadedScenario, load_scenario
from dertwin.scenario.run import Acts, ScenarioResult, ScenarioRun
from dertwin.scenario.signals import Observation, nobody_asks
from dertwin.site import Site, SiteSnapshot, build_site

SITE = {
    "step": 0.5,
    "assets": [{"type": "bess"}, {"type": "inverter"}, {"type": "chp"}, {"type": "energy_meter"}],
}
Writes = Mapping[str, Sequence[Command]]


def loaded(folder: Path, scenario: dict[str, Any] | str, site: Site | None = None) -> LoadedScenario:
    path = folder / "scenario.yaml"
    path.write_text(scenario if isinstance(scenario, str) else yaml.safe_dump(scenario, sort_keys=False))
    return load_scenario(path, (site or build_site(SITE)).devices)


def play(
    folder: Path,
    scenario: dict[str, Any],
    ems: Callable[[SiteSnapshot], Writes] = lambda _: {},
    look: Callable[[SiteSnapshot], None] = lambda _: None,
) -> ScenarioResult:
    """Return the result of a scenario on SITE; `ems` answers each snapshot with writes, `look` sees each."""
    site = build_site(SITE)
    run = ScenarioRun(loaded(folder, {"scenario": "test", **scenario}, site), "site", site.devices)
    commands: dict[str, list[Command]] = {}
    while not run.done:
        orders = carry_out(site, run.step(Observation(site.snapshot, commands, nobody_asks)))
        if run.done:
            break
        commands = {asset_id: list(batch) for asset_id, batch in ems(site.snapshot).items()}
        for asset_id, command in orders:
            commands.setdefault(asset_id, []).append(command)
        look(site.step(commands))
    return run.result()


def carry_out(site: Site, acts: Acts) -> Iterator[tuple[str, Command]]:
    if acts.clear:
        site.end_faults()
    orders = []
    for due in acts.start:
        match due.action:
            case WriteCommand(write=write):
                for target, value in write.items():
                    asset_id, command = split_command(target, site.devices)
                    orders.append((asset_id, Command(command, value)))
            case Override():
                site.override(due.action, due.at_s)
            case Fault():
                site.start_fault(due.action, due.at_s, due.seed)
    return iter(orders)
