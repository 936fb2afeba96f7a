"""Runs a umockdev testbed: a /sys and a udev of its own for all programs that are told of it.

A program by itself, started under umockdev-wrapper: it reads a call a line from its input, as a
JSON list, and prints its result. The library is used without bindings of its own.
"""

import ctypes
import json
import sys
import threading
from typing import Any

_LIBRARY = ctypes.CDLL("libumockdev.so.0")
_GLIB, _GOBJECT = ctypes.CDLL("libglib-2.0.so.0"), ctypes.CDLL("libgobject-2.0.so.0")
_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_ULONG, _SIZE = ctypes.c_ulong, ctypes.c_size_t
_HANDLE = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _POINTER)
for _library, _name, _result, *_arguments in (
    (_LIBRARY, "umockdev_testbed_new", _POINTER),
    (_LIBRARY, "umockdev_testbed_get_root_dir", _TEXT, _POINTER),
    (_LIBRARY, "umockdev_testbed_add_devicev", _TEXT, _POINTER, _TEXT, _TEXT, _TEXT, _POINTER, _POINTER),
    (_LIBRARY, "umockdev_testbed_set_attribute_link", None, _POINTER, _TEXT, _TEXT, _TEXT),
    (_LIBRARY, "umockdev_testbed_uevent", None, _POINTER, _TEXT, _TEXT),
    (_LIBRARY, "umockdev_testbed_remove_device", None, _POINTER, _TEXT),
    (_LIBRARY, "umockdev_testbed_attach_ioctl", _INT, _POINTER, _TEXT, _POINTER, _POINTER),
    (_LIBRARY, "umockdev_ioctl_base_new", _POINTER),
    (_LIBRARY, "umockdev_ioctl_client_get_request", _ULONG, _POINTER),
    (_LIBRARY, "umockdev_ioctl_client_get_arg", _POINTER, _POINTER),
    (_LIBRARY, "umockdev_ioctl_client_complete", None, _POINTER, ctypes.c_long, _INT),
    (_LIBRARY, "umockdev_ioctl_data_resolve", _POINTER, _POINTER, _SIZE, _SIZE, _POINTER),
    (_LIBRARY, "umockdev_ioctl_data_retrieve", None, _POINTER, _POINTER, _POINTER),
    (_LIBRARY, "umockdev_ioctl_data_update", None, _POINTER, _SIZE, _TEXT, _INT),
    (_GOBJECT, "g_signal_connect_data", _ULONG, _POINTER, _TEXT, _HANDLE, _POINTER, _POINTER, _INT),
    (_GLIB, "g_main_loop_new", _POINTER, _POINTER, _INT),
    (_GLIB, "g_main_loop_run", None, _POINTER),
):
    _function = getattr(_library, _name)
    _function.restype, _function.argtypes = _result, _arguments
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


# What a driver keeps for a port, by the ioctl that reads it; the one that writes it is the next number.
_TIOCGSERIAL, _TIOCGRS485 = 0x541E, 0x542E
_SETTINGS = {_TIOCGSERIAL: 72, _TIOCGRS485: 32}
_WRITES = {_TIOCGSERIAL + 1: _TIOCGSERIAL, _TIOCGRS485 + 1: _TIOCGRS485}
_ENOTTY = 25
_kept: dict[str, dict[int, bytes]] = {}
_callbacks: list[Any] = []


def give_settings(node: str) -> None:
    """Let the driver of a port have the settings of a UART: low latency and RS-485."""
    kept = _kept.setdefault(node, {number: bytes(size) for number, size in _SETTINGS.items()})

    def handle(_handler: int, client: int, _data: int) -> int:
        request = _LIBRARY.umockdev_ioctl_client_get_request(client)
        number = _WRITES.get(request, request)
        if number not in kept:
            _LIBRARY.umockdev_ioctl_client_complete(client, -1, _ENOTTY)
            return 1
        size = _SETTINGS[number]
        argument = _LIBRARY.umockdev_ioctl_client_get_arg(client)
        memory = _LIBRARY.umockdev_ioctl_data_resolve(argument, 0, size, None)
        if request in _WRITES:
            data, length = ctypes.POINTER(ctypes.c_ubyte)(), ctypes.c_int()
            _LIBRARY.umockdev_ioctl_data_retrieve(memory, ctypes.byref(data), ctypes.byref(length))
            kept[number] = bytes(data[: length.value])
        else:
            _LIBRARY.umockdev_ioctl_data_update(memory, 0, kept[number], size)
        _LIBRARY.umockdev_ioctl_client_complete(client, 0, 0)
        return 1

    handler = _LIBRARY.umockdev_ioctl_base_new()
    callback = _HANDLE(handle)
    _callbacks.append(callback)  # else it would be freed while in use
    _GOBJECT.g_signal_connect_data(handler, b"handle-ioctl", callback, None, None, 0)
    _LIBRARY.umockdev_testbed_attach_ioctl(_BED, node.encode(), handler, None)


def settings(node: str) -> dict[str, list[int]]:
    """Return what the driver of a port was set to, in words of 32 bits."""
    names = {_TIOCGSERIAL: "serial", _TIOCGRS485: "rs485"}
    return {names[number]: list(memoryview(kept).cast("I")) for number, kept in _kept[node].items()}


def _pairs(table: dict[str, str]) -> Any:
    words = [word.encode() for item in table.items() for word in item]
    return (_TEXT * (len(words) + 1))(*words, None)


_CALLS = (root, add, link, uevent, remove, give_settings, settings)

if __name__ == "__main__":
    calls = {function.__name__: function for function in _CALLS}
    loop = _GLIB.g_main_loop_new(None, 0)
    threading.Thread(target=_GLIB.g_main_loop_run, args=(loop,), daemon=True).start()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(calls[name](*arguments)), flush=True)
