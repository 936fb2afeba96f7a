"""Checks a site config together with its register maps; the only place that joins maps and devices."""

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import dertwin
from dertwin.bindings import Binding, TcpBinding
from dertwin.config import Asset, SiteConfig, SiteReading, asset_ids, read_site
from dertwin.config_errors import ConfigError, ConfigErrors, show, use
from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import Device
from dertwin.registers.layout import Layout, bind, unknown_names
from dertwin.registers.map import MapErrors, RegisterMap, load_map

# The type of asset that is meant by what a map calls its `device_type`, if that is one at all.
_MAP_TYPES: Mapping[str, str] = {
    name: kind
    for model in get_args(get_args(Asset)[0])
    for kind in get_args(model.model_fields["type"].annotation)
    for name in (kind, model.default_map.removesuffix("_modbus.yaml"))
}


class CheckedSite(NamedTuple):
    """A config that can be served; `layouts` has one for each binding, in order, of each asset_id.

    `maps` has the register maps likewise; `map_roots` are the folders in which they were looked for.
    """

    config: SiteConfig
    layouts: Mapping[str, Sequence[Layout]]
    maps: Mapping[str, Sequence[RegisterMap]]
    map_roots: Sequence[Path]


class Bound(NamedTuple):
    """A register map, and how it is bound to a device."""

    map: RegisterMap
    layout: Layout


def check_site(source: Path | str | Mapping[str, Any], *, served_here: bool = True) -> CheckedSite:
    """Read a site config, or take a mapping of the same form, and bind its maps to its devices.

    Paths in a mapping are relative to the working directory. Unless `served_here`, addresses need not be
    those of this machine, or not yet. Raises ConfigErrors with all faults.
    """
    site = read_site(source)
    errors = list(site.errors)
    roots, root_errors = _map_roots(site)
    errors += root_errors
    bound: list[list[Bound]] = []
    maps = MapFolders(roots, site.file)
    told: set[ConfigError] = set()
    for part in site.parts.values():
        device = part.asset.build()
        bound.append([])
        for place, binding in part.bindings.items():
            if served_here and isinstance(binding, TcpBinding) and not _is_ours(binding.ip):
                problem = f"{show(binding.ip)} is not an address of this machine; use 0.0.0.0 for all it has"
                errors.append(ConfigError(site.file, f"{place}.ip", problem))
            if root_errors:
                continue
            try:
                bound[-1].append(maps.bound(part.asset, device, binding, place))
            except MapErrors as found:
                errors += [_used_by(place, error) for error in found.errors if error not in told]
                told.update(found.errors)
            except ConfigErrors as found:
                errors += found.errors
    if site.config is None or errors:
        raise ConfigErrors(errors)
    named = list(zip(asset_ids(site.config.assets), bound, strict=True))
    return CheckedSite(
        site.config,
        {name: [each.layout for each in bindings] for name, bindings in named},
        {name: [each.map for each in bindings] for name, bindings in named},
        roots,
    )


def check_asset(asset: Any, map_roots: Sequence[Path]) -> list[Layout]:
    """Bind the maps of one asset, for one that is added at run time. Raises ConfigErrors."""
    maps, device = MapFolders(map_roots, ""), asset.build()
    return [maps.bound(asset, device, b, f"protocols[{i}]").layout for i, b in enumerate(asset.protocols)]


def shipped_maps() -> Path:
    """Return the folder of the shipped register maps: in the installed package, or in the repository."""
    package = Path(dertwin.__file__).parent
    installed = package / "register_maps"
    return installed if installed.is_dir() else package.parent / "register_maps"


class MapFolders:
    """The register maps of a site; equal devices with the same map share one layout."""

    def __init__(self, roots: Sequence[Path], site_file: str) -> None:
        """Look for maps in each root in turn; errors that are not a map's own are those of `site_file`."""
        self._roots = roots
        self._site_file = site_file
        self._maps: dict[Path, RegisterMap] = {}
        self._layouts: dict[tuple[object, ...], Layout] = {}

    def bound(self, asset: Asset, device: Device, binding: Binding, place: str) -> Bound:
        """Bind the map of a binding, which is at `place` in the site config. Raises ConfigErrors."""
        file = self.file(binding.register_map or asset.default_map, f"{place}.register_map")
        key = (file, asset.type, *device.commands.items())
        if key not in self._layouts:
            self._layouts[key] = self._layout(file, asset, device)
        return Bound(self._maps[file], self._layouts[key])

    def _layout(self, file: Path, asset: Asset, device: Device) -> Layout:
        known = device.measurements._fields, device.commands, CLASSIC.get(asset.type, {})
        errors: list[ConfigError] = []
        try:
            if file not in self._maps:
                self._maps[file] = load_map(file)
            sound = self._maps[file].sound()
        except MapErrors as found:
            errors, sound = list(found.errors), found.sound
        unknown = list(unknown_names(sound, str(file), *known))
        if unknown and _MAP_TYPES.get(sound.device_type, asset.type) != asset.type:
            problem = f"{show(sound.device_type)} is not allowed for an asset of type {asset.type}"
            remedy = f"use a map of that type, such as {asset.default_map}"
            unknown = [ConfigError(str(file), "device_type", f"{problem}; {remedy}")]
        if errors or unknown:
            raise MapErrors([*errors, *unknown])
        return bind(self._maps[file], *known)

    def file(self, name: str, place: str) -> Path:
        """Return where the map of this name is; `place` is where the config names it. Raises ConfigErrors."""
        inside = [path for root in self._roots if (path := _inside(root, name))]
        for path in inside:
            if path.is_file():
                return path
        if inside:
            files = [file for root in self._roots for file in root.glob("*.y*ml")]
            maps = sorted({file.name for file in files if str(file) != self._site_file})
            problem = f"{show(name)} is not a file in {self._roots[0]}, and not shipped; {use(maps, name)}"
        else:
            problem = f"{show(name)} is not allowed; use a file inside {self._roots[0]}"
        raise ConfigErrors([ConfigError(self._site_file, place, problem)])


def _inside(root: Path, name: str) -> Path | None:
    """Return the path that a map's name means below a root; None if it leads out of it."""
    path = Path(os.path.normpath(root / name))
    return path if path.absolute().is_relative_to(os.path.abspath(root)) else None


def _map_roots(site: SiteReading) -> tuple[Sequence[Path], list[ConfigError]]:
    name = site.document.get("register_map_root") if isinstance(site.document, Mapping) else None
    if not (isinstance(name, str) and name):
        return (site.folder, shipped_maps()), []
    for root in (site.folder / name, Path(name)):
        if root.is_dir():
            return (root, shipped_maps()), []
    message = f"{show(name)} is not a folder; use one beside the config file or in the working directory"
    return (), [ConfigError(site.file, "register_map_root", message)]


def _is_ours(ip: str) -> bool:
    """Tell whether an address can be listened on here, without listening: no port is opened."""
    family, kind, protocol, _, address = socket.getaddrinfo(ip, 0, type=socket.SOCK_DGRAM)[0]
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def _used_by(place: str, error: ConfigError) -> ConfigError:
    return error._replace(message=f"{error.message} (used by {place})")
