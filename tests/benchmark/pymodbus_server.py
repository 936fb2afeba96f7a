"""The reference server in Python: pymodbus's asyncio server, ten input registers, unit 1.

usage: pymodbus_server.py tcp PORT | pymodbus_server.py rtu PATH BAUDRATE
"""

import asyncio
import sys

from pymodbus import FramerType
from pymodbus.server import StartAsyncSerialServer, StartAsyncTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


async def main() -> None:
    """Serve until killed."""
    device = SimDevice(1, simdata=[SimData(0, values=0, count=10, datatype=DataType.REGISTERS)])
    match sys.argv[1:]:
        case ["tcp", port]:
            await StartAsyncTcpServer(device, address=("127.0.0.1", int(port)))
        case ["rtu", path, baudrate]:
            await StartAsyncSerialServer(device, framer=FramerType.RTU, port=path, baudrate=int(baudrate))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    asyncio.run(main())
