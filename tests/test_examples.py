"""The example EMS programs as a user runs them: each a process of its own, against a real service."""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.service import free_port, service, wait_for

from dertwin.registers.map import load_map

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
CONFIGS = {
    "main_simple.py": "simple_config.json",
    "main_full.py": "full_site_config.json",
    "main_mixed.py": "mixed_protocol_config.json",
}
MAPS = {"BESS": "bess", "PV": "pv_inverter", "METER": "energy_meter", "CHP": "chp"}


class Program:
    """A running example and what it has printed, errors included."""

    def __init__(self, process: "subprocess.Popen[str]", printed: Path) -> None:
        self._process = process
        self._printed = printed

    @property
    def output(self) -> str:
        return self._printed.read_text()

    def says(self, *texts: str, timeout_s: float = 15.0) -> None:
        """Wait until it has printed texts, in this order."""
        pattern = re.compile(".*".join(re.escape(text) for text in texts), re.DOTALL)
        wait_for(lambda: pattern.search(self.output), timeout_s, f"{texts} in the output of the example")

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> int:
        """Return the exit status once it has stopped by itself."""
        return self._process.wait(timeout=10)


@contextlib.contextmanager
def example(name: str, folder: Path, *options: object) -> Iterator[Program]:
    printed = folder / "example.out"
    with (
        printed.open("w") as output,
        subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), *map(str, options)],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            yield Program(process, printed)
        finally:
            if process.poll() is None:
                process.kill()


def site_for(name: str, **changes: Any) -> dict[str, Any]:
    """Return the shipped config of an example with all its TCP ports replaced by free ones."""
    config: dict[str, Any] = json.loads((ROOT / "configs" / CONFIGS[name]).read_text())
    for binding in bindings(config):
        if binding["kind"] == "modbus_tcp":
            binding |= {"ip": "127.0.0.1", "port": free_port()}
    return config | changes


