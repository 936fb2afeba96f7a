"""Cycle two batteries, start the CHP, watch PV and meter; for configs/full_site_config.json."""

import ems

BESS_1_POWER_W, BESS_2_POWER_W = 30_000, 20_000
CHP_POWER_PERCENT = 80.0

# chp_modbus.yaml; power positive = generation
CHP_STATE = ems.Register("unit_state", 0)
CHP_POWER = ems.Register("active_power", 4, ems.INT32)
CHP_START_STOP = ems.Register("start_stop", 1000)
CHP_POWER_SETPOINT = ems.Register("power_setpoint", 1001, scale=0.1)
CHP_STATE_NAMES = {
    0: "fault",
    1: "ready",
    2: "starting",
    3: "idle",
    4: "synchronizing",
    5: "running",
    6: "stopping",
    7: "start blocked",
    18: "warm-up",
}
CHP_START, CHP_STOP = 1, 0


class Chp:
    """A CHP that is started and brought to a power setpoint."""

    def __init__(self, name: str, device: ems.Device, power_percent: float) -> None:
        self.name = name
        self._device = device
        self._power_percent = power_percent
        self._state = ""

    def turn(self) -> str:
        state = CHP_STATE_NAMES.get(int(self._device.read(CHP_STATE)), "?")
        if self._state not in ("", state):
            ems.show(self.name, f"unit_state: {self._state} -> {state}")
        self._state = state
        self._device.write(CHP_POWER_SETPOINT, self._power_percent)
        self._device.write(CHP_START_STOP, CHP_START)
        power_kw = self._device.read(CHP_POWER) / 1000
        return f"{state:<13} P {power_kw:+8.2f} kW  setpoint {self._power_percent:g} %"

    def stop(self) -> None:
        self._device.write(CHP_START_STOP, CHP_STOP)


def main() -> None:
    """Run the EMS."""
    parser = ems.arguments(__doc__)
    for name, port in (("bess-1", 55001), ("bess-2", 55002), ("pv", 55003), ("chp", 55004), ("meter", 55005)):
        parser.add_argument(
            f"--{name}", type=int, default=port, metavar="PORT", help="Modbus TCP port (default %(default)s)"
        )
    options = parser.parse_args()
    host = options.host
    units: list[ems.Unit] = [
        ems.Battery("bess-1", ems.tcp_device(host, options.bess_1), BESS_1_POWER_W),
        ems.Battery("bess-2", ems.tcp_device(host, options.bess_2), BESS_2_POWER_W),
        ems.PvInverter("pv-1", ems.tcp_device(host, options.pv)),
        Chp("chp-1", ems.tcp_device(host, options.chp), CHP_POWER_PERCENT),
        ems.Meter("meter-1", ems.tcp_device(host, options.meter)),
    ]
    ems.run(units, options.seconds)


if __name__ == "__main__":
    main()
