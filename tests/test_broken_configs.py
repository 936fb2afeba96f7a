"""Every broken config is refused with its file, the place and what is allowed; nothing starts from it."""
# ruff: noqa: E501 (a fault is one row of a table)

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.check import check_site, shipped_maps
from dertwin.config_errors import ConfigError, ConfigErrors

SITE = """{
  "site_name": "site", "step": 0.1, "speed": 1, "start_time_h": 12, "register_map_root": "maps",
  "external_models": {"irradiance": {"peak": 900}, "grid_voltage": {"nominal_v_ll": 400}},
  "load": {"csv": "load.csv"},
  "events": [{"kind": "voltage_sag", "start_time": 5, "duration": 1, "delta_v": -0.1}],
  "assets": [
    {"type": "bess", "asset_id": "battery", "capacity_kwh": 100, "initial_soc": 50, "round_trip_eff": 0.92,
     "max_charge_kw": 20, "max_discharge_kw": 20, "ramp_rate_kw_per_s": 5, "soc_limits": {"lower_1": 25},
     "watchdog": {"timeout_s": 5, "fallback": {"active_power_setpoint": 0}},
     "protocols": [
       {"kind": "modbus_tcp", "ip": "0.0.0.0", "port": 55001, "unit_id": 1, "register_map": "bess.yaml"}]},
    {"type": "inverter", "asset_id": "roof", "rated_kw": 10, "area_m2": 50, "protocols": [
       {"kind": "modbus_tcp", "ip": "0.0.0.0", "port": 55001, "unit_id": 2, "register_map": "pv.yaml"},
       {"kind": "modbus_rtu", "port": "/tmp/line", "baudrate": 9600, "parity": "N", "stopbits": 1,
        "bytesize": 8, "min_turnaround_ms": 2, "suppress_echo": false, "unit_id": 2, "register_map": "pv.yaml"}]},
    {"type": "energy_meter", "protocols": [
       {"kind": "modbus_rtu", "port": "/tmp/line", "unit_id": 7, "register_map": "meter.yaml"},
       {"kind": "modbus_tcp", "ip": "127.0.0.1", "port": 55002, "register_map": "meter.yaml"}]}
  ]
}"""
MAP = """\
device_type: bess
registers:
  - {name: soc, internal_name: soc, address: 10, type: int32, count: 2, scale: 0.001, func: 0x04, direction: read}
  - {name: power, internal_name: active_power_w, address: 12, type: int16, count: 1, func: 0x04, direction: read}
  - {name: setpoint, internal_name: active_power_setpoint, address: 20, type: int16, count: 1, func: 0x06, direction: write}
"""
PV_MAP = "registers: [{name: p, internal_name: active_power_w, address: 0, type: uint16, count: 1, func: 4, direction: read}]"
LOAD = "0,1000\n3600,2000\n"

ALIASES_OF_ALIASES = b"a0: &a0 1\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
)

BATTERY, ROOF, METER = "assets[0]", "assets[1]", "assets[2]"
FIRST = f"{BATTERY}.protocols[0]"
LINE = f"{METER}.protocols[0]"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=3,
)


class Fault(NamedTuple):
    """Replacing one text of a good file by another, where that must be reported, and in which words."""

    name: str
    good: str
    bad: str
    place: str
    words: str


