"""Site configs: what is accepted, and how."""

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from bench.check import check_asset, check_site, shipped_maps
from dertwin.bindings import TcpBinding
from dertwin.config import SiteConfig, asset_ids, load_site, parse_asset, site_schema
from dertwin.config_errors import ConfigErrors, place_of
from dertwin.environment import GridVoltage
from dertwin.site import build_site

BATTERY: dict[str, Any] = {"type": "bess", "protocols": [{"kind": "modbus_tcp", "port": 55001}]}
METER: dict[str, Any] = {"type": "energy_meter"}
MAP = """registers:
  - {name: p, internal_name: active_power, address: 0, type: int16, count: 1, func: 4, direction: read}"""


def write(folder: Path, site: dict[str, Any], name: str = "site.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(site))
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigErrors) as refused:
        check_site(path)
    return [str(error).removeprefix(f"{path}: ") for error in refused.value.errors]


def test_everything_but_the_assets_may_be_left_out(tmp_path: Path) -> None:
    config = load_site(write(tmp_path, {"assets": [METER]}))
    assert (config.step, config.real_time, config.speed, config.start_time_h) == (0.1, True, 1.0, 0.0)
    assert config.assets[0].protocols == []


def test_a_binding_on_the_asset_itself_is_one_modbus_tcp_binding(tmp_path: Path) -> None:
    short = {
        "type": "bess",
        "ip": "127.0.0.1",
        "port": 55001,
        "unit_id": 3,
        "register_map": "bess_modbus.yaml",
    }
    checked = check_site(write(tmp_path, {"assets": [short]}))
    assert checked.config.assets[0].protocols == [
        TcpBinding(kind="modbus_tcp", ip="127.0.0.1", port=55001, unit_id=3, register_map="bess_modbus.yaml")
    ]


@pytest.mark.parametrize("key", ["nominal_v_ll", "nominal_voltage_ll"])
def test_the_grid_voltage_has_two_spellings(tmp_path: Path, key: str) -> None:
    site = {"external_models": {"grid_voltage": {key: 410}}, "assets": [METER]}
    voltage = load_site(write(tmp_path, site)).external_models.grid_voltage
    assert isinstance(voltage, GridVoltage)
    assert voltage.nominal_v_ll == 410


def test_notes_of_the_author_are_ignored_anywhere(tmp_path: Path) -> None:
    note: dict[str, Any] = {"comment": ["a", {"b": None}], "_todo": "c"}
    binding = {**BATTERY["protocols"][0], **note}
    site = {
        **note,
        "external_models": {**note, "power": note},
        "assets": [{**BATTERY, **note, "protocols": [binding]}],
    }
    assert load_site(write(tmp_path, site)) == load_site(
        write(tmp_path, {"external_models": {"power": {}}, "assets": [BATTERY]}, "bare.json")
    )


def test_a_tab_indented_file_with_a_byte_order_mark_is_good_json(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps({"assets": [METER]}, indent="\t"), encoding="utf-8-sig")
    assert load_site(path).assets


