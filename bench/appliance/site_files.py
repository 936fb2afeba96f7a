"""A site config with the files that it names, as one: what is copied, sent and compared."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bench
from bench.files import sync_folder, write_through
from dertwin.config_errors import ConfigError, ConfigErrors
from dertwin.documents import read_document

CONFIGS = ("site.json", "site.yaml", "site.yml")

SiteFiles = Mapping[str, bytes]
"""Contents by name, relative to the config; the config itself is one of CONFIGS."""


def demo_site() -> Path:
    """Return the site that is served when there is none: in the installed package, or in the repository."""
    package = Path(bench.__file__).parent
    installed = package / "appliance/demo_config.json"
    return installed if installed.is_file() else package.parent / "configs/demo_config.json"


def find_config(folder: Path) -> Path | None:
    """Return the site config in a folder, if there is one. Raises ConfigErrors if it is not clear which."""
    found = [folder / name for name in CONFIGS if (folder / name).is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ConfigErrors([ConfigError(str(folder), "", f"{names} are both there; keep one of them")])
    if not found:
        # Editors on a laptop add endings that its file manager does not show.
        for path in sorted(folder.glob("site.*")):
            message = f"this name is not looked at; use one of {', '.join(CONFIGS)}"
            raise ConfigErrors([ConfigError(str(path), "", message)])
    return found[0] if found else None


def gather(config: Path) -> SiteFiles:
    """Read a site config and each file below its folder that it names. Raises ConfigErrors."""
    document = read_document(config).content
    name = "site.json" if _is_json(config) else "site.yaml"
    files = {name: config.read_bytes()}
    root = document.get("register_map_root") if isinstance(document, dict) else None
    folders = [config.parent, *([config.parent / root] if isinstance(root, str) else [])]
    below = config.parent.resolve()  # a link must not lead to the files of others
    for text in _texts(document):
        for path in (Path(os.path.normpath(folder / text)) for folder in folders):
            with contextlib.suppress(OSError, ValueError):  # most texts are no names of files
                inside = path.is_relative_to(config.parent) and path.resolve().is_relative_to(below)
                if inside and path != config and path.is_file():
                    files[str(path.relative_to(config.parent))] = path.read_bytes()
    return files


def fingerprint(files: SiteFiles) -> str:
    """Return a checksum over names and contents."""
    parts = [(name, hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def store(files: SiteFiles, folder: Path) -> None:
    """Write all files into a folder and wait until the disk has them. Raises OSError."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_through(path, data)
        sync_folder(path.parent)
    sync_folder(folder)


def as_json(files: SiteFiles, config: Path) -> SiteFiles:
    """Return files with the config as `site.json`, in which form the service reads it."""
    others = {name: data for name, data in files.items() if name not in CONFIGS}
    document = files.get("site.json") or json.dumps(read_document(config).content, indent=2).encode()
    return {**others, "site.json": document}


def _is_json(config: Path) -> bool:
    suffix = config.suffix.lower()
    return suffix == ".json" or (suffix not in (".yaml", ".yml") and config.read_bytes().lstrip()[:1] == b"{")


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _texts(value)
    elif isinstance(content, str) and content:
        yield content