# fmt: off
SITE_FAULTS = [
    Fault("unknown key", '"capacity_kwh"', '"capcity_kwh"', f"{BATTERY}.capcity_kwh", "closest is capacity_kwh"),
    Fault("negative capacity", ": 100", ": -100", f"{BATTERY}.capacity_kwh", "-100 is not allowed; use a number above 0"),
    Fault("zero capacity", ": 100", ": 0", f"{BATTERY}.capacity_kwh", "0 is not allowed; use a number above 0"),
    Fault("null capacity", ": 100", ": null", f"{BATTERY}.capacity_kwh", "null is not allowed"),
    Fault("capacity as text", ": 100", ': "100"', f"{BATTERY}.capacity_kwh", '"100" is not allowed; use a number'),
    Fault("capacity true", ": 100", ": true", f"{BATTERY}.capacity_kwh", "true is not allowed; use a number"),
    Fault("capacity NaN", ": 100", ": NaN", f"{BATTERY}.capacity_kwh", "NaN is not allowed; use a number"),
    Fault("capacity Infinity", ": 100", ": Infinity", f"{BATTERY}.capacity_kwh", "Infinity is not allowed"),
    Fault("capacity 1e999", ": 100", ": 1e999", f"{BATTERY}.capacity_kwh", "Infinity is not allowed"),
    Fault("capacity 1e308", ": 100", ": 1e308", f"{BATTERY}.capacity_kwh", "1e+308 is not allowed; use 0 or a size from 1e-20 to 1e+20"),
    Fault("SOC of 250 %", '_soc": 50', '_soc": 250', f"{BATTERY}.initial_soc", "250 is not allowed; use a number from 0 to 100"),
    Fault("negative SOC", '_soc": 50', '_soc": -5', f"{BATTERY}.initial_soc", "-5 is not allowed; use a number from 0 to 100"),
    Fault("efficiency over 1", "0.92", "1.5", f"{BATTERY}.round_trip_eff", "1.5 is not allowed; use a number above 0 up to 1"),
    Fault("efficiency 0", "0.92", "0", f"{BATTERY}.round_trip_eff", "0 is not allowed"),
    Fault("SOC limits reversed", '"lower_1": 25', '"lower_1": 15, "lower_2": 25', f"{BATTERY}.soc_limits", "not in order"),
    Fault("SOC limit over 100 %", '"lower_1": 25', '"upper_2": 101', f"{BATTERY}.soc_limits.upper_2", "from 0 to 100"),
    Fault("negative discharge power", 'discharge_kw": 20', 'discharge_kw": -20', f"{BATTERY}.max_discharge_kw", "-20 is not allowed"),
    Fault("negative charge power", 'max_charge_kw": 20', 'max_charge_kw": -20', f"{BATTERY}.max_charge_kw", "-20 is not allowed"),
    Fault("negative ramp rate", 's": 5,', 's": -5,', f"{BATTERY}.ramp_rate_kw_per_s", "-5 is not allowed"),
    Fault("negative PV rating", '"rated_kw": 10', '"rated_kw": -10', f"{ROOF}.rated_kw", "-10 is not allowed"),
    Fault("negative PV area", '50, "protocols', '-50, "protocols', f"{ROOF}.area_m2", "-50 is not allowed"),
    Fault("unknown fallback command", '"active_power_setpoint"', '"active_power_setpiont"', BATTERY, "active_power_setpoint"),
    Fault("watchdog without time", '"timeout_s": 5', '"timeout_s": 0', f"{BATTERY}.watchdog.timeout_s", "above 0"),
    Fault("step 0", '"step": 0.1', '"step": 0', "step", "0 is not allowed; use a number above 0 up to 3600"),
    Fault("negative step", '"step": 0.1', '"step": -1', "step", "-1 is not allowed"),
    Fault("step as a word", '"step": 0.1', '"step": "fast"', "step", '"fast" is not allowed; use a number'),
    Fault("speed 0", '"speed": 1', '"speed": 0', "speed", "use a number above 0 up to 1000"),
    Fault("speed over 1000", '"speed": 1', '"speed": 1001', "speed", "use a number above 0 up to 1000"),
    Fault("start before midnight", '_h": 12', '_h": -1', "start_time_h", "use a number of at least 0"),
    Fault("unknown top-level key", '"site_name"', '"sitename"', "sitename", "closest is site_name"),
    Fault("unknown model key", '"peak"', '"paek"', "external_models.irradiance.paek", "closest is peak"),
    Fault("unknown model", '"grid_voltage"', '"grid_volt"', "external_models.grid_volt", "closest is grid_voltage"),
    Fault("voltage out of range", '"nominal_v_ll": 400', '"nominal_v_ll": 230', "external_models.grid_voltage.nominal_v_ll", "from 300 to 480"),
    Fault("unknown asset type", '"bess"', '"bes"', f"{BATTERY}.type", '"bes" is not allowed; the closest is bess; use one of bess, inverter'),
    Fault("asset without type", '"type": "bess", ', "", f"{BATTERY}.type", "is missing; use one of bess, inverter, chp, energy_meter"),
    Fault("asset that is no object", '"assets": [', '"assets": ["bess", ', BATTERY, '"bess" is not allowed; use an object'),
    Fault("equal asset ids", '"roof"', '"battery"', f"{ROOF}.asset_id", "name of assets[0]"),
    Fault("event of no step", '"duration": 1', '"duration": 0.05', "events[0].duration", "0.05 is not allowed; use at least the `step` of the site, 0.1"),
    Fault("protected meter", '{"type": "energy_meter",', '{"type": "energy_meter", "grid_protection": {},', f"{METER}.grid_protection", "unknown key"),
    Fault("unknown event", '"voltage_sag"', '"voltage_sga"', "events[0].kind", "closest is voltage_sag"),
    Fault("event without duration", '"duration": 1, ', "", "events[0].duration", "is missing; use a number above 0"),
    Fault("missing CSV file", '"load.csv"', '"laod.csv"', "load", "laod.csv: cannot be read"),
    Fault("CSV that is no series", '"load.csv"', '"site.json"', "load", "site.json: line 2"),
    Fault("unknown protocol", '"modbus_tcp", "ip": "0.0.0.0", "port": 55001, "unit_id": 1', '"modbus_tpc"', f"{FIRST}.kind", "closest is modbus_tcp"),
    Fault("port as text", '55001, "unit_id": 1', '"abc", "unit_id": 1', f"{FIRST}.port", '"abc" is not allowed; use an integer from 1 to 65535'),
    Fault("port 99999", '55001, "unit_id": 1', '99999, "unit_id": 1', f"{FIRST}.port", "99999 is not allowed; use an integer from 1 to 65535"),
    Fault("port missing", '"port": 55001, "unit_id": 1', '"unit_id": 1', f"{FIRST}.port", "is missing; use an integer from 1 to 65535"),
    Fault("unit 0", '"unit_id": 1', '"unit_id": 0', f"{FIRST}.unit_id", "0 is not allowed; use an integer from 1 to 255"),
    Fault("unit 300", '"unit_id": 1', '"unit_id": 300', f"{FIRST}.unit_id", "300 is not allowed; use an integer from 1 to 255"),
    Fault("unit 248 on a line", '"unit_id": 7', '"unit_id": 248', f"{LINE}.unit_id", "248 is not allowed; use an integer from 1 to 247"),
    Fault("host name as address", '"127.0.0.1"', '"example.org"', f"{METER}.protocols[1].ip", '"example.org" is not allowed; use an IP address'),
    Fault("malformed address", '"127.0.0.1"', '"192.168.1.300"', f"{METER}.protocols[1].ip", "use an IP address"),
    Fault("address of another host", '"127.0.0.1"', '"192.0.2.1"', f"{METER}.protocols[1].ip", "is not an address of this machine; use 0.0.0.0"),
    Fault("multicast address", '"127.0.0.1"', '"224.0.0.1"', f"{METER}.protocols[1].ip", "use an IP address"),
    Fault("same unit on one port", '"unit_id": 1', '"unit_id": 2', f"{ROOF}.protocols[0].unit_id", "2 is not allowed; it is the unit_id of assets[0].protocols[0]"),
    Fault("port taken on all addresses", "55002", "55001", f"{METER}.protocols[1].ip", "taken by assets[0].protocols[0]"),
    Fault("two protocols on one port", '"modbus_tcp", "ip": "0.0.0.0", "port": 55001, "unit_id": 2', '"modbus_rtu_over_tcp", "port": 55001, "unit_id": 2', f"{ROOF}.protocols[0].kind", 'use "modbus_tcp" as assets[0]'),
    Fault("two connection limits on one port", '"unit_id": 2, "register_map": "pv.yaml"},', '"unit_id": 2, "register_map": "pv.yaml", "max_connections": 3},', f"{ROOF}.protocols[0].max_connections", "use 64"),
    Fault("two answers to unknown units", '"unit_id": 2, "register_map": "pv.yaml"},', '"unit_id": 2, "register_map": "pv.yaml", "unknown_unit": "silent"},', f"{ROOF}.protocols[0].unknown_unit", 'use "exception"'),
    Fault("parity X", '"parity": "N"', '"parity": "X"', f"{ROOF}.protocols[1].parity", '"X" is not allowed; use one of N, E, O'),
    Fault("one line written in two ways", '"/tmp/line", "unit_id"', '"/tmp/../tmp/line", "unit_id"', f"{LINE}.port", '"/tmp/../tmp/line" is not allowed; assets[1].protocols[1] has /tmp/line: use "/tmp/line"'),
    Fault("baud rate 12345678", "9600", "12345678", f"{ROOF}.protocols[1].baudrate", "12345678 is not allowed; use an integer from 50 to 4000000"),
    Fault("two baud rates on one line", "9600", "19200", f"{LINE}.baudrate", "9600 is not allowed; use 19200 as assets[1].protocols[1]"),
    Fault("two parities on one line", '"parity": "N"', '"parity": "E"', f"{LINE}.parity", '"N" is not allowed; use "E"'),
    Fault("two stop bits on one line", '"stopbits": 1', '"stopbits": 2', f"{LINE}.stopbits", "1 is not allowed; use 2"),
    Fault("two byte sizes on one line", '"bytesize": 8', '"bytesize": 7', f"{LINE}.bytesize", "8 is not allowed; use 7"),
    Fault("two turnarounds on one line", '"min_turnaround_ms": 2', '"min_turnaround_ms": 3', f"{LINE}.min_turnaround_ms", "use 3.0"),
    Fault("echo on half a line", '"suppress_echo": false', '"suppress_echo": true', f"{LINE}.suppress_echo", "use true"),
    Fault("same unit on one line", '"unit_id": 7', '"unit_id": 2', f"{LINE}.unit_id", "2 is not allowed; it is the unit_id of assets[1].protocols[1]"),
    Fault("serial number missing", '"/tmp/line", "unit_id"', '"usb:", "unit_id"', f"{LINE}.port", '"usb:" is not allowed; use usb: and a serial number'),
    Fault("match of nothing", '"/tmp/line", "unit_id"', '{}, "unit_id"', f"{LINE}.port", "is empty; use one or more of serial, path"),
    Fault("match by a misspelt key", '"/tmp/line", "unit_id"', '{"seral": "FT1"}, "unit_id"', f"{LINE}.port.seral", "unknown key; the closest is serial"),
    Fault("vendor id of three digits", '"/tmp/line", "unit_id"', '{"vendor": "403"}, "unit_id"', f"{LINE}.port.vendor", '"403" is not allowed; use four hexadecimal digits'),
    Fault("vendor id as number", '"/tmp/line", "unit_id"', '{"vendor": 1027}, "unit_id"', f"{LINE}.port.vendor", "1027 is not allowed; use a text"),
    Fault("interface as text", '"/tmp/line", "unit_id"', '{"interface": "1"}, "unit_id"', f"{LINE}.port.interface", '"1" is not allowed; use an integer from 0 to 255'),
    Fault("serial port as number", '"/tmp/line", "unit_id"', '1, "unit_id"', f"{LINE}.port", "1 is not allowed; use a text"),
    Fault("binding in both spellings", '"asset_id": "roof"', '"asset_id": "roof", "port": 502', ROOF, "port"),
    Fault("missing map", '"bess.yaml"', '"bes.yaml"', f"{FIRST}.register_map", "closest is bess.yaml"),
    Fault("map above its root", '"bess.yaml"', '"../maps/../site.json"', f"{FIRST}.register_map", "use a file inside"),
    Fault("map elsewhere", '"bess.yaml"', '"/etc/passwd"', f"{FIRST}.register_map", "use a file inside"),
    Fault("map that is a folder", '"bess.yaml"', '"."', f"{FIRST}.register_map", "is not a file"),
    Fault("missing map folder", '"maps"', '"mpas"', "register_map_root", '"mpas" is not a folder'),
    Fault("key twice", '"step": 0.1', '"step": 0.1, "step": 0.2', "step", "there twice"),
]
MAP_FAULTS = [
    Fault("negative address", "12,", "-1,", "registers[1].address", "-1 is not allowed; use an integer from 0 to 65535"),
    Fault("address over 65535", "12,", "70000,", "registers[1].address", "70000 is not allowed; use an integer from 0 to 65535"),
    Fault("address as text", "12,", '"0x10",', "registers[1].address", '"0x10" is not allowed; use an integer'),
    Fault("unknown measurement", "active_power_w", "active_pwoer_w", "registers[1].internal_name", "closest is active_power_w"),
    Fault("unknown command", "active_power_setpoint", "actve_power_setpoint", "registers[2].internal_name", "closest is active_power_setpoint"),
    Fault("int32 in one register", "count: 2", "count: 1", "registers[0].count", "1 is not allowed"),
    Fault("int32 over int16", "address: 12", "address: 11", "registers[1].address", "11 is not allowed"),
    Fault("scale 0", "0.001", "0", "registers[0].scale", "0 is not allowed"),
    Fault("unknown function", "0x06", "0x63", "registers[2].func", "0x63 is not allowed; use one of 0x01, 0x02"),
    Fault("unknown direction", "write", "readwrite", "registers[2].direction", '"readwrite" is not allowed'),
    Fault("unknown type", "int32", "int33", "registers[0].type", "closest is int32"),
    Fault("unknown key", "scale:", "scael:", "registers[0].scael", "unknown key; the closest is scale"),
    Fault("no register list", MAP, "device_type: bess", "registers", "is missing"),
    Fault("broken YAML", "{name: power", "name: power}", "", "line 4"),
    Fault("key twice", "func: 0x06", "func: 0x06, func: 0x10", "registers[2].func", "there twice"),
    Fault("empty map", MAP, "", "", "is empty"),
    Fault("map without entries", MAP, "registers: []", "registers", "not empty"),
    Fault("map that is a list", MAP, "[1, 2]", "", "registers"),
]
# fmt: on