def test_yaml_numbers_and_words_are_those_of_json(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("site_name: on\nstep: 1e-1\nspeed: 1E2\nassets: [{type: energy_meter, asset_id: 12:30}]")
    config = load_site(path)
    assert (config.site_name, config.step, config.speed, config.assets[0].asset_id) == (
        "on",
        0.1,
        100.0,
        "12:30",
    )


def test_a_file_with_another_ending_is_json_if_it_looks_so_and_yaml_otherwise(tmp_path: Path) -> None:
    as_json, as_yaml = tmp_path / "site", tmp_path / "site.conf"
    as_json.write_text('\n{\t"assets": [{"type": "energy_meter"}]}')
    as_yaml.write_text("assets:\n- type: energy_meter")
    assert load_site(as_json) == load_site(as_yaml)


def test_assets_without_a_name_get_the_first_free_ones_of_their_type() -> None:
    given = (METER, BATTERY, {**BATTERY, "asset_id": "x"}, BATTERY, {**BATTERY, "asset_id": "bess-2"}, METER)
    names = ["energy_meter-1", "bess-1", "x", "bess-3", "bess-2", "energy_meter-2"]
    assert asset_ids([parse_asset(document) for document in given]) == names


@pytest.mark.parametrize("position", range(4))
def test_a_given_name_never_collides_with_a_derived_one(tmp_path: Path, position: int) -> None:
    assets: list[dict[str, Any]] = [METER, METER, METER]
    assets.insert(position, {**METER, "asset_id": "energy_meter-2"})
    path = write(tmp_path, {"assets": assets})
    names = {f"energy_meter-{n}" for n in range(1, 5)}
    assert set(check_site(path).layouts) == set(build_site(load_site(path)).devices) == names


def test_a_device_added_later_gets_the_name_that_the_config_would_have_given_it() -> None:
    site = build_site({"assets": [METER, {**METER, "asset_id": "energy_meter-2"}]})
    assert [site.add_asset(METER), site.add_asset(METER)] == ["energy_meter-3", "energy_meter-4"]


def test_maps_are_looked_for_beside_the_config_then_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    for folder in (site, work / "maps"):
        folder.mkdir(parents=True)
        (folder / "bess_modbus.yaml").write_text(MAP)
    monkeypatch.chdir(work)
    path = write(site, {"register_map_root": "maps", "assets": [BATTERY]})
    assert check_site(path).map_roots[0].resolve() == work / "maps"
    (site / "maps").mkdir()
    (site / "bess_modbus.yaml").rename(site / "maps" / "bess_modbus.yaml")
    assert check_site(path).map_roots[0].resolve() == site / "maps"


def with_map(name: str, **binding: Any) -> dict[str, Any]:
    return {
        "type": "bess",
        "protocols": [{"kind": "modbus_tcp", "port": 55001, "register_map": name, **binding}],
    }


@pytest.mark.parametrize("root", [{}, {"register_map_root": "maps"}], ids=["beside", "in a folder"])
def test_one_device_may_have_a_map_of_its_own_beside_others_with_shipped_ones(
    tmp_path: Path, root: dict[str, str]
) -> None:
    folder = tmp_path / root.get("register_map_root", "")
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(MAP)
    assets = [with_map("mine.yaml"), with_map("bess_modbus.yaml", unit_id=2), {**BATTERY, "port": 55002}]
    del assets[2]["protocols"]
    mine, named, left_out = check_site(write(tmp_path, {**root, "assets": assets})).layouts.values()
    assert len(mine[0].numbers) == 1
    assert len(named[0].numbers) == len(left_out[0].numbers) > 10


def test_a_map_of_ones_own_goes_before_a_shipped_one_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "bess_modbus.yaml").write_text(MAP)
    ((layout,),) = check_site(write(tmp_path, {"assets": [BATTERY]})).layouts.values()
    assert len(layout.numbers) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../mine.yaml", "use a file inside"),
        ("/etc/passwd", "use a file inside"),
        ("mien.yaml", "the closest is mine.yaml; use one of bess_modbus.yaml, chp_modbus.yaml"),
        ("bess_modbus.yml", "the closest is bess_modbus.yaml"),
    ],
)
def test_a_map_that_is_nowhere_or_outside_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(MAP)
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "mine.yaml").write_text(MAP)
    (fault,) = faults(write(folder, {"assets": [with_map(name)]}, "site.yaml"))
    assert words in fault
    assert "site.yaml," not in fault, "the config is no map"


