"""Any bytes as a request: no crash, a legal reply or none, and no write from a refused request.

What is legal is decided here from the specification alone, without the server's code.
"""

from device_image import blueprint
from hypothesis import given, settings
from hypothesis import strategies as st

from dertwin.modbus.mbap import frame, take_frames
from dertwin.modbus.pdu import respond
from dertwin.registers.image import RegisterImage

OFFERED = {1, 2, 3, 4, 5, 6, 8, 15, 16, 22, 23, 43}
ADDRESSES = st.one_of(st.integers(0, 70), st.integers(0, 0xFFFF), st.just(0xFFFF))
COUNTS = st.one_of(st.integers(0, 8), st.sampled_from([123, 124, 125, 126, 1968, 1969, 2000, 2001, 0xFFFF]))
WORDS = st.integers(0, 0xFFFF)


new_device = blueprint(
    coils={address: address & 1 for address in range(40, 60)},
    discrete_inputs={address: address % 3 == 0 for address in range(2000)},
    holding_registers={address: 0x0101 * address for address in range(40, 60)},
    input_registers={address: address for address in range(125)},
    writable_coils=range(40),
    writable_registers=range(32),
    choices={0x20: (1, 2, 3)},
    pairs=[0x22, 0x24],
)


def word(value: int) -> bytes:
    return value.to_bytes(2, "big")


def writes(function: int) -> st.SearchStrategy[bytes]:
    def build(address: int, count: int, data: bytes, byte_count: int | None) -> bytes:
        return bytes((function,)) + word(address) + word(count) + bytes((byte_count or len(data),)) + data

    several = st.integers(0, 8).flatmap(
        lambda n: st.builds(
            build, ADDRESSES, st.just(n), st.binary(min_size=2 * n, max_size=2 * n), st.none()
        )
    )
    anything = st.builds(
        build, ADDRESSES, COUNTS, st.binary(max_size=247), st.one_of(st.none(), st.integers(0, 255))
    )
    return several | anything


near_requests = st.one_of(
    st.builds(
        lambda f, a, c: bytes((f,)) + word(a) + word(c), st.sampled_from([1, 2, 3, 4]), ADDRESSES, COUNTS
    ),
    st.builds(
        lambda f, a, v: bytes((f,)) + word(a) + word(v),
        st.sampled_from([5, 6]),
        ADDRESSES,
        WORDS | st.just(0xFF00),
    ),
    st.builds(lambda a, m, o: b"\x16" + word(a) + word(m) + word(o), ADDRESSES, WORDS, WORDS),
    writes(0x0F),
    writes(0x10),
    st.builds(lambda a, c, write: b"\x17" + word(a) + word(c) + write[1:], ADDRESSES, COUNTS, writes(0x10)),
    st.builds(lambda data: b"\x08\0\0" + data, st.binary(max_size=250)),
    st.builds(lambda code, first: bytes((0x2B, 0x0E, code, first)), st.integers(0, 6), st.integers(0, 255)),
)
requests = st.one_of(
    near_requests, near_requests.flatmap(lambda r: st.sampled_from([r[:-1], r + b"\0"])), st.binary()
)


def assert_legal(request: bytes, reply: bytes) -> None:
    """Check a reply against the formats of section 6 and the exceptions of section 7."""
    if not request or request[0] >= 0x80:
        assert reply == b""
        return
    assert 2 <= len(reply) <= 253
    function = request[0]
    if reply[0] & 0x80:
        assert len(reply) == 2
        assert reply[0] == function | 0x80
        offered = function in OFFERED and not (
            (function == 8 and len(request) >= 3 and request[1:3] != b"\0\0")
            or (function == 43 and len(request) >= 2 and request[1] != 14)
        )
        assert reply[1] in ({2, 3} if offered else {1, 3} if len(request) > 253 else {1})
        return
    assert reply[0] == function
    assert function in OFFERED
    quantity = int.from_bytes(request[3:5], "big")
    if function in (1, 2):
        assert 1 <= quantity <= 2000
        assert reply[1] == (quantity + 7) // 8 == len(reply) - 2
        assert reply[-1] >> ((quantity - 1) % 8 + 1) == 0
    elif function in (3, 4, 23):
        assert 1 <= quantity <= 125
        assert reply[1] == 2 * quantity == len(reply) - 2
    elif function in (5, 6, 8, 22):
        assert reply == request
    elif function in (15, 16):
        assert reply == request[:5]
        assert 1 <= quantity <= {15: 1968, 16: 123}[function]
    else:
        assert_legal_identification(request, reply)


def assert_legal_identification(request: bytes, reply: bytes) -> None:
    assert reply[:3] == request[:3]
    assert reply[3] in (0x81, 0x82, 0x83)
    at, ids = 7, []
    while at < len(reply):
        ids.append(reply[at])
        at += 2 + reply[at + 1]
    assert at == len(reply)
    assert len(ids) == reply[6] >= 1
    assert ids == sorted(ids)
    assert (reply[4], reply[5]) == (0, 0) or (reply[4] == 0xFF and reply[5] > ids[-1])


def writable(image: RegisterImage) -> list[bytes]:
    reads = [b"\x01\0\0\0\x3c", b"\x03\0\0\0\x21", b"\x03\0\x22\0\x04", b"\x03\0\x28\0\x14"]
    replies = [respond(each, image) for each in reads]
    assert not any(reply[0] & 0x80 for reply in replies)
    return replies


@settings(max_examples=300, deadline=None)
@given(st.lists(requests, min_size=1, max_size=10))
def test_any_request_gets_a_legal_reply_and_a_refused_one_changes_nothing(sent: list[bytes]) -> None:
    image = new_device()
    for request in sent:
        before = writable(image)
        image.drain()
        reply = respond(request, image)
        assert_legal(request, reply)
        if not reply or reply[0] & 0x80:
            assert writable(image) == before
            assert image.drain() == []


@settings(deadline=None)
@given(
    st.lists(st.tuples(WORDS, requests.filter(lambda r: 1 <= len(r) <= 253)), max_size=10),
    st.lists(st.integers(0, 3000), max_size=12),
)
def test_a_stream_cut_anywhere_gives_the_replies_of_one_request_at_a_time(
    sent: list[tuple[int, bytes]], places: list[int]
) -> None:
    image = new_device()
    one_by_one = [(transaction_id, respond(request, image)) for transaction_id, request in sent]
    image, buffer, streamed = new_device(), bytearray(), []
    stream = b"".join(frame(transaction_id, 1, request) for transaction_id, request in sent)
    at = 0
    for place in [*sorted(place % (len(stream) + 1) for place in places), len(stream)]:
        buffer += stream[at:place]
        at = place
        streamed += [(i, respond(request, image)) for i, _, request in take_frames(buffer)]
    assert streamed == one_by_one
    assert not buffer
