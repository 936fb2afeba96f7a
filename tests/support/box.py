"""An appliance in a folder: a card, a data partition and a root file system, all empty."""

import json
from pathlib import Path
from typing import Any

import yaml

from bench.appliance.places import Places
from bench.appliance.setup import set_up

NAME = "lab-1"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1bGs= someone@laptop"
BATTERY = {"type": "bess", "protocols": [{"kind": "modbus_tcp", "port": 502}]}


def make_box(folder: Path) -> Places:
    """Return the places of a box that has never been set up."""
    places = Places(folder / "card", folder / "data", folder / "root")
    for path in (places.user_files, places.data, places.root):
        path.mkdir(parents=True)
    return places


def configure(places: Places, **settings: Any) -> None:
    """Write bench.yaml."""
    places.settings.write_text(yaml.safe_dump({"hostname": NAME, **settings}))


def put_on_card(places: Places, site: Any, name: str = "site.json") -> None:
    """Write a site config on the card, as a laptop does."""
    (places.user_files / name).write_text(json.dumps(site))


def site(name: str, *assets: Any) -> dict[str, Any]:
    """Return the config of a site, of one battery on port 502 if nothing else is said."""
    return {"site_name": name, "assets": assets or [BATTERY]}


def options(places: Places) -> list[str]:
    """Return what tells the command about the box."""
    return ["--card", str(places.card), "--data", str(places.data), "--root", str(places.root)]


def boot(places: Places) -> str:
    """Boot the box, as far as it is set-up; return what status.txt says."""
    assert set_up(places) == 0
    return (places.user_files / "status.txt").read_text()


def served(places: Places) -> dict[str, Any]:
    """Return the site config that the service reads."""
    document: dict[str, Any] = json.loads((places.served / "site.json").read_text())
    return document