@pytest.fixture
def site(tmp_path: Path) -> Path:
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "bess.yaml").write_text(MAP)
    (maps / "pv.yaml").write_text(PV_MAP)
    (maps / "meter.yaml").write_text(PV_MAP)
    (tmp_path / "load.csv").write_text(LOAD)
    path = tmp_path / "site.json"
    path.write_text(SITE)
    return path


def spoil(file: Path, fault: Fault) -> None:
    text = file.read_text()
    assert fault.good in text
    file.write_text(text.replace(fault.good, fault.bad, 1))


def faults_of(site: Path) -> list[ConfigError]:
    with pytest.raises(ConfigErrors) as refused:
        check_site(site)
    for line in str(refused.value).splitlines():
        assert line.isprintable()
    return list(refused.value.errors)


def errors_of(path: Path) -> tuple[ConfigError, ...]:
    try:
        check_site(path)
    except ConfigErrors as refused:
        return refused.errors
    return ()


def test_the_config_that_the_faults_are_put_into_is_good(site: Path) -> None:
    assert list(check_site(site).layouts) == ["battery", "roof", "energy_meter-1"]


@pytest.mark.parametrize("fault", SITE_FAULTS, ids=lambda fault: fault.name)
def test_a_broken_site_config_is_refused_at_the_place_of_the_fault(site: Path, fault: Fault) -> None:
    spoil(site, fault)
    places = {place: message for file, place, message in faults_of(site) if file == str(site)}
    assert list(places) == [fault.place]
    assert fault.words in places[fault.place]


