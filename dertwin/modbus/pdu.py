"""Answers to Modbus requests: one PDU in, one PDU out, by the state diagrams of the specification.

The order of checks is the same for all functions: function offered, else 01; length, quantity,
byte count and value valid, else 03; addresses in the map, else 02. What fails during execution is
no answer of this module: the link that called it sends 04.

Source: MODBUS Application Protocol V1.1b3, 6 and 7.
"""

from collections.abc import Callable, Iterable, Mapping
from struct import Struct

from dertwin.modbus.errors import IllegalDataAddress, IllegalDataValue, IllegalFunction, ModbusError
from dertwin.registers.image import RegisterImage, UnmappedAddress, ValueRefused

MAX_PDU = 253

_MAX_READ_BITS = 2000
_MAX_READ_REGISTERS = 125
_MAX_WRITE_BITS = 1968
_MAX_WRITE_REGISTERS = 123
_MAX_WRITE_REGISTERS_OF_READ_WRITE = 121

_ON, _OFF = 0xFF00, 0x0000
_MEI_READ_DEVICE_IDENTIFICATION = 0x0E
_IDENTIFICATION_HEADER_LENGTH = 7
# Read codes 1..3: basic, regular and extended identification; each includes the ones before it.
_LAST_ID_OF_CATEGORY = {1: 0x02, 2: 0x7F, 3: 0xFF}
_INDIVIDUAL_ACCESS = 4

_READ = Struct(">BHH")
_WRITE_MANY = Struct(">BHHB")
_MASK_WRITE = Struct(">BHHH")
_READ_WRITE = Struct(">BHHHHB")


def respond(pdu: bytes, image: RegisterImage) -> bytes:
    """Answer one request PDU from a register image and return the reply PDU.

    Function codes of 128 and above are no requests and neither is an empty PDU: both get b"",
    which means no reply, because an exception reply to them cannot be told from a normal one.
    Every other request counts in `image.requests_since_tick`, refused ones too. Raises nothing by itself
    for any input; an error of the image's own code passes through to the caller.
    """
    if not pdu or pdu[0] > 127:
        return b""
    image.requests_since_tick += 1
    answer = _ANSWERS.get(pdu[0])
    if answer is None:
        return exception_reply(pdu[0], IllegalFunction.code)
    try:
        return answer(pdu, image)
    except ModbusError as error:
        return exception_reply(pdu[0], error.code)
    except UnmappedAddress:
        return exception_reply(pdu[0], IllegalDataAddress.code)
    except ValueRefused:
        return exception_reply(pdu[0], IllegalDataValue.code)


def exception_reply(function: int, code: int) -> bytes:
    """Build the exception reply to a request of `function` (0..127) with an exception code."""
    return bytes((function | 0x80, code))


