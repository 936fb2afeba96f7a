"""The twin: a deterministic simulation of a site of distributed energy resources."""