@pytest.mark.parametrize("fault", MAP_FAULTS, ids=lambda fault: fault.name)
def test_a_broken_register_map_is_refused_at_the_place_of_the_fault(site: Path, fault: Fault) -> None:
    file = site.parent / "maps" / "bess.yaml"
    spoil(file, fault)
    ((where, place, message),) = faults_of(site)
    assert (where, place) == (str(file), fault.place)
    assert fault.words in message
    assert "used by assets[0].protocols[0]" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("site.json", b"", "is empty"),
        ("site.json", b" \n", "is empty"),
        ("site.json", SITE.encode()[:-40], "line 18, column 62"),
        ("site.json", b'{"step": 1,}', "line 1, column 12"),
        ("site.json", b'{"site_name": "\xff"}', "is not UTF-8 text"),
        ("site.json", b"[" * 100_000, "nested too deep"),
        ("site.json", b'{"step": 1' + b"0" * 5000 + b"}", "digits"),
        (
            "site.json",
            b'{"site_name": "\\ud800"}',
            r'site_name: "\ud800" is not allowed; use whole characters',
        ),
        ("site.json", b"[]", "use an object"),
        ("site.yaml", b"# to do", "use an object"),
        ("site.yaml", b"step: [1", "line 2, column 1"),
        ("site.yaml", b"step: 1\n\tspeed: 2", "line 2, column"),
        ("site.yaml", b"? [1]\n: 2", "line 1, column"),
        ("site.yaml", b"1: 2", "[1]: unknown key; use one of start_time_h"),
        ("site.yaml", b"step: !!python/name:os.system", "line 1, column"),
        ("site.yaml", b"step: !!timestamp soon", "line 1, column"),
        ("site.yaml", b"assets: &a [*a]", "nested too deep"),
        ("site.yaml", b"~: 2", "None: unknown key; use one of start_time_h"),
        ("site.yaml", ALIASES_OF_ALIASES, "has more than 1000000 values"),
    ],
)
def test_a_file_that_is_no_document_is_refused_with_the_line(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigErrors) as refused:
        check_site(path)
    assert all(error.file == str(path) for error in refused.value.errors)
    assert any(words in str(error) for error in refused.value.errors)


