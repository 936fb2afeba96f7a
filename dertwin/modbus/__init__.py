"""The Modbus server core: bytes in, bytes out, no I/O."""