def bindings(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [binding for asset in config["assets"] for binding in asset["protocols"]]


def lines_of(device: str, output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(device)]


def test_the_simple_example_starts_the_battery_and_stops_by_itself(tmp_path: Path) -> None:
    site = site_for("main_simple.py")
    (binding,) = bindings(site)
    start = time.monotonic()
    with (
        service(site, tmp_path),
        example("main_simple.py", tmp_path, "--port", binding["port"], "--seconds", 1.5) as program,
    ):
        assert program.ended() == 0
    assert time.monotonic() - start > 1.5
    first, second = lines_of("bess-1", program.output)
    assert first.split() == ["bess-1", "stopped", "SOC", "42.00", "%", "P", "+0.00", "kW", "charging"]
    assert re.match(r"bess-1 +running +SOC +42\.\d\d % +P +-20\.00 kW +charging$", second)


def test_the_battery_is_cycled_between_40_and_60_percent_and_left_stopped(tmp_path: Path) -> None:
    # In each turn 200 s of 20 kW: about a tenth of the capacity.
    site = site_for("main_simple.py", speed=200.0)
    site["assets"][0] |= {"capacity_kwh": 12.0, "initial_soc": 45.0}
    (binding,) = bindings(site)
    with (
        service(site, tmp_path),
        example("main_simple.py", tmp_path, "--port", binding["port"]) as program,
    ):
        program.says(
            "-20.00 kW  charging",
            "SOC has reached 60 %, now discharging",
            "+20.00 kW  discharging",
            "SOC has reached 40 %, now charging",
            "-20.00 kW  charging",
        )
        assert program.interrupt() == 0
        soc = [float(value) for value in re.findall(r"SOC +([\d.]+) %  P", program.output)]
        with example("main_simple.py", tmp_path, "--port", binding["port"], "--seconds", 0.1) as again:
            assert again.ended() == 0
    assert "stopped" in lines_of("bess-1", again.output)[0]
    assert 20 < min(soc) <= 40
    assert 60 <= max(soc) < 80


def test_the_full_example_brings_the_chp_through_its_start_to_its_setpoint(tmp_path: Path) -> None:
    site = site_for("main_full.py", speed=30.0)
    names = ("bess-1", "bess-2", "pv", "chp", "meter")
    ports = [binding["port"] for binding in bindings(site)]
    options = [word for name, port in zip(names, ports, strict=True) for word in (f"--{name}", port)]
    with service(site, tmp_path), example("main_full.py", tmp_path, *options) as program:
        program.says("-> running", "running       P   +40.00 kW  setpoint 80 %")
        assert program.interrupt() == 0
    changes = re.findall(r"unit_state: ([\w-]+) -> ([\w-]+)", program.output)
    states = [changes[0][0], *(state for _, state in changes)]
    order = ["ready", "starting", "warm-up", "idle", "synchronizing", "running"]
    assert states == [state for state in order if state in states]  # 10 s pass unseen at this speed
    assert {"ready", "warm-up", "running"} <= set(states)
    assert "running   SOC" in lines_of("bess-1", program.output)[-1]
    assert "running   SOC" in lines_of("bess-2", program.output)[-1]
    assert "producing" in lines_of("pv-1", program.output)[-1]
    assert " Hz " in lines_of("meter-1", program.output)[-1]


def test_the_mixed_example_watches_pv_and_meter_on_serial_lines(tmp_path: Path) -> None:
    site = site_for("main_mixed.py")
    tcp, *serial = bindings(site)
    for binding, name in zip(serial, ("pv", "meter"), strict=True):
        binding["port"] = str(tmp_path / name)
    clients = ["--pv", tmp_path / "pv_client", "--meter", tmp_path / "meter_client"]
    with (
        service(site, tmp_path, "--fallback", "pty"),
        example("main_mixed.py", tmp_path, "--port", tcp["port"], *clients, "--seconds", 1.5) as program,
    ):
        assert program.ended() == 0
    assert re.search(r"^bess-1 +running +SOC .* -30\.00 kW  charging$", program.output, re.MULTILINE)
    assert re.search(r"^pv-1 +producing  P +\+\d\d\.\d\d kW", program.output, re.MULTILINE)
    assert re.search(r"^meter-1 +(import|export)  P .*kW  (49|50)\.\d{3} Hz", program.output, re.MULTILINE)
    assert "no answer" not in program.output


def test_the_mixed_example_goes_on_with_the_battery_alone_and_says_so(tmp_path: Path) -> None:
    site = site_for("main_mixed.py")
    del site["assets"][1:]
    (tcp,) = bindings(site)
    clients = ["--pv", tmp_path / "pv_client", "--meter", tmp_path / "meter_client"]
    with (
        service(site, tmp_path),
        example("main_mixed.py", tmp_path, "--port", tcp["port"], *clients, "--seconds", 1.5) as program,
    ):
        assert program.ended() == 0
    assert "running" in lines_of("bess-1", program.output)[-1]
    for name in ("pv", "meter"):
        assert lines_of(f"{name}-1", program.output) == [
            f"{name + '-1':<8} cannot open {tmp_path / name}_client (is the service running?); "
            "trying again each second"
        ]


def test_an_example_waits_for_a_service_that_comes_goes_and_comes_back(tmp_path: Path) -> None:
    site = site_for("main_simple.py")
    (binding,) = bindings(site)
    gone = f"127.0.0.1:{binding['port']}"
    with example("main_simple.py", tmp_path, "--port", binding["port"]) as program:
        program.says(f"cannot open {gone}")
        with service(site, tmp_path) as first:
            program.says("cannot open", "running   SOC")
            first.stop(signal.SIGKILL)
        program.says("cannot open", "running   SOC", "trying again each second")
        with service(site, tmp_path):
            program.says("cannot open", "running   SOC", "trying again each second", "running   SOC")
        assert program.interrupt() == 0
    assert "Traceback" not in program.output


@pytest.mark.parametrize("name", CONFIGS)
def test_without_options_an_example_finds_the_devices_of_its_shipped_config(name: str) -> None:
    environment = os.environ | {"COLUMNS": "200"}
    shown = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "--help"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=True,
    ).stdout
    assert CONFIGS[name] in shown
    config = json.loads((ROOT / "configs" / CONFIGS[name]).read_text())
    for binding in bindings(config):
        end = "_client" if binding["kind"] == "modbus_rtu" else ""
        assert f"(default {binding['port']}{end})" in shown
        assert binding["unit_id"] == 1


def test_every_register_of_the_examples_is_that_of_the_shipped_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    ems, main_full = (importlib.import_module(name) for name in ("ems", "main_full"))
    constants = {
        name: value
        for module in (ems, main_full)
        for name, value in vars(module).items()
        if isinstance(value, ems.Register)
    }
    assert len(constants) == 16
    for constant, (name, address, kind, scale) in constants.items():
        entries = load_map(
            ROOT / "register_maps" / f"{MAPS[constant.partition('_')[0]]}_modbus.yaml"
        ).registers
        (entry,) = (entry for entry in entries if entry.name == name)
        assert (entry.address, entry.type.upper(), entry.scale) == (address, kind.name, scale), constant
        is_command = constant.endswith(("_SETPOINT", "_START_STOP", "_START_STOP_STANDBY"))
        assert entry.direction == ("write" if is_command else "read")
