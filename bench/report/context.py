"""What a report says about a run besides what came of it."""

from datetime import datetime
from typing import NamedTuple

from dertwin.config import SiteConfig
from dertwin.scenario.document import LoadedScenario


class Context(NamedTuple):
    """How a scenario was run: on which site, with which EMS, from when, and how long it took (s).

    `ems` is empty if it was attached from outside; `started_at` knows its time zone.
    """

    scenario: LoadedScenario
    config_file: str
    config: SiteConfig
    ems: str
    started_at: datetime
    took_s: float