LINES = {
    "pair and its path": ({"port": "pty:a"}, {"port": "/tmp/dertwin_a"}),
    "pair and its client's end": ({"port": "pty:a"}, {"port": "/tmp/dertwin_a_client"}),
    "pair and fallback of a device": ({"port": "pty:a"}, {"port": "/dev/a", "fallback": "pty"}),
    "fallbacks of two devices": (
        {"port": "/dev/a", "fallback": "pty"},
        {"port": "/dev/b/a", "fallback": "pty"},
    ),
    "two spellings": ({"port": "/tmp/a"}, {"port": "/tmp/../tmp/a"}),
    "two slashes": ({"port": "/tmp/a"}, {"port": "//tmp//a"}),
    "a device in two spellings": ({"port": "pty:a"}, {"port": "/tmp/../dev/a", "fallback": "pty"}),
    "path and its client's end": ({"port": "/tmp/a", "fallback": "pty"}, {"port": "/tmp/a_client"}),
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_lines_that_are_one_or_in_each_others_way_are_refused(
    tmp_path: Path, lines: tuple[dict[str, Any], ...], swapped: bool
) -> None:
    first, second = reversed(lines) if swapped else lines
    bindings = [
        {"kind": "modbus_rtu", "unit_id": unit_id, **line} for unit_id, line in enumerate((first, second), 1)
    ]
    (fault,) = faults(write(tmp_path, {"assets": [{"type": "bess", "protocols": bindings}]}))
    assert fault.startswith(
        f'assets[0].protocols[1].port: "{second["port"]}" is not allowed; assets[0].protocols[0] has'
    )
    assert f'use "{first["port"]}" to make them one line, or another port' in fault


def test_lines_that_do_not_meet_are_good(tmp_path: Path) -> None:
    lines = [
        {"port": "pty:a"},
        {"port": "/dev/a"},
        {"port": "/dev/b/a"},
        {"port": "/tmp/a"},
        {"port": "/tmp/a_client"},
        {"port": "/tmp/b", "fallback": "pty"},
    ]
    bindings = [{"kind": "modbus_rtu", **line} for line in lines]
    assert check_site(write(tmp_path, {"assets": [{"type": "bess", "protocols": bindings}]}))


def test_a_mapping_is_checked_as_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(MAP)
    (tmp_path / "load.csv").write_text("0,1000\n3600,2000\n")
    monkeypatch.chdir(tmp_path)
    site = {"load": {"csv": "load.csv"}, "assets": [with_map("mine.yaml")]}
    checked = check_site(MappingProxyType(site))
    of_the_file = check_site(write(tmp_path, site))
    assert build_site(checked.config).step().conditions == build_site(of_the_file.config).step().conditions
    assert len(checked.layouts["bess-1"][0].numbers) == 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"step": 0}, "step: 0 is not allowed; use a number above 0 up to 3600"),
        (
            {"assets": [with_map("no.yaml")]},
            'assets[0].protocols[0].register_map: "no.yaml" is not a file in .',
        ),
        ({"assets": [METER], "speed": 1e-300}, "speed: 1e-300 is not allowed; use 0 or a size from 1e-20"),
        ({"register_map_root": "nowhere"}, 'register_map_root: "nowhere" is not a folder'),
    ],
)
def test_the_faults_of_a_mapping_are_named_without_a_file(change: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigErrors) as refused:
        check_site({"assets": [BATTERY], **change})
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize("asset_type", ["bess", "inverter", "chp", "energy_meter"])
def test_each_type_of_asset_has_a_shipped_map(asset_type: str) -> None:
    assert len(check_asset(parse_asset({"type": asset_type, "port": 502}), [shipped_maps()])) == 1


def test_a_map_may_lie_below_its_root_or_be_named_in_full(tmp_path: Path) -> None:
    below = tmp_path / "maps" / "vendor" / "model.yaml"
    below.parent.mkdir(parents=True)
    below.write_text(MAP)
    for name in ("vendor/model.yaml", "vendor/../vendor/model.yaml", str(below)):
        path = write(
            tmp_path,
            {"register_map_root": "maps", "assets": [{"type": "bess", "port": 502, "register_map": name}]},
        )
        assert check_site(path).layouts


def test_equal_devices_share_one_layout_and_unequal_ones_do_not(tmp_path: Path) -> None:
    batteries = [
        {"type": "bess", "max_charge_kw": kw, "port": 502, "unit_id": unit}
        for unit, kw in enumerate((5, 5, 6), 1)
    ]
    (first,), (second,), (third,) = check_site(write(tmp_path, {"assets": batteries})).layouts.values()
    assert first is second
    assert first is not third


def test_two_bindings_of_one_device_are_two_layouts_of_one_asset(tmp_path: Path) -> None:
    twice = {"type": "bess", "protocols": [{"kind": "modbus_tcp", "port": port} for port in (502, 503)]}
    assert {
        name: len(layouts)
        for name, layouts in check_site(write(tmp_path, {"assets": [twice]})).layouts.items()
    } == {"bess-1": 2}


