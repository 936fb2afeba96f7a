"""The bench as an appliance: a box without keyboard that is set up from files on its card or over SSH."""
