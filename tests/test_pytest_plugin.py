"""The pytest plugin, as a user's test suite has it: installed, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

SITE = """
SITE = {
    "site_name": "yard",
    "step": 0.1,
    "assets": [
        {"type": "bess", "port": 502},
        {"type": "energy_meter", "protocols": [{"kind": "modbus_rtu", "port": "usb:FT4XYZ12", "unit_id": 7}]},
    ],
}
"""
STEPPED = """
import pytest

def ems(plant):
    plant.write("bess-1", "start_stop_standby", 1)
    while True:
        plant.write("bess-1", "active_power_setpoint", plant.read("energy_meter-1", "active_power"))
        yield 1.0

def test_time_passes_when_the_test_says_so(dertwin):
    site = dertwin.stepped(SITE)
    site.write("bess-1", "start_stop_standby", 1)
    site.write("bess-1", "active_power_setpoint", 4000)
    assert site.wait_for("bess-1.active_power_w == 4000", within=1) == pytest.approx(0.1)
    before = site.value("bess-1.soc")
    site.advance(3600)
    assert site.value("bess-1.soc") < before - 0.03
    assert [each.value for each in site.received("bess-1", "active_power_setpoint_w")] == [4000]

def test_things_go_wrong_and_well_again(dertwin):
    site = dertwin.stepped(SITE)
    site.inject({"device_fault": "offset", "device": "energy_meter-1", "measurement": "frequency_hz",
                 "by": -1, "duration": 60})
    site.advance(0.2)
    assert site.read("energy_meter-1", "frequency") == pytest.approx(49)
    site.inject({"environment": "frequency_hz", "step": 51})
    site.inject({"write": {"bess-1.start_stop_standby": 1}})
    site.advance(0.2)
    assert site.read("energy_meter-1", "frequency") == pytest.approx(50)
    assert site.value("bess-1.working_status") == 1
    site.heal()
    site.advance(0.2)
    assert site.read("energy_meter-1", "frequency") == pytest.approx(50)
    with pytest.raises(ValueError, match='device: "bess-9" is not allowed'):
        site.inject({"device_fault": "frozen", "device": "bess-9", "duration": 1})
    with pytest.raises(ValueError, match="fcr_d judges a scenario"):
        site.inject({"verdict": "fcr_d"})

def test_what_does_not_come_is_told(dertwin):
    site = dertwin.stepped(SITE)
    site.read("bess-1", "soc")
    site.wait_for("bess-1.active_power_w > 100", within=2)
"""
SERVED = """
from pymodbus.client import ModbusSerialClient, ModbusTcpClient

def test_an_ems_reaches_the_devices(dertwin):
    site = dertwin.served(SITE)
    host, port = site.address("bess-1")
    with ModbusTcpClient(host, port=port) as battery:
        battery.write_register(1000, 1)
        site.wait_for("bess-1.working_status == 1", within=5)
    with ModbusSerialClient(site.line("energy_meter-1")) as meter:
        unit_id = site.unit_id("energy_meter-1")
        assert meter.read_input_registers(36, count=1, device_id=unit_id).registers == [50000]
    assert site.received("bess-1", "start_stop_standby")[0].value == 1
    site.inject({"environment": "frequency_hz", "step": 49})
    site.wait_for("energy_meter-1.frequency_hz == 49", within=5)
    site.heal()
    site.wait_for("energy_meter-1.frequency_hz == 50", within=5)

def test_what_was_asked_is_told(dertwin):
    site = dertwin.served(SITE)
    host, port = site.address("bess-1")
    with ModbusTcpClient(host, port=port) as battery:
        battery.read_holding_registers(9999, count=1)
    assert site.value("bess-1.soc") > 0.9
"""


def run(folder: Path, tests: str) -> str:
    (folder / "test_ems.py").write_text(SITE + tests)
    # Without what this repository's own configuration has.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_ems.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    return done.stdout + done.stderr


def test_a_stepped_site_is_in_the_hands_of_the_test(tmp_path: Path) -> None:
    report = run(tmp_path, STEPPED)
    assert "1 failed, 2 passed" in report
    assert "bess-1.active_power_w > 100 did not become true within 2 s, it came as close as 100;" in report
    assert "dertwin site yard" in report
    assert "bess-1           04 00 04 00 01 -> 04 02" in report
    assert "bess-1.active_power_w                        0" in report


def test_a_served_site_is_on_free_ports_and_virtual_lines(tmp_path: Path) -> None:
    report = run(tmp_path, SERVED)
    assert "1 failed, 1 passed" in report
    assert "bess-1           03 27 0f 00 01 -> exception 02" in report