@pytest.mark.parametrize(("name", "words"), [("none.json", "No such file"), (".", "Is a directory")])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigErrors, match=f"cannot be read: {words}"):
        check_site(tmp_path / name)


@pytest.mark.parametrize("assets", ["[]", "{}", "null"])
def test_a_site_without_assets_is_refused(tmp_path: Path, assets: str) -> None:
    path = tmp_path / "site.json"
    path.write_text(f'{{"assets": {assets}}}')
    with pytest.raises(ConfigErrors, match=r"assets: .* is not allowed; use a list that is not empty"):
        check_site(path)


def test_a_site_that_does_not_mention_assets_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    path.write_text("{}")
    with pytest.raises(ConfigErrors, match="assets: is missing; use a list that is not empty"):
        check_site(path)


def test_all_faults_of_the_config_and_of_its_maps_are_shown_at_once(site: Path) -> None:
    for fault in SITE_FAULTS:
        if fault.name in (
            "step 0",
            "equal asset ids",
            "two stop bits on one line",
            "unit 300",
            "missing CSV file",
        ):
            spoil(site, fault)
    (site.parent / "maps" / "meter.yaml").write_text("registers: []")
    assert {(Path(file).name, place) for file, place, _ in faults_of(site)} == {
        ("site.json", "step"),
        ("site.json", "load"),
        ("site.json", "assets[0].protocols[0].unit_id"),
        ("site.json", "assets[1].asset_id"),
        ("site.json", "assets[2].protocols[0].stopbits"),
        ("meter.yaml", "registers"),
    }


