"""The command `dertwin` as its users type it: check, schema, map, read, write."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from support.json_schema import accepts
from support.service import free_port, service, wait_for

from bench import cli

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*_config.*"))
MAPS = sorted((ROOT / "register_maps").iterdir())
BROKEN = {
    "sitename": "x",
    "assets": [
        {"type": "bess", "capcity_kwh": 5, "protocols": [{"kind": "modbus_tcp", "port": 99999}]},
        {
            "type": "energy_meter",
            "protocols": [{"kind": "modbus_rtu", "port": "/dev/x", "baudrate": 9999999}],
        },
    ],
}

BITS = """
registers:
  - {name: status, type: bitfield, address: 0, count: 1, func: 0x04, direction: read,
     bits: {0: engine_running, 2: auto_mode, 4: preheat_on}}
  - {name: heartbeat, internal_name: heartbeat, type: uint16, address: 1, count: 1, func: 0x06,
     direction: write}
"""

Dertwin = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dertwin(capsys: pytest.CaptureFixture[str]) -> Dertwin:
    """Run the command in this process; return its exit status and what it printed to both streams."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def battery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve one battery; yield where."""
    port = free_port()
    binding = {"kind": "modbus_tcp", "ip": "127.0.0.1", "port": port}
    folder = tmp_path_factory.mktemp("battery")
    with service({"assets": [{"type": "bess", "initial_soc": 42.17, "protocols": [binding]}]}, folder):
        yield f"127.0.0.1:{port}"


def refused(*arguments: object) -> str:
    """Run the command as a process with arguments that it must not take; return what it says."""
    command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("usage:")
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_found_good(dertwin: Dertwin, config: Path) -> None:
    devices = len(json.loads(config.read_text())["assets"])
    status, out, err = dertwin("check", config)
    assert (status, err) == (0, "")
    assert out.startswith(f"{config}: good: {devices} devices, ")


def test_check_opens_no_port(dertwin: Dertwin, tmp_path: Path) -> None:
    line = {"kind": "modbus_rtu", "port": str(tmp_path / "line"), "fallback": "pty", "unit_id": 1}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tcp = {"kind": "modbus_tcp", "ip": "127.0.0.1", "port": taken.getsockname()[1]}
        (tmp_path / "site.json").write_text(
            json.dumps({"assets": [{"type": "bess", "protocols": [tcp, line]}]})
        )
        assert dertwin("check", tmp_path / "site.json")[0] == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "site.json"]


@pytest.mark.parametrize("command", [("check",), ("run", "-c"), ("-c",)], ids=" ".join)
def test_a_broken_config_ends_with_status_78_and_a_line_for_each_fault(
    dertwin: Dertwin, tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(BROKEN))
    status, out, err = dertwin(*command, file)
    assert (status, out) == (78, "")
    assert sorted(line.removeprefix(f"{file}: ").split(":")[0] for line in err.splitlines()) == [
        "assets[0].capcity_kwh",
        "assets[0].protocols[0].port",
        "assets[1].protocols[0].baudrate",
        "sitename",
    ]


def test_a_config_or_map_that_is_not_there_is_one_line(dertwin: Dertwin, tmp_path: Path) -> None:
    for command in (("check",), ("run", "-c"), ("map",), ("read", "127.0.0.1:1")):
        status, out, err = dertwin(*command, tmp_path / "none.yaml")
        assert (status, out) == (78, "")
        assert err == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory\n"


