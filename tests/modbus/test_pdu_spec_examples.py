"""The worked examples of MODBUS Application Protocol V1.1b3, section 6, byte for byte.

Each device has just the bits and registers of its example, with the values given there.
"""

from device_image import device

from dertwin.modbus.pdu import respond


def pdu(text: str) -> bytes:
    return bytes.fromhex(text)


def bits(first_address: int, data: str, count: int) -> dict[int, int]:
    """Spread packed status bytes over addresses, as the examples list them."""
    packed = int.from_bytes(bytes.fromhex(data), "little")
    return {first_address + i: packed >> i & 1 for i in range(count)}


def test_6_1_read_discrete_outputs_20_to_38() -> None:
    image = device(coils=bits(0x13, "CD 6B 05", 19))
    assert respond(pdu("01 00 13 00 13"), image) == pdu("01 03 CD 6B 05")


def test_6_2_read_discrete_inputs_197_to_218() -> None:
    image = device(discrete_inputs=bits(0xC4, "AC DB 35", 22))
    assert respond(pdu("02 00 C4 00 16"), image) == pdu("02 03 AC DB 35")


def test_6_3_read_registers_108_to_110() -> None:
    image = device(holding_registers={0x6B: 555, 0x6C: 0, 0x6D: 100})
    assert respond(pdu("03 00 6B 00 03"), image) == pdu("03 06 02 2B 00 00 00 64")


def test_6_4_read_input_register_9() -> None:
    image = device(input_registers={8: 10})
    assert respond(pdu("04 00 08 00 01"), image) == pdu("04 02 00 0A")


def test_6_5_write_coil_173_on() -> None:
    image = device(writable_coils=[0xAC])
    assert respond(pdu("05 00 AC FF 00"), image) == pdu("05 00 AC FF 00")
    assert respond(pdu("01 00 AC 00 01"), image) == pdu("01 01 01")


def test_6_6_write_register_2_to_3() -> None:
    image = device(writable_registers=[1])
    assert respond(pdu("06 00 01 00 03"), image) == pdu("06 00 01 00 03")
    assert respond(pdu("03 00 01 00 01"), image) == pdu("03 02 00 03")


def test_6_8_return_query_data_a537() -> None:
    assert respond(pdu("08 00 00 A5 37"), device()) == pdu("08 00 00 A5 37")


def test_6_11_write_ten_coils_from_20() -> None:
    image = device(writable_coils=range(0x13, 0x1D))
    assert respond(pdu("0F 00 13 00 0A 02 CD 01"), image) == pdu("0F 00 13 00 0A")
    assert respond(pdu("01 00 13 00 0A"), image) == pdu("01 02 CD 01")


def test_6_12_write_two_registers_from_2() -> None:
    image = device(writable_registers=[1, 2])
    assert respond(pdu("10 00 01 00 02 04 00 0A 01 02"), image) == pdu("10 00 01 00 02")
    assert respond(pdu("03 00 01 00 02"), image) == pdu("03 04 00 0A 01 02")


def test_6_16_mask_write_register_5() -> None:
    image = device(writable_registers=[4])
    respond(pdu("06 00 04 00 12"), image)
    assert respond(pdu("16 00 04 00 F2 00 25"), image) == pdu("16 00 04 00 F2 00 25")
    assert respond(pdu("03 00 04 00 01"), image) == pdu("03 02 00 17")


def test_6_17_read_six_registers_from_4_and_write_three_from_15() -> None:
    values = dict(enumerate((0x00FE, 0x0ACD, 0x0001, 0x0003, 0x000D, 0x00FF), start=3))
    image = device(holding_registers=values, writable_registers=[0x0E, 0x0F, 0x10])
    reply = respond(pdu("17 00 03 00 06 00 0E 00 03 06 00 FF 00 FF 00 FF"), image)
    assert reply == pdu("17 0C 00 FE 0A CD 00 01 00 03 00 0D 00 FF")
    assert respond(pdu("03 00 0E 00 03"), image) == pdu("03 06 00 FF 00 FF 00 FF")


IDENTIFICATION = {0: b"Company identification", 1: b"Product code XX", 2: b"V2.11"}


def test_6_21_read_basic_device_identification() -> None:
    # The example's device has no individual access (conformity level 01, ours 81), and the example
    # gives the length of "Product code XX" as 0D although it has 0F characters.
    reply = respond(pdu("2B 0E 01 00"), device(identification=IDENTIFICATION))
    assert reply == (
        pdu("2B 0E 01 81 00 00 03")
        + pdu("00 16") + b"Company identification"
        + pdu("01 0F") + b"Product code XX"
        + pdu("02 05") + b"V2.11"
    )  # fmt: skip


def test_6_21_an_identification_too_long_for_one_reply_goes_on_where_it_stopped() -> None:
    company, product = b"Company identification".ljust(110, b"."), b"Product code".ljust(120, b"X")
    image = device(identification={0: company, 1: product, 2: b"V2.11 of the year 2026"})
    first = respond(pdu("2B 0E 01 00"), image)
    assert first == pdu("2B 0E 01 81 FF 02 02") + pdu("00 6E") + company + pdu("01 78") + product
    second = respond(pdu("2B 0E 01 02"), image)
    assert second == pdu("2B 0E 01 81 00 00 01") + pdu("02 16") + b"V2.11 of the year 2026"
