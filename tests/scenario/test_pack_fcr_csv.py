"""The TSO's CSV of an FCR test: name, columns and format."""

import csv
import io
import math
from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError
from support.responses import delayed, droop, frequency_of, run

from dertwin.scenario.packs.fcr_csv import Sheet, csv_text, file_name
from dertwin.scenario.record import Record

FCR_D = {"devices": ["bess-1"], "direction": "up", "capacity_w": 80e3}
SHEET: dict[str, Any] = {
    "resource": "FCPG1",
    "service": "FcrdUp",
    "test_type": "2.1",
    "area": "SE3",
    "control_mode": "FCRDUP4",
    "devices": ["bess-1"],
    "capacity_w": 80e3,
    "min_w": -100e3,
    "max_w": 100e3,
    "soc": "bess-1.soc",
}
BEGAN = datetime(2026, 3, 30, 9, 59, 30)


@pytest.fixture(scope="module")
def record() -> Record:
    power = delayed(droop(frequency_of("fcr_d", FCR_D), 49.9, 49.5), 1.0, 80e3)
    powers = {"bess-1.active_power_w": power, "bess-1.soc": lambda _: 0.4809}
    return run("fcr_d", FCR_D, powers, start_s=20.0)


def test_the_name_is_that_of_the_test_program(record: Record) -> None:
    name = file_name(Sheet(**SHEET), record, 20.0, 1050.0, BEGAN)
    assert name == "FCPG1_FcrdUp_2.1_SE3_UTC_20260330T0959-20260330T1017_100ms.csv"


@pytest.mark.parametrize(("dt_s", "rate"), [(0.05, "50ms"), (0.2, "200ms"), (1.0, "1s")])
def test_the_sampling_rate_is_in_milliseconds_below_a_second(dt_s: float, rate: str) -> None:
    sampled = run("fcr_d", FCR_D, {"bess-1.active_power_w": lambda _: 0.0}, dt_s, until_s=60.0)
    name = file_name(Sheet(**SHEET), sampled, 0.0, 60.0, BEGAN)
    assert name.endswith(f"_20260330T0959-20260330T1000_{rate}.csv")


def test_the_text_has_the_columns_and_the_format_of_the_test_program(record: Record) -> None:
    text = csv_text(Sheet(**SHEET), record, 20.0, 1050.0, BEGAN)
    assert text.isascii()
    assert text.count("\r\n") == text.count("\n") == 10502
    header, *lines = text.split("\r\n")
    assert header == (
        "DateTime,InsAcPow,GridFreq,ApplFreqSig,ContMode_FcrdUp,Cap_FcrdUp,ContStatus_FcrdUp,Pmin,Pmax,"
        "CalcBaseline,ContSetP,ResSize_FcrdUp,NEM_MW_FcrdUp,NEM_FcrdUp,AEM_FcrdUp,SOC"
    )
    constant = "FCRDUP4,0.080000,1,-0.100000,0.100000,0.000000,0.000000,,,,,48.090"
    assert lines[0] == f"20260330T095930.000,0.000000,49.9000,49.9000,{constant}"
    # 2 s into ramp 1; the response is that of 1 s ago: 0.14 of 0.4 Hz.
    assert lines[320] == f"20260330T100002.000,0.028000,49.6200,49.6200,{constant}"
    assert lines[-2].startswith("20260330T101700.000,")


def test_what_is_no_number_or_was_not_recorded_is_blank(record: Record) -> None:
    broken = Record(["site.frequency_hz", "bess-1.active_power_w"])
    for index, power_w in enumerate((1e3, math.nan, 2e3)):
        broken.times.append(index * 0.1)
        broken.columns["site.frequency_hz"].append(50.0)
        broken.columns["bess-1.active_power_w"].append(power_w)
    rows = list(csv.DictReader(io.StringIO(csv_text(Sheet(**SHEET), broken, 0.0, 1.0, BEGAN))))
    assert [row["InsAcPow"] for row in rows] == ["0.001000", "", "0.002000"]
    assert {row["SOC"] for row in rows} == {""}
    assert csv_text(Sheet(**SHEET), Record([]), 0.0, 1.0, BEGAN).count("\r\n") == 1


def test_a_part_of_the_name_with_an_underscore_is_refused() -> None:
    with pytest.raises(ValidationError, match="resource"):
        Sheet(**SHEET | {"resource": "FCPG_1"})
