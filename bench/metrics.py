"""What Prometheus sees of a site: a collector that looks at the bench when it is asked.

Everything is read at the scrape; while the site runs, nothing is done for it but to count.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from bench.app import Bench
from bench.exposition import Labels, add, family, labels
from bench.health import VERSIONS
from bench.link_metrics import link_families
from bench.telemetry import METRICS, TELEMETRY
from dertwin.devices.device import Device

# Kinds of events that a site can have, so that each has a value while there is none.
_EVENT_KINDS = ("voltage_sag", "frequency_deviation", "cloud_passage", "load_step")


def registry(bench: Bench) -> CollectorRegistry:
    """Return a registry with all that is to know of a bench and its process."""
    known = CollectorRegistry()
    known.register(SiteCollector(bench))
    known.register(LoopCollector())
    ProcessCollector(registry=known)
    GCCollector(registry=known)
    return known


class LoopCollector(Collector):
    """Collects what the event loop of the service has to do."""

    def collect(self) -> Iterator[Metric]:
        """Yield the number of tasks, 0 where no loop runs."""
        tasks = family("dertwin_tasks", "gauge", "Tasks of the event loop.")
        try:
            add(tasks, labels(), len(asyncio.all_tasks()))
        except RuntimeError:
            add(tasks, labels(), 0)
        yield tasks


class _Source(NamedTuple):
    """Where one sample comes from: a device, what its measurements are, and the terms of the value."""

    asset_id: str
    kind: type[Any]
    labels: Labels
    terms: tuple[tuple[int, float], ...]


class SiteCollector(Collector):
    """Collects the telemetry of all devices, the surroundings, the clock and the links of a bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._planned_for: Mapping[str, Device] = {}
        self._site_name = ""
        self._sources: dict[str, list[tuple[str, _Source]]] = {}
        self._plan: dict[str, list[_Source]] = {}
        # Labels take several times what a scrape takes: rendered now, they make no client wait later.
        for _ in self.collect():
            pass

    def collect(self) -> Iterator[Metric]:
        """Yield all families; the bench may go on between two of them."""
        bench = self._bench
        yield from self._telemetry()
        yield _failed(bench)
        yield from _surroundings(bench)
        yield from _clock(bench)
        yield _recorder(bench)
        yield from _writes(bench)
        yield from link_families(bench)

    def _telemetry(self) -> Iterator[Metric]:
        site = self._bench.site
        if self._planned_for is not site.devices:  # it is another mapping once a device comes or goes
            self._make_plan(site.config.site_name, site.devices)
        measurements = site.snapshot.measurements
        for name, sources in list(self._plan.items()):
            kind, text = METRICS[name]
            metric = family(name, kind, text)
            sample_name = f"{name}_total" if kind == "counter" else name
            samples = metric.samples
            for asset_id, measured_kind, sample_labels, terms in sources:
                measured: Any = measurements.get(asset_id)
                if type(measured) is not measured_kind:  # it came after the last step
                    continue
                ((index, factor), *more) = terms
                value = measured[index] * factor
                for index, factor in more:
                    value += measured[index] * factor
                samples.append(Sample(sample_name, sample_labels, value))
            yield metric

    def _make_plan(self, site_name: str, devices: Mapping[str, Device]) -> None:
        """Work out, for each metric, which measurements of which devices it shows."""
        if site_name != self._site_name:  # all labels have it
            self._planned_for, self._site_name = {}, site_name
        known, self._sources = self._sources, {}
        for asset_id, device in devices.items():
            if self._planned_for.get(asset_id) is device:
                self._sources[asset_id] = known[asset_id]
            else:
                self._sources[asset_id] = list(_sources(site_name, asset_id, device))
        self._plan = {}
        for sources in self._sources.values():
            for name, source in sources:
                self._plan.setdefault(name, []).append(source)
        self._planned_for = devices


def _sources(site_name: str, asset_id: str, device: Device) -> Iterator[tuple[str, _Source]]:
    terms: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[int, float]]] = {}
    kind: Any = type(device.measurements)
    table = TELEMETRY[device.config.type]
    for index, field in enumerate(kind._fields):
        if shown := table.get(field):
            terms.setdefault((shown.metric, shown.labels), []).append((index, shown.factor))
    own = device_labels(site_name, asset_id, device.config.type)
    for (name, more), parts in terms.items():
        yield name, _Source(asset_id, kind, labels(*own, *more), tuple(parts))


def device_labels(site_name: str, asset_id: str, device_type: str) -> tuple[tuple[str, str], ...]:
    """Return the labels of everything that belongs to one device."""
    return ("site", site_name), ("device", asset_id), ("type", device_type)


