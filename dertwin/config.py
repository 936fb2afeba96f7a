"""Site configs: one document that describes a whole site."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from dertwin.bindings import Binding
from dertwin.config_errors import ConfigError, ConfigErrors, place_of, show, validation_errors
from dertwin.config_links import link_errors
from dertwin.devices.asset import FLAT_BINDING
from dertwin.devices.bess import BessConfig
from dertwin.devices.chp import ChpConfig
from dertwin.devices.meter import EnergyMeterConfig
from dertwin.devices.pv import PvInverterConfig
from dertwin.documents import check_document, read_document
from dertwin.environment import EnvironmentConfig

Asset = Annotated[BessConfig | PvInverterConfig | ChpConfig | EnergyMeterConfig, Field(discriminator="type")]

_ASSET: TypeAdapter[Asset] = TypeAdapter(Asset)
_BINDING: TypeAdapter[Binding] = TypeAdapter(Binding)


class SiteConfig(EnvironmentConfig):
    """A site: its devices, how each is reached, and its surroundings.

    `step` is the simulated time of one step (s); with `real_time` the steps follow the clock, `speed`
    simulated seconds in each real one, otherwise the caller makes each step. Register
    maps are looked for in `register_map_root`, which is relative to the config file or, if it is not
    there, to the working directory; left out, in the config file's folder; and then among the shipped ones.
    With `persist` a service that has a folder for it saves what the devices have become, and goes on
    from there when it is started again.
    """

    site_name: str = Field(default="site", min_length=1)
    step: float = Field(default=0.1, gt=0, le=3600)
    real_time: bool = True
    speed: float = Field(default=1.0, gt=0, le=1000)
    register_map_root: str | None = Field(default=None, min_length=1)
    persist: bool = True
    assets: list[Asset] = Field(min_length=1)

    @model_validator(mode="after")
    def _a_step_ends_within_each_event(self) -> Self:
        # An event that lies between the ends of two steps would never be seen.
        message = "{duration} is not allowed; use at least the `step` of the site, {step}"
        short = [
            InitErrorDetails(
                type=PydanticCustomError(
                    "too_short_an_event", message, {"duration": event.duration, "step": self.step}
                ),
                loc=("events", index, event.kind, "duration"),  # as pydantic itself would say it
                input=event.duration,
            )
            for index, event in enumerate(self.events)
            if event.duration < self.step
        ]
        if short:
            raise ValidationError.from_exception_data("SiteConfig", short)
        return self


class SoundPart(NamedTuple):
    """What of an asset can be looked at in spite of its faults: its sound bindings by their places.

    If it has faults, `asset` is another one of its type and name.
    """

    asset: Asset
    bindings: Mapping[str, Binding]


class SiteReading(NamedTuple):
    """What reading a site config found: all its faults, and what of it is usable in spite of them.

    `file` is empty if it was none; its paths are relative to `folder`. `config` is None if it has faults;
    `parts` are those of the assets whose type is known, by their index in the document.
    """

    file: str
    folder: Path
    document: Any
    config: SiteConfig | None
    parts: Mapping[int, SoundPart]
    errors: Sequence[ConfigError]


def load_site(path: Path | str) -> SiteConfig:
    """Read a site config, JSON or YAML. Raises ConfigErrors with all its faults."""
    reading = read_site(path)
    if reading.config is None:
        raise ConfigErrors(reading.errors)
    return reading.config


def read_site(source: Path | str | Mapping[str, Any]) -> SiteReading:
    """Read a site config, a file or a mapping, and go on to the end, whatever is wrong with it.

    Raises ConfigErrors only if the file is not a document at all.
    """
    if isinstance(source, Mapping):
        file, folder = "", Path()
        document, errors = check_document(dict(source))
    else:
        file, folder = str(source), Path(source).parent
        document, errors = read_document(Path(source))
    context = {"folder": folder}
    config: SiteConfig | None = None
    try:
        config = SiteConfig.model_validate(document, context=context)
    except ValidationError as error:
        errors += validation_errors(error, SiteConfig, document, file)
    parts = dict(_sound_parts(document, context))
    errors += _shared_names(file, {index: part.asset.asset_id for index, part in parts.items()})
    errors += link_errors(
        file, {p: binding for part in parts.values() for p, binding in part.bindings.items()}
    )
    return SiteReading(file, folder, document, None if errors else config, parts, errors)


def parse_asset(document: Mapping[str, Any]) -> Asset:
    """Validate the config of one asset. Raises pydantic.ValidationError."""
    return _ASSET.validate_python(dict(document))


def asset_ids(assets: Sequence[Asset]) -> list[str]:
    """Return the names of assets: their own, or the first free ones of their types, in order."""
    taken = {asset.asset_id for asset in assets if asset.asset_id}
    names = []
    for asset in assets:
        names.append(asset.asset_id or free_id(asset.type, taken))
        taken.add(names[-1])
    return names


def free_id(device_type: str, taken: Container[str]) -> str:
    """Return the first of `{type}-1`, `{type}-2`, ... that is not taken."""
    return next(name for n in count(1) if (name := f"{device_type}-{n}") not in taken)


def site_schema() -> dict[str, Any]:
    """Return the JSON Schema of a site config."""
    schema = SiteConfig.model_json_schema(by_alias=True)
    models = schema["$defs"]
    binding = models["TcpBinding"]["properties"]
    for model in models.values():
        if "protocols" in model.get("properties", {}):
            model["properties"] |= {key: binding[key] for key in FLAT_BINDING}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _sound_parts(document: Any, context: Mapping[str, Any]) -> Iterator[tuple[int, SoundPart]]:
    entries = document.get("assets") if isinstance(document, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        bindings = dict(_sound_bindings(entry, ["assets", index]))
        if asset := _sound_asset(entry, context):
            yield index, SoundPart(asset, bindings)


def _sound_asset(entry: Any, context: Mapping[str, Any]) -> Asset | None:
    """Return an asset; if it has faults, one that has only its type and name, or only its type."""
    kept = (
        [{key: entry[key] for key in ("type", "asset_id") if key in entry}] if isinstance(entry, dict) else []
    )
    for attempt in (entry, *kept, *({"type": part.get("type")} for part in kept)):
        with suppress(ValidationError):
            return _ASSET.validate_python(attempt, context=context)
    return None


def _sound_bindings(entry: Any, place: Sequence[str | int]) -> Iterator[tuple[str, Binding]]:
    """Yield each sound binding of an asset after its place, whichever way it is written."""
    if not isinstance(entry, dict):
        return
    spelled_out = entry.get("protocols")
    if "protocols" in entry:
        written = enumerate(spelled_out) if isinstance(spelled_out, list) else ()
        bindings = [([*place, "protocols", position], binding) for position, binding in written]
    else:
        flat = {key: entry[key] for key in FLAT_BINDING if key in entry}
        bindings = [([*place], {"kind": "modbus_tcp", **flat})] if flat else []
    for where, binding in bindings:
        with suppress(ValidationError):
            yield place_of(where), _BINDING.validate_python(binding)


def _shared_names(file: str, names: Mapping[int, str | None]) -> Iterator[ConfigError]:
    owner: dict[str | None, int] = {}
    for index, name in names.items():
        first = owner.setdefault(name, index)
        if name is not None and first != index:
            message = f"{show(name)} is not allowed; it is the name of assets[{first}]: give each its own"
            yield ConfigError(file, place_of(["assets", index, "asset_id"]), message)
