"""Verdict packs: requirements of grid operators and markets, and of good manners, as data and arithmetic."""

from collections.abc import Mapping

from dertwin.scenario.pack import Pack

PACKS: Mapping[str, Pack] = {}
"""All verdict packs by the name that a scenario calls them."""
