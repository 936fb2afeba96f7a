"""What Prometheus sees of the links: up or down, requests and their times, frames on each line."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from bench.app import Bench
from bench.counters import LATENCY_BOUNDS_S, Latency
from bench.exposition import Labels, add, family, labels
from bench.faults import Faults
from bench.links.link import Link
from bench.links.serial import SerialLink
from bench.links.supervise import LinkStatus
from bench.links.tcp import TcpLink
from bench.unit import Unit
from dertwin.functions import FUNCTIONS
from dertwin.modbus.rtu import LineCounters

Pairs = tuple[tuple[str, str], ...]

OUTCOMES = {
    0: "ok",
    1: "illegal_function",
    2: "illegal_data_address",
    3: "illegal_data_value",
    4: "server_device_failure",
}
UNKNOWN_UNIT = 0x0B
_BOUNDS = (*(f"{bound:g}" for bound in LATENCY_BOUNDS_S), "+Inf")


class _Seen(NamedTuple):
    """One link as it is at the start of a scrape."""

    labels: Pairs
    link: Link
    status: LinkStatus
    units: tuple[tuple[int, Unit], ...]


def link_families(bench: Bench) -> Iterator[Metric]:
    """Yield all families about links."""
    site_name = bench.site.config.site_name
    seen = [
        _Seen(
            (("site", site_name), ("link", link.name), ("kind", link.name.split()[0])),
            link,
            bench.status[key],
            tuple(sorted(link.units.items())),
        )
        for key, link in bench.links.items()
    ]
    types = {asset_id: device.config.type for asset_id, device in bench.site.devices.items()}
    yield from _states(seen)
    yield from _adapters(seen)
    yield from _requests(seen, types)
    yield from _exceptions(seen)
    yield _latencies(seen)
    yield from _saturated(seen, types)
    yield from _connections([(s.labels, s.link) for s in seen if isinstance(s.link, TcpLink)])
    yield from _lines(seen)
    yield from _faults(bench.faults, site_name)


def _states(seen: list[_Seen]) -> Iterator[Metric]:
    up = family("dertwin_link_up", "gauge", "1 while the link is served.")
    info = family("dertwin_link_info", "gauge", "Where clients reach the link; 1 while it is up.")
    ups = family("dertwin_link_reconnects", "counter", "Times that the link came back.")
    units = family("dertwin_link_units", "gauge", "Units served on the link.")
    for pairs, _, status, link_units in seen:
        own = labels(*pairs)
        add(up, own, int(status.up))
        add(ups, own, max(0, status.times_up - 1))
        add(units, own, len(link_units))
        if status.up:
            # Not kept: a pair that stands in for an adapter tells what is there instead, ever new.
            add(info, Labels(dict((*pairs, ("where", status.where)))), 1)
    yield from (up, info, ups, units)


def _adapters(seen: list[_Seen]) -> Iterator[Metric]:
    info = family(
        "dertwin_adapter_info", "gauge", "What a line is served on that was found by its identity; always 1."
    )
    timers = family(
        "dertwin_adapter_latency_timer_seconds",
        "gauge",
        "How long an adapter keeps back what it has received.",
    )
    for pairs, link, status, _ in seen:
        if not isinstance(link, SerialLink) or not status.up or (port := link.adapter) is None:
            continue
        known = ((key, port.identity(key)) for key in ("serial", "path", "interface", "vendor", "product"))
        add(info, labels(*pairs, ("device_node", port.node), ("driver", port.driver), *known), 1)
        if (latency_ms := port.latency_ms) is not None:
            add(timers, labels(*pairs), latency_ms / 1000)
    yield from (info, timers)


def _requests(seen: list[_Seen], types: dict[str, str]) -> Iterator[Metric]:
    requests = family(
        "dertwin_modbus_requests", "counter", "Requests that were answered, by function and outcome."
    )
    for pairs, _, _, units in seen:
        for unit_id, unit in units:
            own = _unit_labels(pairs, unit_id, unit, types)
            totals: dict[tuple[str, str], int] = {}
            for (function, code), count in list(unit.requests.items()):
                key = str(FUNCTIONS.get(function, "other")), OUTCOMES[code]
                totals[key] = totals.get(key, 0) + count
            for (name, outcome), count in totals.items():
                add(requests, labels(*own, ("function", name), ("outcome", outcome)), count)
    yield requests


def _exceptions(seen: list[_Seen]) -> Iterator[Metric]:
    exceptions = family("dertwin_modbus_exceptions", "counter", "Exception replies by their code.")
    unknown = family("dertwin_modbus_unknown_unit_requests", "counter", "Requests for no unit of the link.")
    for pairs, link, _, units in seen:
        counts = dict.fromkeys(range(1, 5), 0)
        for _, unit in units:
            for (_, code), count in list(unit.requests.items()):
                if code:
                    counts[code] += count
        if isinstance(link, TcpLink):
            add(unknown, labels(*pairs), link.counters.unknown_unit)
            counts[UNKNOWN_UNIT] = link.counters.unknown_unit if link.unknown_unit == "exception" else 0
        for code, count in counts.items():
            add(exceptions, labels(*pairs, ("code", f"{code:02X}")), count)
    yield from (exceptions, unknown)


def _latencies(seen: list[_Seen]) -> Metric:
    metric = family(
        "dertwin_modbus_request_duration_seconds",
        "histogram",
        "Time from the last byte of a request to its reply; on a serial line with the silence before it.",
    )
    for pairs, link, _, _ in seen:
        _add_histogram(metric, pairs, link.latency)
    return metric


def _add_histogram(metric: Metric, pairs: Pairs, latency: Latency) -> None:
    own, total = labels(*pairs), 0
    for bound, count in zip(_BOUNDS, latency.buckets, strict=True):
        total += count
        metric.samples.append(Sample(f"{metric.name}_bucket", labels(*pairs, ("le", bound)), total))
    metric.samples.append(Sample(f"{metric.name}_count", own, total))
    metric.samples.append(Sample(f"{metric.name}_sum", own, latency.sum_s))


def _saturated(seen: list[_Seen], types: dict[str, str]) -> Iterator[Metric]:
    values = family("dertwin_saturated_values", "counter", "Values that did not fit into their register.")
    registers = family("dertwin_saturated_register_values", "counter", "The same by register that had any.")
    for pairs, _, _, units in seen:
        for unit_id, unit in units:
            own = _unit_labels(pairs, unit_id, unit, types)
            add(values, labels(*own), unit.image.saturated)
            for register, count in list(unit.image.saturated_by.items()):
                add(registers, labels(*own, ("register", register)), count)
    yield from (values, registers)


def _connections(links: list[tuple[Pairs, TcpLink]]) -> Iterator[Metric]:
    now = family("dertwin_tcp_connections", "gauge", "Clients that are connected.")
    ever = family("dertwin_tcp_connections_opened", "counter", "Connections since the start.")
    closed = family("dertwin_tcp_connections_closed", "counter", "Connections that the service closed.")
    for pairs, link in links:
        own, counters = labels(*pairs), link.counters
        add(now, own, link.connections)
        add(ever, own, counters.connections)
        for reason, count in (
            ("room", counters.closed_for_room),
            ("idle", counters.closed_idle),
            ("not_reading", counters.closed_not_reading),
            ("protocol_error", counters.protocol_errors),
        ):
            add(closed, labels(*pairs, ("reason", reason)), count)
    yield from (now, ever, closed)


def _lines(seen: list[_Seen]) -> Iterator[Metric]:
    frames = family("dertwin_line_frames", "counter", "Frames heard: own, broadcast, foreign, or wrong CRC.")
    garbage = family("dertwin_line_garbage_bytes", "counter", "Bytes that no frame explains.")
    dropped = family("dertwin_line_replies_dropped", "counter", "Replies that the port did not take.")
    moved = family("dertwin_line_bytes", "counter", "Bytes on the line.")
    busy = family(
        "dertwin_line_busy_seconds",
        "counter",
        "Time that the bytes took; its rate is utilisation.",
    )
    for pairs, link, _, _ in seen:
        counters = _line_counters(link)
        if counters is None:
            continue
        own = labels(*pairs)
        for kind, count in (
            ("own", counters.own),
            ("broadcast", counters.broadcast),
            ("foreign", counters.foreign),
            ("crc_error", counters.crc_errors),
        ):
            add(frames, labels(*pairs, ("frame", kind)), count)
        add(garbage, own, counters.garbage_bytes)
        add(dropped, own, counters.replies_dropped)
        add(moved, labels(*pairs, ("direction", "received")), counters.received_bytes)
        add(moved, labels(*pairs, ("direction", "sent")), counters.sent_bytes)
        if isinstance(link, SerialLink):
            on_line = counters.received_bytes + counters.sent_bytes
            add(busy, own, on_line * link.timing.character_s)
    yield from (frames, garbage, dropped, moved, busy)


def _faults(faults: Faults, site_name: str) -> Iterator[Metric]:
    active = family(
        "dertwin_faults_active", "gauge", "Wire and link faults that act now; 0 once they are over."
    )
    acted = family("dertwin_wire_faults", "counter", "Times that a wire or link fault has acted.")
    for fault, count in faults.numbers().items():
        add(active, labels(("site", site_name), ("fault", fault)), count)
    for (fault, link), count in faults.acted().items():
        own = ("site", site_name), ("link", link), ("kind", link.split()[0]), ("fault", fault)
        add(acted, labels(*own), count)
    yield from (active, acted)


def _line_counters(link: Link) -> LineCounters | None:
    if isinstance(link, SerialLink):
        return link.counters
    return link.line_counters if isinstance(link, TcpLink) and link.kind != "modbus_tcp" else None


def _unit_labels(pairs: Pairs, unit_id: int, unit: Unit, types: dict[str, str]) -> Pairs:
    site, *link = pairs
    return (
        site,
        ("device", unit.asset_id),
        ("type", types.get(unit.asset_id, "")),
        *link,
        ("unit", str(unit_id)),
    )
