"""The order of checks, the limits of each function, and what a refused request leaves alone."""

import pytest
from device_image import blueprint, device

from dertwin.modbus.errors import ServerDeviceFailure
from dertwin.modbus.pdu import exception_reply, respond
from dertwin.registers.image import RegisterImage

IDENTIFICATION = {0: b"Vendor", 1: b"Product", 2: b"1.0", 4: b"Name"}


def pdu(text: str) -> bytes:
    return bytes.fromhex(text)


# Writable addresses 0..9, read-only ones from 10 on, gaps above; register 0x20 takes 1, 2 or 3 only,
# and 0x30 with 0x31 is one 32-bit setpoint.
new_device = blueprint(
    coils=dict.fromkeys(range(10, 20), 1),
    discrete_inputs=dict.fromkeys(range(2000), 1),
    holding_registers=dict.fromkeys(range(10, 20), 4660),
    input_registers={**{address: address for address in range(125)}, 0xFFFF: 7},
    writable_coils=range(10),
    writable_registers=range(10),
    choices={0x20: (1, 2, 3)},
    pairs=[0x30],
    identification=IDENTIFICATION,
)


@pytest.fixture
def image() -> RegisterImage:
    return new_device()


REFUSED = {
    # Function not offered: 01 comes first, whatever follows.
    "function 7": ("07", "87 01"),
    "function 11": ("0B", "8B 01"),
    "function 17": ("11", "91 01"),
    "function 20": ("14 07 06 00 04 00 01 00 02", "94 01"),
    "function 24": ("18 04 DE", "98 01"),
    "function 65": ("41", "C1 01"),
    "function 127": ("7F 00 00", "FF 01"),
    "function 0": ("00 00 00 00 01", "80 01"),
    "diagnostics other than 0": ("08 00 0A 00 00", "88 01"),
    "diagnostics other than 0 of odd length": ("08 00 0A 00", "88 01"),
    "encapsulated interface other than 14": ("2B 0D 00 00", "AB 01"),
    # Wrong length: 03.
    "read coils, short": ("01 00 00 00", "81 03"),
    "read inputs, long": ("02 00 00 00 01 00", "82 03"),
    "read holding registers, function only": ("03", "83 03"),
    "read input registers, long": ("04 00 00 00 01 00", "84 03"),
    "write coil, short": ("05 00 00 FF", "85 03"),
    "write register, short": ("06 00 00 00", "86 03"),
    "write register, long": ("06 00 00 00 00 00", "86 03"),
    "diagnostics without sub-function": ("08 00", "88 03"),
    "diagnostics without data": ("08 00 00", "88 03"),
    "diagnostics with half a word": ("08 00 00 A5", "88 03"),
    "diagnostics longer than a PDU": ("08 00 00" + "A5" * 252, "88 03"),
    "write coils, function only": ("0F", "8F 03"),
    "write coils, data short": ("0F 00 00 00 0A 02 CD", "8F 03"),
    "write coils, data long": ("0F 00 00 00 0A 02 CD 01 00", "8F 03"),
    "write registers, no byte count": ("10 00 00 00 01", "90 03"),
    "write registers, data short": ("10 00 00 00 02 04 00 0A 01", "90 03"),
    "write registers, data long": ("10 00 00 00 02 04 00 0A 01 02 00", "90 03"),
    "mask write, short": ("16 00 00 00 F2 00", "96 03"),
    "mask write, long": ("16 00 00 00 F2 00 25 00", "96 03"),
    "read and write, short": ("17 00 00 00 01 00 00 00 01", "97 03"),
    "read and write, data short": ("17 00 00 00 01 00 00 00 01 02 00", "97 03"),
    "read and write, data long": ("17 00 00 00 01 00 00 00 01 02 00 00 00", "97 03"),
    "identification, function only": ("2B", "AB 03"),
    "identification, short": ("2B 0E 01", "AB 03"),
    "identification, long": ("2B 0E 01 00 00", "AB 03"),
    # Quantity, byte count or value: 03, even where the address would be 02.
    "0 coils": ("01 F0 00 00 00", "81 03"),
    "2001 coils": ("01 F0 00 07 D1", "81 03"),
    "0 inputs": ("02 F0 00 00 00", "82 03"),
    "2001 inputs": ("02 F0 00 07 D1", "82 03"),
    "0 holding registers": ("03 F0 00 00 00", "83 03"),
    "126 holding registers": ("03 F0 00 00 7E", "83 03"),
    "0 input registers": ("04 F0 00 00 00", "84 03"),
    "126 input registers": ("04 F0 00 00 7E", "84 03"),
    "65535 input registers": ("04 F0 00 FF FF", "84 03"),
    "coil value 1": ("05 F0 00 00 01", "85 03"),
    "coil value FFFF": ("05 F0 00 FF FF", "85 03"),
    "write 0 coils": ("0F F0 00 00 00 00", "8F 03"),
    "write 1969 coils": ("0F F0 00 07 B1 F7" + "00" * 247, "8F 03"),
    "write coils, byte count of more": ("0F F0 00 00 08 02 00 00", "8F 03"),
    "write coils, byte count of fewer": ("0F F0 00 00 09 01 00", "8F 03"),
    "write 0 registers": ("10 F0 00 00 00 00", "90 03"),
    "write 124 registers": ("10 F0 00 00 7C F8" + "00" * 248, "90 03"),
    "write registers, byte count of more": ("10 F0 00 00 01 04 00 00 00 00", "90 03"),
    "write registers, byte count of fewer": ("10 F0 00 00 02 02 00 00", "90 03"),
    "read 0 and write 1": ("17 F0 00 00 00 F0 00 00 01 02 00 00", "97 03"),
    "read 126 and write 1": ("17 F0 00 00 7E F0 00 00 01 02 00 00", "97 03"),
    "read 1 and write 0": ("17 F0 00 00 01 F0 00 00 00 00", "97 03"),
    "read 1 and write 122": ("17 F0 00 00 01 F0 00 00 7A F4" + "00" * 244, "97 03"),
    "read and write, byte count": ("17 F0 00 00 01 F0 00 00 01 04 00 00 00 00", "97 03"),
    "identification read code 0": ("2B 0E 00 00", "AB 03"),
    "identification read code 5": ("2B 0E 05 00", "AB 03"),
    # Address: 02.
    "coils into a gap": ("01 00 13 00 02", "81 02"),
    "inputs beyond the end": ("02 07 CF 00 02", "82 02"),
    "holding registers into a gap": ("03 00 13 00 02", "83 02"),
    "input registers beyond the last address": ("04 FF FF 00 02", "84 02"),
    "125 registers in a gap": ("04 F0 00 00 7D", "84 02"),
    "coil in a gap": ("05 F0 00 FF 00", "85 02"),
    "read-only coil": ("05 00 0A FF 00", "85 02"),
    "register in a gap": ("06 F0 00 00 01", "86 02"),
    "read-only register": ("06 00 0A 00 01", "86 02"),
    "half of a 32-bit setpoint": ("06 00 30 00 01", "86 02"),
    "coils half read-only": ("0F 00 08 00 04 01 0F", "8F 02"),
    "coils beyond the last address": ("0F FF FF 00 02 01 03", "8F 02"),
    "registers half read-only": ("10 00 09 00 02 04 00 01 00 01", "90 02"),
    "registers beyond the last address": ("10 FF FF 00 02 04 00 00 00 00", "90 02"),
    "mask write in a gap": ("16 F0 00 00 F2 00 25", "96 02"),
    "mask write of a read-only register": ("16 00 0A 00 F2 00 25", "96 02"),
    "mask write of half a 32-bit setpoint": ("16 00 31 00 F2 00 25", "96 02"),
    "read a gap and write": ("17 F0 00 00 01 00 00 00 01 02 00 07", "97 02"),
    "read and write a gap": ("17 00 00 00 01 F0 00 00 01 02 00 07", "97 02"),
    "read and write a read-only register": ("17 00 00 00 01 00 0A 00 01 02 00 07", "97 02"),
    "identification object nobody knows": ("2B 0E 04 03", "AB 02"),
    # A value that the device refuses: 03, at its good address.
    "a choice there is not": ("06 00 20 00 04", "86 03"),
    "a choice there is not among several registers": ("10 00 20 00 01 02 00 00", "90 03"),
    "a choice there is not by mask": ("16 00 20 00 00 00 09", "96 03"),
    "read and write a choice there is not": ("17 00 00 00 01 00 20 00 01 02 00 09", "97 03"),
}