def _read_bits(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) != 5:
        raise IllegalDataValue
    function, address, count = _READ.unpack(pdu)
    if not 1 <= count <= _MAX_READ_BITS:
        raise IllegalDataValue
    return bytes((function, (count + 7) // 8)) + image.read_bits(function, address, count)


def _read_registers(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) != 5:
        raise IllegalDataValue
    function, address, count = _READ.unpack(pdu)
    if not 1 <= count <= _MAX_READ_REGISTERS:
        raise IllegalDataValue
    return bytes((function, 2 * count)) + image.read_registers(function, address, count)


def _write_single_coil(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) != 5:
        raise IllegalDataValue
    _, address, value = _READ.unpack(pdu)
    if value not in (_ON, _OFF):
        raise IllegalDataValue
    image.write_bits(address, (value == _ON,))
    return pdu


def _write_single_register(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) != 5:
        raise IllegalDataValue
    _, address, _ = _READ.unpack(pdu)
    image.write_registers(address, pdu[3:])
    return pdu


def _return_query_data(pdu: bytes, image: RegisterImage) -> bytes:
    if not 3 <= len(pdu) <= MAX_PDU:
        raise IllegalDataValue
    if pdu[1:3] != b"\0\0":
        raise IllegalFunction
    if len(pdu) == 3 or len(pdu) % 2 == 0:  # whole words of data, and at least one
        raise IllegalDataValue
    return pdu


def _write_coils(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) < _WRITE_MANY.size:
        raise IllegalDataValue
    _, address, count, byte_count = _WRITE_MANY.unpack_from(pdu)
    if not 1 <= count <= _MAX_WRITE_BITS or byte_count != (count + 7) // 8:
        raise IllegalDataValue
    data = pdu[_WRITE_MANY.size :]
    if len(data) != byte_count:
        raise IllegalDataValue
    image.write_bits(address, [bool(data[i >> 3] >> (i & 7) & 1) for i in range(count)])
    return pdu[:5]


def _write_registers(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) < _WRITE_MANY.size:
        raise IllegalDataValue
    _, address, count, byte_count = _WRITE_MANY.unpack_from(pdu)
    if not 1 <= count <= _MAX_WRITE_REGISTERS or byte_count != 2 * count:
        raise IllegalDataValue
    data = pdu[_WRITE_MANY.size :]
    if len(data) != byte_count:
        raise IllegalDataValue
    image.write_registers(address, data)
    return pdu[:5]


def _mask_write_register(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) != _MASK_WRITE.size:
        raise IllegalDataValue
    _, address, and_mask, or_mask = _MASK_WRITE.unpack(pdu)
    word = image.read_holding_word(address)
    word = (word & and_mask) | (or_mask & ~and_mask & 0xFFFF)
    image.write_registers(address, word.to_bytes(2, "big"))
    return pdu


def _read_write_registers(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) < _READ_WRITE.size:
        raise IllegalDataValue
    function, read_address, read_count, write_address, write_count, byte_count = _READ_WRITE.unpack_from(pdu)
    data = pdu[_READ_WRITE.size :]
    if (
        not 1 <= read_count <= _MAX_READ_REGISTERS
        or not 1 <= write_count <= _MAX_WRITE_REGISTERS_OF_READ_WRITE
        or byte_count != 2 * write_count
        or len(data) != byte_count
    ):
        raise IllegalDataValue
    # Both ranges must be good before anything is written, hence one read only to see that it works.
    image.read_registers(3, read_address, read_count)
    image.write_registers(write_address, data)
    return bytes((function, 2 * read_count)) + image.read_registers(3, read_address, read_count)


def _read_device_identification(pdu: bytes, image: RegisterImage) -> bytes:
    if len(pdu) < 2:
        raise IllegalDataValue
    if pdu[1] != _MEI_READ_DEVICE_IDENTIFICATION:
        raise IllegalFunction
    if len(pdu) != 4:
        raise IllegalDataValue
    read_code, first_id = pdu[2], pdu[3]
    objects = image.identification
    if read_code == _INDIVIDUAL_ACCESS:
        if first_id not in objects:
            raise IllegalDataAddress
        ids = [first_id]
    elif read_code in _LAST_ID_OF_CATEGORY:
        ids = sorted(i for i in objects if i <= _LAST_ID_OF_CATEGORY[read_code])
        # A stream that is asked to go on at an object nobody knows begins again.
        ids = ids[ids.index(first_id) :] if first_id in ids else ids
    else:
        raise IllegalDataValue
    packed, count = _pack_objects(objects, ids)
    more_follows, next_id = (0xFF, ids[count]) if count < len(ids) else (0, 0)
    return pdu[:3] + bytes((_conformity_level(objects), more_follows, next_id, count)) + packed


def _pack_objects(objects: Mapping[int, bytes], ids: Iterable[int]) -> tuple[bytes, int]:
    """Return as many of the objects as fit into one reply, and how many these are."""
    room = MAX_PDU - _IDENTIFICATION_HEADER_LENGTH
    packed = bytearray()
    count = 0
    for object_id in ids:
        value = objects[object_id][: room - 2]  # a longer one would never fit: it is cut
        if len(packed) + 2 + len(value) > room:
            break
        packed += bytes((object_id, len(value))) + value
        count += 1
    return bytes(packed), count


def _conformity_level(objects: Iterable[int]) -> int:
    """Return 0x81, or 0x82 if there are more objects than the basic ones: with individual access.

    No register map has private objects (0x80 and above), which would make it 0x83.
    """
    return 0x81 if max(objects) <= _LAST_ID_OF_CATEGORY[1] else 0x82


_ANSWERS: dict[int, Callable[[bytes, RegisterImage], bytes]] = {
    0x01: _read_bits,
    0x02: _read_bits,
    0x03: _read_registers,
    0x04: _read_registers,
    0x05: _write_single_coil,
    0x06: _write_single_register,
    0x08: _return_query_data,
    0x0F: _write_coils,
    0x10: _write_registers,
    0x16: _mask_write_register,
    0x17: _read_write_registers,
    0x2B: _read_device_identification,
}
