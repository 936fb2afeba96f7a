"""Cycle one battery between 40 and 60 % SOC; for configs/simple_config.json."""

import ems

POWER_W = 20_000


def main() -> None:
    """Run the EMS."""
    parser = ems.arguments(__doc__)
    parser.add_argument(
        "--port", type=int, default=55001, help="Modbus TCP port of the battery (default %(default)s)"
    )
    options = parser.parse_args()
    ems.run([ems.Battery("bess-1", ems.tcp_device(options.host, options.port), POWER_W)], options.seconds)


if __name__ == "__main__":
    main()