def _failed(bench: Bench) -> Metric:
    site = bench.site
    failed = family("dertwin_device_failed", "gauge", "1 once a step of the device has raised an error.")
    for asset_id, device in site.devices.items():
        own = device_labels(site.config.site_name, asset_id, device.config.type)
        add(failed, labels(*own), int(asset_id in site.failed))
    return failed


def _surroundings(bench: Bench) -> Iterator[Metric]:
    snapshot, config = bench.site.snapshot, bench.site.config
    conditions, pcc = snapshot.conditions, snapshot.pcc
    own = labels(("site", config.site_name))
    for name, text, value in (
        ("dertwin_site_irradiance_watts_per_square_meter", "Irradiance.", conditions.irradiance_w_m2),
        ("dertwin_site_ambient_temperature_celsius", "Temperature of the air.", conditions.ambient_temp_c),
        ("dertwin_site_frequency_hertz", "Frequency of the grid.", conditions.frequency_hz),
        ("dertwin_site_voltage_volts", "Voltage of the grid, line to line.", conditions.voltage_ll_v),
        ("dertwin_site_load_power_watts", "Active power of the load.", conditions.load_w),
        ("dertwin_site_grid_power_watts", "Active power from the grid, + is import.", pcc.active_power_w),
        (
            "dertwin_site_grid_reactive_power_vars",
            "Reactive power from the grid, + is import.",
            pcc.reactive_power_var,
        ),
    ):
        metric = family(name, "gauge", text)
        add(metric, own, value)
        yield metric
    events = family("dertwin_site_events_active", "gauge", "Events of the site config that act now.")
    for kind in _EVENT_KINDS:
        active = sum(event.kind == kind and event.acts_at(snapshot.time_s) for event in config.events)
        add(events, labels(("site", config.site_name), ("kind", kind)), active)
    yield events


def _clock(bench: Bench) -> Iterator[Metric]:
    config, clock, took = bench.site.config, bench.clock, bench.tick_s
    own = labels(("site", config.site_name))
    for name, kind, text, value in (
        ("dertwin_simulated_seconds", "counter", "Simulated time since the start.", bench.site.time_s),
        ("dertwin_step_seconds", "gauge", "Simulated time of a step.", config.step),
        ("dertwin_devices", "gauge", "Devices of the site.", len(bench.site.devices)),
        ("dertwin_ticks", "counter", "Steps that were due.", clock.steps if clock else 0),
        (
            "dertwin_ticks_late",
            "counter",
            "Steps that could not start within their period.",
            clock.late if clock else 0,
        ),
        (
            "dertwin_ticks_skipped",
            "counter",
            "Steps that were given up: more than a second behind.",
            clock.skipped if clock else 0,
        ),
        (
            "dertwin_tick_lag_seconds",
            "gauge",
            "How far the next step is behind its deadline.",
            clock.lag_s if clock else 0.0,
        ),
        ("dertwin_tick_period_seconds", "gauge", "Real time between steps.", config.step / config.speed),
        ("dertwin_tick_duration_seconds", "gauge", "What the last step took to compute.", took.last),
        (
            "dertwin_tick_duration_max_seconds",
            "gauge",
            "What the longest step took to compute.",
            took.longest,
        ),
    ):
        metric = family(name, kind, text)
        add(metric, own, value)
        yield metric
    build = family("dertwin_build_info", "gauge", "Versions; always 1.")
    add(build, labels(("site", config.site_name), *VERSIONS.items()), 1)
    yield build


def _recorder(bench: Bench) -> Metric:
    kept = family("dertwin_recorder_bytes", "gauge", "What is kept of the traffic of the last minutes.")
    size = bench.recorder.size if bench.recorder else 0
    add(kept, labels(("site", bench.site.config.site_name)), size)
    return kept


def _writes(bench: Bench) -> Iterator[Metric]:
    counts = family(
        "dertwin_register_writes", "counter", "Accepted writes by the command that the register carries."
    )
    ages = family("dertwin_register_last_write_age_seconds", "gauge", "Time since the last accepted write.")
    now = time.monotonic()
    site = bench.site
    for asset_id, by_command in bench.writes.by_device.items():
        if device := site.devices.get(asset_id):
            own = device_labels(site.config.site_name, asset_id, device.config.type)
            for command, written in by_command.items():
                sample_labels = labels(*own, ("command", command))
                add(counts, sample_labels, written.count)
                add(ages, sample_labels, now - written.last_at)
    yield counts
    yield ages
