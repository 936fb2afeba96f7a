"""Pure functions of physics: SI values in, SI values out."""
