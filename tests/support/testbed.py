"""Runs a umockdev testbed: a /sys and a udev of its own for all programs that are told of it.

A program by itself, started under umockdev-wrapper: it reads a call a line from its input, as a
JSON list, and prints its result. The library is used without bindings of its own.
"""

import ctypes
import json
import sys
from typing import Any

_LIBRARY = ctypes.CDLL("libumockdev.so.0")
_POINTER, _TEXT = ctypes.c_void_p, ctypes.c_char_p
_LIBRARY.umockdev_testbed_new.restype = _POINTER
_LIBRARY.umockdev_testbed_get_root_dir.argtypes = [_POINTER]
_LIBRARY.umockdev_testbed_get_root_dir.restype = _TEXT
_LIBRARY.umockdev_testbed_add_devicev.restype = _TEXT
_LIBRARY.umockdev_testbed_add_devicev.argtypes = [
    _POINTER, _TEXT, _TEXT, _TEXT, ctypes.POINTER(_TEXT), ctypes.POINTER(_TEXT),
]  # fmt: skip
_LIBRARY.umockdev_testbed_set_attribute_link.argtypes = [_POINTER, _TEXT, _TEXT, _TEXT]
_LIBRARY.umockdev_testbed_uevent.argtypes = [_POINTER, _TEXT, _TEXT]
_LIBRARY.umockdev_testbed_remove_device.argtypes = [_POINTER, _TEXT]
_BED = _LIBRARY.umockdev_testbed_new()


def root() -> str:
    folder: bytes = _LIBRARY.umockdev_testbed_get_root_dir(_BED)
    return folder.decode()


def add(
    subsystem: str, name: str, parent: str | None, attributes: dict[str, str], properties: dict[str, str]
) -> str:
    """Add a device, which sends its uevent; return its path in /sys."""
    path: bytes = _LIBRARY.umockdev_testbed_add_devicev(
        _BED,
        subsystem.encode(),
        name.encode(),
        parent and parent.encode(),
        *map(_pairs, (attributes, properties)),
    )
    return path.decode()


def link(path: str, attribute: str, target: str) -> None:
    """Make an attribute of a device that is a symbolic link."""
    _LIBRARY.umockdev_testbed_set_attribute_link(_BED, path.encode(), attribute.encode(), target.encode())


def uevent(path: str, action: str) -> None:
    _LIBRARY.umockdev_testbed_uevent(_BED, path.encode(), action.encode())


def remove(path: str) -> None:
    """Send the uevent of a device without children that goes, and take it away."""
    uevent(path, "remove")
    _LIBRARY.umockdev_testbed_remove_device(_BED, path.encode())


def _pairs(table: dict[str, str]) -> Any:
    words = [word.encode() for item in table.items() for word in item]
    return (_TEXT * (len(words) + 1))(*words, None)


if __name__ == "__main__":
    calls = {function.__name__: function for function in (root, add, link, uevent, remove)}
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(calls[name](*arguments)), flush=True)
