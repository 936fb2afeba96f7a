"""Whatever a record holds, a pack judges it, and never passes what it could not see."""

import math
import random
from collections.abc import Callable

import pytest
from support.exchanges import lost, read, refused, write
from support.packs import WITH

from dertwin.scenario.packs import PACKS
from dertwin.scenario.record import Exchange, Received, Record

Fill = Callable[[random.Random, float], float]
FILLS: dict[str, Fill] = {
    "zeros": lambda _, __: 0.0,
    "no numbers": lambda _, __: math.nan,
    "infinities": lambda dice, _: dice.choice((math.inf, -math.inf)),
    "noise": lambda dice, _: dice.gauss(0.0, 1e5),
    "holes": lambda dice, time_s: math.nan if dice.random() < 0.01 else time_s,
    "huge": lambda dice, _: dice.choice((-1e300, 1e300)),
}


def odd_exchanges(dice: random.Random, until_s: float) -> list[Exchange]:
    exchanges = []
    for _ in range(200):
        at_s, device = dice.uniform(0.0, until_s), dice.choice(("bess-1", "energy_meter-1"))
        exchange = dice.choice((read, write))(at_s, device, dice.choice((10, 12, 1004)))
        cut = exchange._replace(request=exchange.request[: dice.randrange(6)], reply=exchange.reply[:1])
        exchanges.append(dice.choice((exchange, refused(exchange, dice.randrange(12)), lost(exchange), cut)))
    return exchanges


@pytest.mark.parametrize("fill", list(FILLS))
@pytest.mark.parametrize("pack", list(PACKS))
def test_odd_signals_and_requests_fail_and_raise_nothing(pack: str, fill: str) -> None:
    dice = random.Random(f"{pack} {fill}")
    params = PACKS[pack].params.model_validate(WITH[pack])
    plan = PACKS[pack].plan(params)
    record = Record([name for name in plan.signals if dice.random() < 0.9])
    until_s = plan.duration_s * dice.choice((0.5, 1.0, 1.5))
    time_s = 0.0
    while time_s < until_s:
        time_s += dice.expovariate(5.0)
        record.times.append(time_s)
        for column in record.columns.values():
            column.append(FILLS[fill](dice, time_s))
    record.exchanges = odd_exchanges(dice, until_s)
    record.received = [Received(dice.uniform(0.0, until_s), "bess-1", "active_power_setpoint_w", math.nan)]
    requirements = PACKS[pack].judge(params, record, dice.choice((0.0, 3.21, -50.0)))
    assert requirements
    assert not all(requirement.met for requirement in requirements)
    for requirement in requirements:
        assert requirement.source
        assert requirement.detail or not math.isnan(requirement.measured), requirement.name


@pytest.mark.parametrize("pack", list(PACKS))
def test_an_empty_record_and_one_of_a_single_sample_meet_nothing(pack: str) -> None:
    params = PACKS[pack].params.model_validate(WITH[pack])
    single = Record(PACKS[pack].plan(params).signals)
    single.times.append(0.0)
    for column in single.columns.values():
        column.append(50.0)
    for record in (Record([]), Record(PACKS[pack].plan(params).signals), single):
        requirements = PACKS[pack].judge(params, record, 0.0)
        seen_in_one_sample = ("frequency as planned",) if record is single else ()
        assert [r.name for r in requirements if r.met and r.name not in seen_in_one_sample] == []
