"""Verdict packs: requirements of grid operators and markets, and of good manners, as data and arithmetic."""

from collections.abc import Mapping

from dertwin.scenario.pack import Pack, no_files
from dertwin.scenario.packs import comm_loss, fcr_d, fcr_n, ffr, latency, lfsm, manners, power_limit

PACKS: Mapping[str, Pack] = {
    name: Pack(
        pack.FIGURES.title,
        pack.FIGURES.edition,
        pack.Params,
        pack.plan,
        pack.judge,
        getattr(pack, "files", no_files),
    )
    for name, pack in {
        "fcr_d": fcr_d,
        "fcr_n": fcr_n,
        "ffr": ffr,
        "lfsm": lfsm,
        "comm_loss": comm_loss,
        "power_limit": power_limit,
        "manners": manners,
        "latency": latency,
    }.items()
}
"""All verdict packs by the name that a scenario calls them."""
