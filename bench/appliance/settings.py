"""The box's own settings, bench.yaml: name, network, who may log in, time, metrics."""

import base64
import binascii
import re
import zoneinfo
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from dertwin.config_errors import ConfigError, ConfigErrors, show, validation_errors
from dertwin.documents import read_document
from dertwin.schema import FrozenModel

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def _host_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{show(name)} is not allowed; use up to 63 letters, digits and hyphens")
    return name


def _address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError(f"{show(text)} is not allowed; use an IP address such as 192.168.1.1") from None
    return text


def _host(text: str) -> str:
    labels = text.rstrip(".").split(".")
    if len(text) <= 253 and all(_NAME.fullmatch(label) for label in labels):
        return text
    try:
        return _address(text)
    except ValueError:
        raise ValueError(f"{show(text)} is not allowed; use a host name or an IP address") from None


def _public_key(line: str) -> str:
    if "PRIVATE KEY" in line:
        raise ValueError("is a private key; use the public one, the line in the file that ends in .pub")
    kind, _, rest = line.strip().partition(" ")
    encoded = rest.strip().partition(" ")[0]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        blob = b""
    if kind not in _KEY_TYPES or not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
        raise ValueError(f"{show(line)} is not allowed; use the line in your .pub file: ssh-ed25519 AAAA...")
    if not line.isprintable():
        raise ValueError("has more than one line; give each key an entry of its own")
    return line.strip()


def _secret(text: Any) -> Any:
    # What is shown of a fault goes into the journal: never the secret itself.
    if not isinstance(text, str):
        raise ValueError("is not a text; put it in quotes")
    if not (8 <= len(text) <= 63 and text.isascii() and text.isprintable()):
        raise ValueError("is not allowed; use the 8 to 63 characters of the network's password")
    return text


def _time_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError(f"{show(name)} is not allowed; use a name such as Europe/Berlin or UTC") from None
    return name


Address = Annotated[str, AfterValidator(_address)]


class FixedNetwork(FrozenModel):
    """An address of the box with its prefix length, e.g. 192.168.1.50/24, and who to ask for the rest."""

    address: str
    gateway: Address | None = None
    dns: list[Address] = []  # noqa: RUF012 - pydantic copies it

    @field_validator("address")
    @classmethod
    def _can_be_ours(cls, text: str) -> str:
        try:
            ours = ip_interface(text)
        except ValueError:
            ours = ip_interface("0.0.0.0/0")
        network = ours.network
        wide = network.num_addresses > 2
        if (
            "/" not in text
            or ours.is_multicast
            or ours.is_loopback
            or ours.is_unspecified
            or (wide and ours.ip in (network.network_address, network.broadcast_address))
        ):
            example = "192.168.1.50/24"
            raise ValueError(f"{show(text)} is not allowed; use an address and its prefix length: {example}")
        return text

    @field_validator("gateway")
    @classmethod
    def _is_near(cls, gateway: str | None, info: ValidationInfo) -> str | None:
        address = info.data.get("address")
        if gateway and address and ip_address(gateway) not in (near := ip_interface(address).network):
            raise ValueError(f"{show(gateway)} is not allowed; use an address in {near}")
        return gateway


Network = Annotated[
    Annotated[Literal["dhcp"], Tag("dhcp")] | Annotated[FixedNetwork, Tag("fixed")],
    Discriminator(lambda network: "fixed" if isinstance(network, dict | FixedNetwork) else "dhcp"),
]


class Wifi(FrozenModel):
    """A wireless network (WPA2) and the country whose rules for radio apply."""

    ssid: str = Field(min_length=1)
    psk: Annotated[str, BeforeValidator(_secret)]
    country: str

    @field_validator("ssid")
    @classmethod
    def _fits(cls, ssid: str) -> str:
        if len(ssid.encode()) > 32:  # IEEE 802.11, 9.4.2.2
            raise ValueError(
                f"{show(ssid)} is not allowed; use up to 32 bytes: letters with accents take two"
            )
        return ssid

    @field_validator("country")
    @classmethod
    def _two_letters(cls, country: str) -> str:
        if not re.fullmatch(r"[A-Z]{2}", country):
            raise ValueError(f"{show(country)} is not allowed; use the two letters of your country, e.g. DE")
        return country


class Metrics(FrozenModel):
    """Where metrics and status are served; `web_config` is a file beside bench.yaml (TLS, users)."""

    address: Address = "127.0.0.1"
    port: int = Field(default=9555, ge=1, le=65535)
    web_config: str | None = Field(default=None, min_length=1)

    @property
    def public(self) -> bool:
        """Tell whether others than the box itself may ask."""
        return not ip_address(self.address).is_loopback


class BenchConfig(FrozenModel):
    """All settings of a box; each has a default with which it works.

    Without a `hostname` the box gets a name of its own, dertwin- and four characters.
    """

    hostname: Annotated[str, AfterValidator(_host_name)] | None = None
    timezone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    network: Network = "dhcp"
    wifi: Wifi | None = None
    ssh_keys: list[Annotated[str, AfterValidator(_public_key)]] = []  # noqa: RUF012
    time_servers: list[Annotated[str, AfterValidator(_host)]] = []  # noqa: RUF012
    metrics: Metrics = Metrics()

    @field_validator("network", mode="before")
    @classmethod
    def _say_what_a_network_is(cls, network: Any) -> Any:
        if network != "dhcp" and not isinstance(network, dict | FixedNetwork):
            raise ValueError(f"{show(network)} is not allowed; use dhcp, or address, gateway and dns")
        return network


class Settings(NamedTuple):
    """What of the settings is usable, and what was left out because it is not."""

    config: BenchConfig
    errors: Sequence[ConfigError]


def read_settings(path: Path) -> Settings:
    """Read bench.yaml and leave out what is bad: no mistake in it must make the box unreachable.

    A bad entry of a list, or a bad key that is optional, goes alone; one that is needed goes with all
    that needs it. Without the file everything has its default.
    """
    if not path.exists():
        return Settings(BenchConfig(), ())
    try:
        document, errors = read_document(path)
    except ConfigErrors as found:
        return Settings(BenchConfig(), found.errors)
    document = {} if document is None else document
    first = True
    while True:
        try:
            config = BenchConfig.model_validate(document)
            if any(error.place.startswith("metrics") for error in errors):
                # An address for all to ask, without the users that were meant to be asked for, is worse.
                config = config.model_copy(update={"metrics": Metrics()})
            return Settings(config, errors)
        except ValidationError as error:
            if first:  # what is found later only follows from what was left out
                errors += validation_errors(error, BenchConfig, document, str(path))
            first = False
            document = _without(document, [fault["loc"] for fault in error.errors(include_url=False)])


def _without(document: Any, faults: Iterable[Sequence[int | str]]) -> Any:
    """Return a document without its faults; what lacks a key goes as a whole."""
    places = {_place_in(document, fault) for fault in faults}
    if () in places:
        return {}
    # From the back, so that the places in a list stay what they are until their turn.
    for place in sorted(places, key=lambda place: [(isinstance(part, str), part) for part in place])[::-1]:
        if any(place[:length] in places for length in range(1, len(place))):
            continue
        owner = document
        for part in place[:-1]:
            owner = owner[part]
        del owner[place[-1]]
    return document


def _place_in(document: Any, fault: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return where in a document a fault is, without the names of models that pydantic tells too."""
    place = []
    for part in fault:
        known = document if isinstance(document, dict) else range(len(document))
        if part in known:
            place.append(part)
            document = document[part]
        if not isinstance(document, dict | list):
            break
    return tuple(place)
