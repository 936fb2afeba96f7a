"""A site: its surroundings, its devices, and the power balance at its point of common coupling.

Units and signs, for everything inside dertwin: SI (W, var, VA, Wh, V, A, Hz, s, degC; ratios 0..1).
Power of a generating unit is positive out of it (generation, discharge); at the grid connection and
its meters positive is import. kW, percent and scale factors exist only in configs and register maps.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from dertwin.config import SiteConfig, asset_ids, free_id, parse_asset
from dertwin.config_errors import use
from dertwin.devices.asset import AssetConfig
from dertwin.devices.device import Command, Conditions, Device, Measurements, PccFlow
from dertwin.devices.meter import EnergyMeter
from dertwin.environment import Environment, EnvironmentConfig, EnvironmentState
from dertwin.faults import DeviceFaults, Fault
from dertwin.overrides import Override

NO_COMMANDS: Mapping[str, Sequence[Command]] = MappingProxyType({})
NO_REQUESTS: Mapping[str, int] = MappingProxyType({})


class SiteSnapshot(NamedTuple):
    """A site at the end of a step; nothing in it ever changes.

    `time_s` is the simulated time since the start of the run, `measurements` has each device's by asset id,
    `shown` what their registers show of them: the same, unless a device fault is in between.
    """

    time_s: float
    conditions: Conditions
    pcc: PccFlow
    measurements: Mapping[str, Any]
    shown: Mapping[str, Any]


class SiteState(NamedTuple):
    """What the further steps of a site depend on besides its config and what is overridden or faulty.

    `devices` has the state of each by asset id: not a copy, it goes on with the site.
    """

    environment: EnvironmentState
    devices: Mapping[str, Any]
    failed: Sequence[str]


class Site:
    """A running site. Built by `build_site`, advanced by `step`.

    `devices` has each device by its asset id, `snapshot` is the outcome of the last step (before the
    first one: of a step of no length at the start of the run). `failed` has by asset id what the step of
    a device raised: from then on it is not stepped, measures nothing and gives no power.
    """

    def __init__(self, config: SiteConfig) -> None:
        self.config = config
        self.devices: Mapping[str, Device] = {}
        self.failed: Mapping[str, Exception] = {}
        self._units: Sequence[tuple[str, Device]] = ()
        self._meters: Sequence[tuple[str, EnergyMeter]] = ()
        self._environment = Environment(config)
        self.faults = DeviceFaults()
        for asset_id, asset in zip(asset_ids(config.assets), config.assets, strict=True):
            self._add(asset_id, asset.build())
        self.snapshot = self.step(dt_s=0.0)

    @property
    def time_s(self) -> float:
        """The simulated time since the start of the run (s)."""
        return self.snapshot.time_s

    def step(
        self,
        commands: Mapping[str, Sequence[Command]] = NO_COMMANDS,
        dt_s: float | None = None,
        requests: Mapping[str, int] = NO_REQUESTS,
    ) -> SiteSnapshot:
        """Advance by dt_s (s, the config's `step` if left out) and return what came of it.

        Surroundings first, then every unit, then the balance at the point of common coupling, then
        the meters: all within the step. `commands` has the writes since the last step by asset id, in
        order; `requests` how many requests (reads too) each asset got since. A device that raises is in
        `failed` and the others go on. Raises ValueError, with nothing changed, for unknown assets or
        commands, values that a command refuses, or dt_s < 0.
        """
        if dt_s is None:
            dt_s = self.config.step
        if not 0.0 <= dt_s < math.inf:
            raise ValueError(f"dt_s {dt_s} is not allowed; use a finite number of seconds >= 0")
        if commands:
            self._check(commands)

        conditions = self._environment.step(dt_s)
        faults = self.faults or None
        if faults is not None:
            faults.expire(self.devices, commands, self._environment.time_s)
            commands = faults.arriving(commands, self._environment.time_s)
            faults = faults or None
        power_w = conditions.load_w
        reactive_var = 0.0
        measurements: dict[str, Measurements] = {}
        for asset_id, unit in self._units:
            around = faults.conditions(asset_id, conditions) if faults is not None else conditions
            try:
                measured = unit.step(around, commands.get(asset_id, ()), requests.get(asset_id, 0), dt_s)
                unit_w, unit_var = measured.active_power_w, measured.reactive_power_var
            except Exception as error:  # noqa: BLE001 - docs/adr/0007
                self._fail(asset_id, error)
                continue
            power_w -= unit_w
            reactive_var -= unit_var
            measurements[asset_id] = measured
        pcc = PccFlow(power_w, reactive_var)
        for asset_id, meter in self._meters:
            try:
                measurements[asset_id] = meter.step(
                    conditions, commands.get(asset_id, ()), requests.get(asset_id, 0), dt_s, pcc
                )
            except Exception as error:  # noqa: BLE001 - docs/adr/0007
                self._fail(asset_id, error)
        time_s = self._environment.time_s
        measured_by = MappingProxyType(measurements)
        shown = MappingProxyType(faults.shown(measured_by, time_s)) if faults is not None else measured_by
        self.snapshot = SiteSnapshot(time_s, conditions, pcc, measured_by, shown)
        return self.snapshot

    def override(self, override: Override, at_s: float | None = None) -> None:
        """Take a quantity of the surroundings out of its model's hands from at_s on; see Override.

        at_s is in s since the start of the run; left out: from the next step on.
        """
        self._environment.override(override, self.snapshot.conditions, self.time_s if at_s is None else at_s)

    def start_fault(self, fault: Fault, at_s: float | None = None, seed: str = "") -> None:
        """Let a device fault begin at at_s (s since the start of the run), or with the next step.

        Equal seeds give equal noise. Raises ValueError for an unknown device, one that cannot have it, or one
        that has failed.
        """
        device = self._known(fault.device)
        if fault.device in self.failed:
            raise ValueError(f"{fault.device} has failed; it can have no faults on purpose any more")
        if problem := fault.problem(device):
            raise ValueError(problem)
        shown = self.snapshot.shown[fault.device]
        self.faults.start(fault, device, shown, self.time_s if at_s is None else at_s, seed)

    def end_faults(self) -> None:
        """End all overrides and device faults at once."""
        self._environment.end_overrides()
        self.faults.clear(self.devices)

    def go_on_from(self, time_s: float, states: Mapping[str, Any]) -> None:
        """Go on at a simulated time (s) with states that devices of equal ratings had, by asset id."""
        if time_s != self._environment.time_s:
            self._environment.go_on_from(time_s)
        for asset_id, state in states.items():
            self._known(asset_id).state = state
        self.snapshot = self.step(dt_s=0.0)

    @property
    def is_undisturbed(self) -> bool:
        """Tell whether nothing is overridden and no device fault acts."""
        return not self.faults and not self._environment.is_overridden

    @property
    def state(self) -> SiteState:
        """What further steps depend on, while the site is undisturbed."""
        devices = {asset_id: device.state for asset_id, device in self.devices.items()}
        return SiteState(self._environment.state, devices, tuple(self.failed))

    def go_back_to(self, state: SiteState) -> None:
        """Let this site, built from the same config, go on exactly as the one whose state this was did."""
        for asset_id in state.failed:
            self._fail(asset_id, RuntimeError(f"{asset_id} had failed before"))
        self._environment.state = state.environment
        self.go_on_from(state.environment.time_s, state.devices)
        self._environment.state = state.environment  # a step of no length draws random numbers too

    def successor(self, config: SiteConfig) -> "Site":
        """Return the site of another config that goes on where this one is, which is not to be used any more.

        Time goes on. So does the noise of the surroundings, unless they changed, and every device whose
        asset id, type and ratings are still the same, unless it has failed. Assets added at run time are
        not in a config, and go.
        """
        site = Site(config)
        if all(
            getattr(config, name) == getattr(self.config, name) for name in EnvironmentConfig.model_fields
        ):
            site._environment = self._environment
        same = {
            asset_id: device.state
            for asset_id, device in self.devices.items()
            if asset_id in site.devices
            and asset_id not in self.failed
            and site.devices[asset_id].config.ratings() == device.config.ratings()
        }
        site.go_on_from(self.time_s, same)
        return site

    def add_asset(self, config: AssetConfig | Mapping[str, Any]) -> str:
        """Add a device that counts from the next step on; return its asset id.

        Its measurements show the conditions and the flow of the last step at once. Raises ValueError
        if the id is taken, pydantic.ValidationError if a mapping is no asset config.
        """
        asset: Any = config if isinstance(config, AssetConfig) else parse_asset(config)
        asset_id = asset.asset_id or free_id(asset.type, self.devices)
        device = asset.build()
        if isinstance(device, EnergyMeter):
            device.step(self.snapshot.conditions, (), 0, 0.0, self.snapshot.pcc)
        else:
            device.step(self.snapshot.conditions, (), 0, 0.0)
        self._add(asset_id, device)
        return asset_id

    def remove_asset(self, asset_id: str) -> None:
        """Take a device out; the next balance is without it. Raises ValueError for an unknown id."""
        self._known(asset_id)
        self.devices = {name: device for name, device in self.devices.items() if name != asset_id}
        self.failed = {name: error for name, error in self.failed.items() if name != asset_id}
        self._step_no_more(asset_id)

    def _fail(self, asset_id: str, error: Exception) -> None:
        self.failed = {**self.failed, asset_id: error}
        self._step_no_more(asset_id)

    def _step_no_more(self, asset_id: str) -> None:
        # Lists of their own: a step may be going through these.
        self._units = [(name, unit) for name, unit in self._units if name != asset_id]
        self._meters = [(name, meter) for name, meter in self._meters if name != asset_id]

    def _add(self, asset_id: str, device: Device) -> None:
        if asset_id in self.devices:
            raise ValueError(f"asset id {asset_id!r} is taken; the site has {_listed(self.devices)}")
        self.devices = {**self.devices, asset_id: device}
        if isinstance(device, EnergyMeter):
            self._meters = [*self._meters, (asset_id, device)]
        else:
            self._units = [*self._units, (asset_id, device)]

    def _known(self, asset_id: str) -> Device:
        device = self.devices.get(asset_id)
        if device is None:
            raise ValueError(f"no asset {asset_id!r}; the site has {_listed(self.devices)}")
        return device

    def _check(self, commands: Mapping[str, Sequence[Command]]) -> None:
        for asset_id, batch in commands.items():
            known = self._known(asset_id).commands
            for name, value in batch:
                accepts = known.get(name)
                if accepts is None:
                    raise ValueError(f"{asset_id} has no command {name!r}; {use(known, name)}")
                if accepts.accept(value) is None:
                    raise ValueError(f"{asset_id}.{name}: {value} is not allowed; {accepts.in_words()}")


def build_site(config: SiteConfig | Mapping[str, Any]) -> Site:
    """Build a site from its config, or from a mapping of the same form.

    Paths in a mapping are relative to the working directory. Raises pydantic.ValidationError for a
    mapping that is no site config, ValueError for equal asset ids.
    """
    return Site(config if isinstance(config, SiteConfig) else SiteConfig.model_validate(dict(config)))


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