def test_the_schema_accepts_the_shipped_configs_and_nothing_that_check_refuses(dertwin: Dertwin) -> None:
    status, out, err = dertwin("schema")
    assert (status, err) == (0, "")
    schema = json.loads(out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for config in CONFIGS:
        assert accepts(schema, json.loads(config.read_text())), config
    site: dict[str, Any] = json.loads((ROOT / "configs" / "simple_config.json").read_text())
    (asset,) = site["assets"]
    (binding,) = asset["protocols"]
    for part, key, bad in (
        (site, "sitename", "x"),
        (site, "step", 0),
        (site, "step", "fast"),
        (site, "assets", []),
        (asset, "type", "battery"),
        (asset, "capacity_kwh", -100),
        (asset, "initial_soc", 250),
        (binding, "port", 99999),
        (binding, "kind", "modbus"),
        (binding, "baudrate", 9600),
    ):
        before = dict(part)
        part[key] = bad
        assert not accepts(schema, site), (key, bad)
        part.clear()
        part.update(before)
    assert accepts(schema, site)
    assert not accepts(schema, BROKEN)


@pytest.mark.parametrize("file", MAPS, ids=lambda path: path.stem)
def test_a_map_is_a_table_with_a_row_for_each_register(dertwin: Dertwin, file: Path) -> None:
    status, by_name, err = dertwin("map", file.name)
    assert (status, err) == (0, "")
    assert dertwin("map", file) == (0, by_name, "")
    header, *rows = by_name.splitlines()
    assert header.split()[:4] == ["address", "registers", "read", "write"]
    assert len(rows) == file.read_text().count("{address:")


def test_the_table_says_how_a_register_is_read_and_written(dertwin: Dertwin) -> None:
    rows = {tuple(line.split()) for line in dertwin("map", "bess_modbus.yaml")[1].splitlines()}
    assert ("4", "1", "03", "04", "uint16", "0.01", "%", "soc", "system_soc") in rows
    assert ("1012", "1", "03", "06", "10", "uint16", "1") in {row[:7] for row in rows}


def test_all_registers_are_read_as_a_table_with_units_and_labels(dertwin: Dertwin, battery: str) -> None:
    status, out, err = dertwin("read", battery, "bess_modbus.yaml")
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["soc", "42.17", "%"] in rows
    assert ["frequency", "50.000", "Hz"] in rows
    assert ["working_status", "0", "stopped", "or", "standby"] in rows
    assert ["product_code", "BESS"] in rows
    assert len(rows) == 41


def test_named_registers_are_read_in_their_order_wherever_options_stand(
    dertwin: Dertwin, battery: str
) -> None:
    expected = (0, '{"voltage_ab": 400.0, "soc": 42.17}\n', "")
    words = ("read", battery, "bess_modbus.yaml")
    assert dertwin(*words, "voltage_ab", "soc", "--json") == expected
    assert dertwin(*words, "--json", "-u", 1, "voltage_ab", "soc") == expected
    assert dertwin("read", "--json", "-u", 1, *words[1:], "voltage_ab", "soc") == expected


def test_a_written_command_is_shown_as_the_device_took_it(dertwin: Dertwin, battery: str) -> None:
    commands = ("heartbeat=0x1234", "active_power_setpoint=-5000.4", "upper_soc_limit_1=80.5")
    assert dertwin("write", battery, "bess_modbus.yaml", *commands) == (
        0,
        "heartbeat = 4660\nactive_power_setpoint = -5000 W\nupper_soc_limit_1 = 80.50 %\n",
        "",
    )
    names = ("heartbeat", "active_power_setpoint", "upper_soc_limit_1")
    status, out, _ = dertwin("read", battery, "bess_modbus.yaml", *names, "--json")
    assert (status, json.loads(out)) == (0, dict(zip(names, (4660, -5000, 80.5), strict=True)))
    status, out, _ = dertwin("write", battery, "bess_modbus.yaml", "active_power_setpoint=1e9")
    assert (status, out) == (0, "active_power_setpoint = 20000 W\n")  # clamped to the rating


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("heartbeat=99999", "heartbeat: 99999 does not fit into uint16 x 1"),
        ("heartbeat=-1", "heartbeat: -1 does not fit into uint16 x 1"),
        ("heartbeat=nan", "heartbeat: nan does not fit into uint16 x 1"),
        (
            "start_stop_standby=7",
            "write register at 1000 of unit 1: exception 03, the device refuses this value or length",
        ),
    ],
)
def test_a_value_that_does_not_fit_or_is_refused_is_one_line(
    dertwin: Dertwin, battery: str, command: str, problem: str
) -> None:
    assert dertwin("write", battery, "bess_modbus.yaml", command) == (1, "", f"dertwin write: {problem}\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("read", "MAP", "socc"), '"socc" is no register; the closest is soc; use one of working_status, '),
        (("write", "MAP", "hartbeat=1"), '"hartbeat" is no register; the closest is heartbeat; use one of '),
        (("write", "MAP", "soc=50"), '"soc" cannot be written; '),
        (("write", "MAP", "heartbeat"), '"heartbeat" is not NAME=VALUE with a number'),
        (("write", "MAP", "heartbeat=abc"), '"heartbeat=abc" is not NAME=VALUE with a number'),
        (
            ("write", "MAP", "start_stop_standby=ruin"),
            '"start_stop_standby=ruin" is not NAME=VALUE with a number or a label; the closest is run; '
            "use one of run, stop, standby",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_name_that_the_map_does_not_have_is_one_line_with_the_closest(
    dertwin: Dertwin, words: tuple[str, str, str], problem: str
) -> None:
    command, _, what = words
    file = ROOT / "register_maps" / "bess_modbus.yaml"
    status, out, err = dertwin(command, "127.0.0.1:1", file, what)
    assert (status, out) == (78, "")
    assert err.startswith(f"{file}: {problem}")
    assert err.count("\n") == 1


def test_a_wrong_unit_id_map_or_address_is_one_line_that_helps(
    dertwin: Dertwin, battery: str, tmp_path: Path
) -> None:
    read = ("read", "bess_modbus.yaml", "soc")
    for words, problem in (
        ((battery, *read[1:], "-u", 9), "input registers at 4 of unit 9: exception 11, no such unit id"),
        (
            (battery, "chp_modbus.yaml"),
            "discrete inputs at 0 of unit 1: exception 02, the device has no such",
        ),
        ((f"127.0.0.1:{free_port()}", *read[1:]), "connection refused; is the service running"),
        (("no.such.host.invalid:502", *read[1:]), "is the address right?"),
        ((tmp_path / "no_port", *read[1:]), "no_port: does not exist; use HOST:PORT, or a serial port"),
        ((tmp_path, *read[1:]), f"cannot open {tmp_path}: is not a serial port"),
    ):
        status, out, err = dertwin("read", *words)
        assert (status, out) == (1, "")
        assert err.startswith("dertwin read: ")
        assert problem in err
        assert err.count("\n") == 1


def test_a_value_may_be_given_by_its_label(dertwin: Dertwin, battery: str) -> None:
    for text, shown in (("Standby", "3 standby"), ("run", "1 run"), ("2", "2 stop")):
        answer = dertwin("write", battery, "bess_modbus.yaml", f"start_stop_standby={text}")
        assert answer == (0, f"start_stop_standby = {shown}\n", "")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[str]:
    """Serve two engines on a virtual line; yield the client's end."""
    (tmp_path / "bits.yaml").write_text(BITS)
    binding = {
        "kind": "modbus_rtu",
        "port": str(tmp_path / "line"),
        "fallback": "pty",
        "register_map": "bits.yaml",
    }
    assets = [{"type": "chp", "protocols": [{**binding, "unit_id": unit_id}]} for unit_id in (1, 2)]
    with service({"assets": assets}, tmp_path):
        yield str(tmp_path / "line_client")


def test_a_bitfield_is_shown_with_the_names_of_its_bits_and_each_may_be_read_by_name(
    dertwin: Dertwin, line: str, tmp_path: Path
) -> None:
    read = ("read", line, tmp_path / "bits.yaml")
    status, out, err = dertwin(*read, "status")
    assert (status, err) == (0, "")
    assert out.split() == ["status", "20", "auto_mode,", "preheat_on"]
    status, out, _ = dertwin(*read, "engine_running", "auto_mode", "--json")
    assert (status, json.loads(out)) == (0, {"engine_running": 0, "auto_mode": 1})
    status, out, _ = dertwin(*read, "auto_mode")
    assert out.split() == ["auto_mode", "1"]
    assert dertwin("write", *read[1:], "auto_mode=1")[0] == 78


def test_a_broadcast_reaches_all_units_of_a_line_and_waits_for_no_reply(
    dertwin: Dertwin, line: str, tmp_path: Path
) -> None:
    where = line, tmp_path / "bits.yaml"
    sent = "heartbeat: sent to all units; no reply is due\n"
    assert dertwin("write", *where, "-u", 0, "heartbeat=6", "heartbeat=7") == (0, sent * 2, "")
    for unit_id in (1, 2):
        assert dertwin("read", *where, "-u", unit_id, "heartbeat", "--json")[1] == '{"heartbeat": 7.0}\n'
    status, out, err = dertwin("read", *where, "-u", 0, "heartbeat")
    assert (status, out) == (1, "")
    assert (
        err == "dertwin read: unit 0 means all units of a line, and none replies; use -u with the id of one\n"
    )


def test_unit_0_on_modbus_tcp_is_the_server_itself_and_replies(dertwin: Dertwin, battery: str) -> None:
    answer = dertwin("write", battery, "bess_modbus.yaml", "-u", 0, "heartbeat=5")
    assert answer == (0, "heartbeat = 5\n", "")


def test_a_port_that_another_program_has_is_told_as_that(dertwin: Dertwin, line: str, tmp_path: Path) -> None:
    theirs = line.removesuffix("_client")
    status, out, err = dertwin("read", theirs, tmp_path / "bits.yaml")
    assert (status, out) == (1, "")
    assert (
        err == f"dertwin read: cannot open {theirs}: in use by another program; `dertwin ports` shows which\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_a_port_that_this_user_may_not_open_is_told_with_the_remedy(dertwin: Dertwin, line: str) -> None:
    with TemporaryDirectory() as folder:  # which others may look into, as into /dev
        os.chmod(folder, 0o755)
        port, registers = Path(folder, "port"), Path(folder, "bits.yaml")
        port.symlink_to(os.readlink(line))
        registers.write_text(BITS)
        os.chmod(port, 0o600)
        assert dertwin("read", port, registers)[0] == 0, "all that it needs is loaded now"
        os.seteuid(65534)
        try:
            status, _, err = dertwin("read", port, registers)
        finally:
            os.seteuid(0)
    assert status == 1
    assert err == (
        f"dertwin read: cannot open {port}: permission denied; "
        "add this user to the group dialout and log in again\n"
    )


def test_arguments_that_make_no_sense_are_refused_with_the_usage() -> None:
    read = ("read", "127.0.0.1:1", "bess_modbus.yaml", "soc")
    assert "invalid unit_id value: '300'" in refused(*read, "-u", 300)
    assert "invalid seconds value: '0'" in refused(*read, "--watch", 0)
    assert "unrecognized arguments: --jason" in refused(*read, "--jason")


def test_a_watched_register_is_shown_again_and_again_also_when_the_service_was_away(
    dertwin: Dertwin, tmp_path: Path
) -> None:
    port = free_port()
    binding = {"kind": "modbus_tcp", "ip": "127.0.0.1", "port": port}
    site = {"assets": [{"type": "bess", "protocols": [binding]}]}
    target = f"127.0.0.1:{port}"
    printed, said = tmp_path / "watch.out", tmp_path / "watch.err"
    words = ["read", target, "bess_modbus.yaml", "heartbeat", "--json", "--watch", "0.05", "--timeout", "0.5"]

    def shows(value: int) -> Callable[[], bool]:
        return lambda: printed.read_text().endswith(f'{{"heartbeat": {value}.0}}\n')

    with printed.open("w") as out, said.open("w") as err:
        command = [sys.executable, "-m", "bench.cli", *words]
        with service(site, tmp_path) as first, subprocess.Popen(command, stdout=out, stderr=err) as watch:
            wait_for(shows(0))
            for value in (1, 2):
                assert dertwin("write", target, "bess_modbus.yaml", f"heartbeat={value}")[0] == 0
                wait_for(shows(value))
            first.stop()
            wait_for(lambda: "cannot open" in said.read_text(), 5.0, "a word that the service is away")
            with service(site, tmp_path):
                wait_for(shows(0))
            watch.send_signal(signal.SIGINT)
            assert watch.wait(timeout=5) == 0
    assert "Traceback" not in said.read_text()


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "bench.cli", "check", str(CONFIGS[0])]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=buffered) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("dertwin 0.")