def test_several_units_on_one_tcp_port_and_one_port_on_two_addresses_are_good(tmp_path: Path) -> None:
    assets = [
        {"type": "bess", "ip": ip, "port": 502, "unit_id": unit}
        for ip, unit in (("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.2", 1), ("::1", 1))
    ]
    assert len(check_site(write(tmp_path, {"assets": assets})).layouts) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [("::", "::1"), ("localhost", "127.0.0.1"), ("localhost", "::1"), ("::1", "0:0:0:0:0:0:0:1")],
)
def test_two_spellings_of_one_address_cannot_have_the_same_port(tmp_path: Path, one: str, other: str) -> None:
    assets = [{"type": "bess", "ip": ip, "port": 502, "unit_id": unit} for unit, ip in ((1, one), (2, other))]
    (fault,) = faults(write(tmp_path, {"assets": assets}))
    assert fault.startswith(
        f'assets[1].ip: "{other}" is not allowed; port 502 of {one} is taken by assets[0]'
    )


def test_virtual_lines_with_one_name_are_one_line(tmp_path: Path) -> None:
    assets = [{"type": "bess", "protocols": [{"kind": "modbus_rtu", "port": "pty:bus"}]} for _ in range(2)]
    (fault,) = faults(write(tmp_path, {"assets": assets}))
    assert fault == (
        "assets[1].protocols[0].unit_id: 1 is not allowed;"
        " it is the unit_id of assets[0].protocols[0] on the same line pty:bus"
    )


def test_the_fault_of_a_map_is_told_once_however_many_devices_use_it(tmp_path: Path) -> None:
    (tmp_path / "bess_modbus.yaml").write_text(MAP.replace("active_power", "actve_power"))
    assets = [{"type": "bess", "port": 502, "unit_id": unit} for unit in (1, 2, 3)]
    (fault,) = faults(write(tmp_path, {"register_map_root": ".", "assets": assets}))
    assert "registers[0].internal_name" in fault
    assert fault.endswith("(used by assets[0])")


def test_the_short_spelling_of_a_binding_is_reported_where_it_is_written(tmp_path: Path) -> None:
    assets = [{"type": "bess", "port": 99999}, {"type": "bess", "unit_id": 2}, {"type": "bess", "prot": 502}]
    port, missing, unknown = faults(write(tmp_path, {"assets": assets}))
    assert port == "assets[0].port: 99999 is not allowed; use an integer from 1 to 65535"
    assert missing == "assets[1].port: is missing; use an integer from 1 to 65535"
    assert unknown.startswith("assets[2].prot: unknown key; the closest is port; use one of ")


def test_a_key_named_like_a_type_does_not_confuse_the_places(tmp_path: Path) -> None:
    (fault,) = faults(write(tmp_path, {"assets": [{"type": "bess", "bess": {"capacity_kwh": 1}}]}))
    assert fault.startswith("assets[0].bess: unknown key; ")


def test_the_closest_name_is_found_whatever_the_case(tmp_path: Path) -> None:
    (fault,) = faults(write(tmp_path, {"assets": [{"type": "BESS"}]}))
    assert fault == (
        'assets[0].type: "BESS" is not allowed;'
        " the closest is bess; use one of bess, inverter, chp, energy_meter"
    )


def test_what_an_author_wrote_cannot_break_the_line_of_an_error(tmp_path: Path) -> None:
    site = {"\x1b[31m\n": 1, "site_name": ["\n" * 100], "assets": [METER]}
    name, key = faults(write(tmp_path, site))
    assert name.startswith('site_name: ["\\n\\n')
    assert name.endswith("... is not allowed; use a text that is not empty")
    assert key.startswith('["\\u001b[31m\\n"]: unknown key')


def test_a_place_reads_like_the_path_in_the_document() -> None:
    assert place_of(["assets", 2, "protocols", 0, "baudrate"]) == "assets[2].protocols[0].baudrate"
    assert place_of(["a key", 1, "b"]) == '["a key"][1].b'


def test_the_schema_knows_every_way_to_write_a_site() -> None:
    schema = site_schema()
    assert schema["required"] == ["assets"]
    assert set(SiteConfig.model_fields) == set(schema["properties"])
    models = schema["$defs"]
    assert {"ip", "port", "unit_id", "register_map", "protocols"} <= set(models["BessConfig"]["properties"])
    assert {"nominal_v_ll", "nominal_voltage_ll"} <= set(models["GridVoltage"]["properties"])
    assert models["TcpBinding"]["properties"]["port"]["maximum"] == 65535
    for model in (schema, *models.values()):
        assert model["description"]
        assert model["additionalProperties"] is False
        assert list(model["patternProperties"]) == ["^_|^comment$"]