@pytest.mark.parametrize(("request_pdu", "reply"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_request_gets_the_first_exception_of_its_state_diagram_and_changes_nothing(
    image: RegisterImage, request_pdu: str, reply: str
) -> None:
    before = readable(image)
    assert respond(pdu(request_pdu), image) == pdu(reply)
    assert readable(image) == before
    assert image.drain() == []


def readable(image: RegisterImage) -> list[bytes]:
    """Return all that can be written, and its neighbours."""
    requests = ("01 00 00 00 14", "03 00 00 00 14", "03 00 20 00 01", "03 00 30 00 02")
    return [respond(pdu(each), image) for each in requests]


@pytest.mark.parametrize(
    ("request_pdu", "length"),
    [
        ("02 00 00 00 01", 3),
        ("02 00 00 07 D0", 252),
        ("04 00 00 00 01", 4),
        ("04 00 00 00 7D", 252),
        ("04 FF FF 00 01", 4),
        ("08 00 00" + "A5" * 250, 253),
    ],
)
def test_the_least_and_the_most_of_each_quantity_are_answered_in_full(
    image: RegisterImage, request_pdu: str, length: int
) -> None:
    reply = respond(pdu(request_pdu), image)
    assert reply[0] == pdu(request_pdu)[0]
    assert len(reply) == length


def test_the_most_coils_and_registers_are_written_at_once() -> None:
    image = device(writable_coils=range(1968), writable_registers=range(123))
    assert respond(pdu("0F 00 00 07 B0 F6" + "FF" * 246), image) == pdu("0F 00 00 07 B0")
    assert respond(pdu("10 00 00 00 7B F6" + "AB" * 246), image) == pdu("10 00 00 00 7B")
    assert respond(pdu("01 00 00 07 B0"), image) == pdu("01 F6" + "FF" * 246)
    assert respond(pdu("03 00 00 00 7B"), image) == pdu("03 F6" + "AB" * 246)


def test_125_registers_are_read_while_121_are_written() -> None:
    image = device(writable_registers=range(125))
    reply = respond(pdu("17 00 00 00 7D 00 04 00 79 F2" + "CD" * 242), image)
    assert reply == pdu("17 FA" + "00" * 8 + "CD" * 242)


def test_a_read_after_the_write_of_one_request_shows_what_it_wrote(image: RegisterImage) -> None:
    assert respond(pdu("17 00 00 00 02 00 01 00 01 02 BE EF"), image) == pdu("17 04 00 00 BE EF")


def test_writes_reach_the_device_in_order_and_equal_ones_each_time(image: RegisterImage) -> None:
    for request in ("06 00 03 00 07", "06 00 03 00 07", "05 00 02 FF 00", "10 00 03 00 02 04 00 08 00 09"):
        respond(pdu(request), image)
    assert [value for _, value in image.drain()] == [7, 7, 1, 8, 9]


def test_a_coil_is_switched_off_again(image: RegisterImage) -> None:
    respond(pdu("05 00 02 FF 00"), image)
    assert respond(pdu("05 00 02 00 00"), image) == pdu("05 00 02 00 00")
    assert respond(pdu("01 00 02 00 01"), image) == pdu("01 01 00")


def test_bits_beyond_the_quantity_are_zero_in_a_reply_and_ignored_in_a_write(image: RegisterImage) -> None:
    assert respond(pdu("02 00 00 00 0B"), image) == pdu("02 02 FF 07")
    respond(pdu("0F 00 00 00 03 01 FF"), image)
    assert respond(pdu("01 00 00 00 0A"), image) == pdu("01 02 07 00")


def test_a_mask_write_changes_the_masked_bits_only(image: RegisterImage) -> None:
    respond(pdu("06 00 05 FF 00"), image)
    respond(pdu("16 00 05 0F F0 A0 0A"), image)
    # (FF00 and 0FF0) or (A00A and not 0FF0)
    assert respond(pdu("03 00 05 00 01"), image) == pdu("03 02 AF 0A")


@pytest.mark.parametrize(
    "request_pdu", [b"", *(bytes((function, 0, 0, 0, 1)) for function in (128, 129, 131, 255))]
)
def test_what_is_no_request_gets_no_reply_and_is_not_counted(
    image: RegisterImage, request_pdu: bytes
) -> None:
    assert respond(request_pdu, image) == b""
    assert image.requests_since_tick == 0


@pytest.mark.parametrize(
    "request_pdu", ["04 00 00 00 01", "06 00 00 00 01", "03 F0 00 00 01", "07", "08 00 00 00 00"]
)
def test_every_request_is_counted_refused_ones_too(image: RegisterImage, request_pdu: str) -> None:
    respond(pdu(request_pdu), image)
    respond(pdu(request_pdu), image)
    assert image.requests_since_tick == 2


@pytest.mark.parametrize(
    ("read_code", "first", "ids"),
    [
        (1, 0, [0, 1, 2]),
        (1, 1, [1, 2]),
        (2, 0, [0, 1, 2, 4]),
        (2, 4, [4]),
        (3, 0, [0, 1, 2, 4]),
        (4, 0, [0]),
        (4, 4, [4]),
    ],
)
def test_each_read_code_gives_the_objects_of_its_category(
    image: RegisterImage, read_code: int, first: int, ids: list[int]
) -> None:
    reply = respond(bytes((0x2B, 0x0E, read_code, first)), image)
    objects = b"".join(bytes((i, len(IDENTIFICATION[i]))) + IDENTIFICATION[i] for i in ids)
    assert reply == bytes((0x2B, 0x0E, read_code, 0x82, 0, 0, len(ids))) + objects


@pytest.mark.parametrize(("read_code", "unknown"), [(1, 4), (1, 9), (2, 3), (3, 0x90)])
def test_a_stream_asked_to_start_at_an_unknown_object_starts_at_the_first(
    image: RegisterImage, read_code: int, unknown: int
) -> None:
    from_unknown = respond(bytes((0x2B, 0x0E, read_code, unknown)), image)
    assert from_unknown == respond(bytes((0x2B, 0x0E, read_code, 0)), image)


@pytest.mark.parametrize(("more", "level"), [({}, 0x81), ({3: b"x"}, 0x82), ({6: b"x"}, 0x82)])
def test_the_conformity_level_is_that_of_the_objects_there_are(more: dict[int, bytes], level: int) -> None:
    image = device(identification={0: b"Vendor", 1: b"Product", 2: b"1.0", **more})
    assert respond(pdu("2B 0E 01 00"), image)[3] == level


def test_an_object_longer_than_any_reply_is_cut_to_the_longest_reply() -> None:
    image = device(identification={0: b"V" * 250, 1: b"P", 2: b"1"})
    reply = respond(pdu("2B 0E 01 00"), image)
    assert len(reply) == 253
    assert reply == pdu("2B 0E 01 81 FF 01 01 00 F4") + b"V" * 244


@pytest.mark.parametrize(("length", "together"), [(142, 2), (143, 1)])
def test_a_reply_carries_as_many_objects_as_fit_to_the_byte(length: int, together: int) -> None:
    image = device(identification={0: b"V" * 100, 1: b"P" * length, 2: b"1"})
    reply = respond(pdu("2B 0E 01 00"), image)
    assert (reply[4], reply[5], reply[6]) == (0xFF, together, together)
    assert len(reply) <= 253


def test_the_reply_to_a_failed_execution_carries_the_function_and_its_code() -> None:
    assert exception_reply(0x10, ServerDeviceFailure.code) == pdu("90 04")
