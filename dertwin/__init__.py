"""The twin: a deterministic simulation of a site of distributed energy resources."""

__version__ = "0.2.0"
