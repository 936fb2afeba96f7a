"""pymodbus writes the requests and reads the replies: an independent client agrees with our server."""

import pytest
from device_image import blueprint
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU
from pymodbus.pdu import bit_message as bits
from pymodbus.pdu import diag_message as diag
from pymodbus.pdu import mei_message as mei
from pymodbus.pdu import register_message as registers

from dertwin.modbus.pdu import respond
from dertwin.registers.image import RegisterImage

decoder = DecodePDU(is_server=False)


new_device = blueprint(
    discrete_inputs={address: address % 3 == 0 for address in range(2000)},
    input_registers={address: 500 * address for address in range(125)},
    writable_coils=range(1968),
    writable_registers=range(130),
    identification={0: b"Vendor", 1: b"Product", 2: b"2.0", 4: b"Battery"},
)


@pytest.fixture
def image() -> RegisterImage:
    return new_device()


def ask(image: RegisterImage, request: ModbusPDU) -> ModbusPDU:
    """Return what pymodbus makes of the reply to its request."""
    reply = decoder.decode(respond(bytes((request.function_code,)) + request.encode(), image))
    assert reply is not None
    return reply


@pytest.mark.parametrize("count", [1, 7, 8, 9, 2000])
def test_discrete_inputs_are_read(image: RegisterImage, count: int) -> None:
    reply = ask(image, bits.ReadDiscreteInputsRequest(address=0, count=count))
    assert list(reply.bits[:count]) == [address % 3 == 0 for address in range(count)]


@pytest.mark.parametrize("count", [1, 10, 125])
def test_input_registers_are_read(image: RegisterImage, count: int) -> None:
    reply = ask(image, registers.ReadInputRegistersRequest(address=0, count=count))
    assert reply.registers == [500 * address for address in range(count)]


def test_a_coil_is_written_and_read_back(image: RegisterImage) -> None:
    reply = ask(image, bits.WriteSingleCoilRequest(address=5, bits=[True]))
    assert (reply.address, list(reply.bits)) == (5, [True])
    assert list(ask(image, bits.ReadCoilsRequest(address=4, count=3)).bits[:3]) == [False, True, False]


@pytest.mark.parametrize("count", [1, 8, 11, 1968])
def test_coils_are_written_and_read_back(image: RegisterImage, count: int) -> None:
    values = [address % 5 == 0 for address in range(count)]
    reply = ask(image, bits.WriteMultipleCoilsRequest(address=0, bits=values))
    assert (reply.address, reply.count) == (0, count)
    assert list(ask(image, bits.ReadCoilsRequest(address=0, count=count)).bits[:count]) == values


def test_a_register_is_written_and_read_back(image: RegisterImage) -> None:
    reply = ask(image, registers.WriteSingleRegisterRequest(address=3, registers=[0xBEEF]))
    assert (reply.address, reply.registers) == (3, [0xBEEF])
    assert ask(image, registers.ReadHoldingRegistersRequest(address=3, count=1)).registers == [0xBEEF]


@pytest.mark.parametrize("count", [1, 123])
def test_registers_are_written_and_read_back(image: RegisterImage, count: int) -> None:
    values = [0xFFFF - n for n in range(count)]
    reply = ask(image, registers.WriteMultipleRegistersRequest(address=7, registers=values))
    assert (reply.address, reply.count) == (7, count)
    assert ask(image, registers.ReadHoldingRegistersRequest(address=7, count=count)).registers == values


def test_a_register_is_masked(image: RegisterImage) -> None:
    ask(image, registers.WriteSingleRegisterRequest(address=4, registers=[0x12]))
    reply = ask(image, registers.MaskWriteRegisterRequest(address=4, and_mask=0xF2, or_mask=0x25))
    assert isinstance(reply, registers.MaskWriteRegisterResponse)
    assert (reply.address, reply.and_mask, reply.or_mask) == (4, 0xF2, 0x25)
    assert ask(image, registers.ReadHoldingRegistersRequest(address=4, count=1)).registers == [0x17]


def test_registers_are_read_and_written_in_one_request(image: RegisterImage) -> None:
    request = registers.ReadWriteMultipleRegistersRequest(
        read_address=0, read_count=4, write_address=2, write_registers=[7, 8]
    )
    assert ask(image, request).registers == [0, 0, 7, 8]


def test_query_data_is_returned(image: RegisterImage) -> None:
    reply = ask(image, diag.ReturnQueryDataRequest(b"\xa5\x37"))
    assert isinstance(reply, diag.ReturnQueryDataResponse)
    assert reply.message == b"\xa5\x37"


@pytest.mark.parametrize(
    ("read_code", "objects"),
    [
        (1, {0: b"Vendor", 1: b"Product", 2: b"2.0"}),
        (2, {0: b"Vendor", 1: b"Product", 2: b"2.0", 4: b"Battery"}),
        (3, {0: b"Vendor", 1: b"Product", 2: b"2.0", 4: b"Battery"}),
    ],
)
def test_the_identification_is_read(image: RegisterImage, read_code: int, objects: dict[int, bytes]) -> None:
    reply = ask(image, mei.ReadDeviceInformationRequest(read_code=read_code, object_id=0))
    assert isinstance(reply, mei.ReadDeviceInformationResponse)
    assert reply.information == objects
    assert (reply.conformity, reply.more_follows, reply.number_of_objects) == (0x82, 0, len(objects))


def test_a_single_identification_object_is_read(image: RegisterImage) -> None:
    reply = ask(image, mei.ReadDeviceInformationRequest(read_code=4, object_id=4))
    assert isinstance(reply, mei.ReadDeviceInformationResponse)
    assert reply.information == {4: b"Battery"}


@pytest.mark.parametrize(
    ("request_pdu", "code"), [("07", 1), ("04 F0 00 00 01", 2), ("04 00 00 00 00", 3), ("2B 0E 04 03", 2)]
)
def test_an_exception_names_its_function_and_code(image: RegisterImage, request_pdu: str, code: int) -> None:
    request = bytes.fromhex(request_pdu)
    reply = decoder.decode(respond(request, image))
    assert isinstance(reply, ExceptionResponse)
    assert (reply.function_code, reply.exception_code) == (request[0] | 0x80, code)
