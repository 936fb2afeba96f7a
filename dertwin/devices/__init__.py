"""One file a device type: its Config, State, Measurements and step."""
