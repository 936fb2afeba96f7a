"""What moves the bytes: TCP sockets, serial ports, virtual pairs."""