@pytest.mark.parametrize(
    "names",
    [
        ("negative capacity", "same unit on one port"),
        ("negative capacity", "equal asset ids"),
        ("negative capacity", "missing map"),
        ("negative capacity", "unknown measurement"),
        ("unknown fallback command", "int32 over int16"),
        ("negative PV rating", "two stop bits on one line"),
        ("protected meter", "address of another host"),
        ("unit 248 on a line", "address of another host"),
        ("missing map folder", "address of another host"),
        ("unknown type", "unknown command"),
        ("scale 0", "unknown measurement"),
    ],
    ids=" and ".join,
)
def test_a_fault_does_not_hide_another(site: Path, names: tuple[str, str]) -> None:
    for fault in (fault for fault in (*SITE_FAULTS, *MAP_FAULTS) if fault.name in names):
        spoil(site.parent / "maps" / "bess.yaml" if fault in MAP_FAULTS else site, fault)
    expected = {fault.place for fault in (*SITE_FAULTS, *MAP_FAULTS) if fault.name in names}
    assert {place for _, place, _ in faults_of(site)} == expected


def test_the_map_of_another_type_of_device_is_one_fault(site: Path) -> None:
    shipped = shipped_maps() / "pv_inverter_modbus.yaml"
    (site.parent / "maps" / "bess.yaml").write_text(shipped.read_text())
    ((file, place, message),) = faults_of(site)
    assert (Path(file).name, place) == ("bess.yaml", "device_type")
    assert message == (
        '"pv_inverter" is not allowed for an asset of type bess; use a map of that type, such as '
        "bess_modbus.yaml (used by assets[0].protocols[0])"
    )


@pytest.mark.parametrize("device_type", ["bess", "my battery"])
def test_a_misspelt_name_is_told_unless_the_map_is_of_another_type(site: Path, device_type: str) -> None:
    file = site.parent / "maps" / "bess.yaml"
    file.write_text(MAP.replace("device_type: bess", f"device_type: {device_type}").replace("_w,", "_kw,"))
    ((_, place, message),) = faults_of(site)
    assert place == "registers[1].internal_name"
    assert "closest is active_power_w" in message


def test_a_map_that_says_another_type_but_fits_is_good(site: Path) -> None:
    file = site.parent / "maps" / "bess.yaml"
    file.write_text(MAP.replace("device_type: bess", "device_type: chp"))
    assert check_site(site)


def objects_and_lists(document: Any) -> Iterator[Any]:
    if isinstance(document, dict | list):
        yield document
        for value in document.values() if isinstance(document, dict) else document:
            yield from objects_and_lists(value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_config_says_it_is_good_or_refused_in_printable_lines(
    site: Path, data: st.DataObject
) -> None:
    document = json.loads(SITE)
    spoilt = data.draw(st.sampled_from(list(objects_and_lists(document))))
    key = data.draw(st.sampled_from(list(spoilt) if isinstance(spoilt, dict) else range(len(spoilt))))
    spoilt[key] = data.draw(ANYTHING)
    path = site.with_name("spoilt.json")
    path.write_text(json.dumps(document))
    lines = [str(error) for error in errors_of(path)]
    assert all(line.startswith(str(site.parent)) and line.isprintable() for line in lines)
