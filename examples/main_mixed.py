"""Cycle a battery on Modbus TCP, watch PV and meter on serial lines; for configs/mixed_protocol_config.json.

Without the serial ports it goes on with the battery alone.
"""

import ems

POWER_W = 30_000


def main() -> None:
    """Run the EMS."""
    parser = ems.arguments(__doc__)
    parser.add_argument(
        "--port", type=int, default=55001, help="Modbus TCP port of the battery (default %(default)s)"
    )
    parser.add_argument(
        "--pv", default="/tmp/dertwin_pv_client", help="serial port of the PV inverter (default %(default)s)"
    )
    parser.add_argument(
        "--meter", default="/tmp/dertwin_meter_client", help="serial port of the meter (default %(default)s)"
    )
    options = parser.parse_args()
    units: list[ems.Unit] = [
        ems.Battery("bess-1", ems.tcp_device(options.host, options.port), POWER_W),
        ems.PvInverter("pv-1", ems.serial_device(options.pv)),
        ems.Meter("meter-1", ems.serial_device(options.meter)),
    ]
    ems.run(units, options.seconds)


if __name__ == "__main__":
    main()
