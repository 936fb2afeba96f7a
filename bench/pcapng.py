"""Writes recorded frames as a capture file that Wireshark decodes.

Each link is an interface. TCP links become raw IP packets with the addresses of the client and ours,
consistent sequence numbers and right checksums; a connection that was opened shows as SYN, one that
ended as a FIN of the client, whoever ended it. Serial lines become RTAC serial packets.

Sources: draft-ietf-opsawg-pcapng (blocks and options), LINKTYPE_RAW and LINKTYPE_RTAC_SERIAL of
www.tcpdump.org/linktypes.html, RFC 9293 (TCP), RFC 1071 (checksum).
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import pack, unpack

from bench.recorder import Address, Conversation, Frame, Kind
from dertwin import __version__

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_RAW_IP, _RTAC_SERIAL = 101, 250
_INTERFACE_NAME, _INTERFACE_DESCRIPTION, _RESOLUTION = 2, 3, 9
_APPLICATION = 4
_PACKET_FLAGS, _INBOUND, _OUTBOUND = 2, 1, 2
_COMMENT = 1
_NANOSECONDS = b"\x09"

_STATUS_CHANGE, _DATA_SENT, _DATA_RECEIVED = 0, 1, 2
_RTS_AND_DTR = 0x08 | 0x10

_FIN, _SYN, _PUSH, _ACK = 0x01, 0x02, 0x08, 0x10
_TCP = 6
# What fits into an Ethernet frame beside the headers of IPv6 and TCP.
_SEGMENT_BYTES = 1440


def capture(frames: Iterable[Frame], unix_ns: int) -> Iterator[bytes]:
    """Yield a pcapng file of frames, block by block.

    `unix_ns` is the Unix time (ns) at which the clock of the frames was at zero.
    """
    yield _block(
        _SECTION,
        pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + _options((_APPLICATION, f"dertwin {__version__}".encode())),
    )
    interfaces: dict[str, int] = {}
    streams: dict[int, _Stream] = {}
    for frame in frames:
        talk = frame.conversation
        if talk.link not in interfaces:
            interfaces[talk.link] = len(interfaces)
            yield _interface(talk)
        time_ns = round(frame.at * 1e9) + unix_ns
        packets: Iterable[tuple[bool, bytes]]
        if talk.peer is None or talk.own is None:
            packets = [(frame.kind is Kind.SENT, _serial(frame, time_ns))]
        else:
            if talk.number not in streams:
                streams[talk.number] = _Stream(talk.peer, talk.own)
            packets = streams[talk.number].packets(frame)
        comment = b"no frame" if frame.kind is Kind.NOISE else b""
        for is_sent, packet in packets:
            yield _packet(interfaces[talk.link], time_ns, is_sent, packet, comment)


def decoding(links: Iterable[str]) -> list[str]:
    """Return the options with which Wireshark and tshark know Modbus on the links of these names."""
    known = [link.partition(" ")[::2] for link in links]
    options = []
    for kind, dissector in (("tcp", "mbtcp"), ("rtu-over-tcp", "mbrtu")):
        if ports := dict.fromkeys(where.rpartition(":")[2] for its_kind, where in known if its_kind == kind):
            options += ["-o", f"{dissector}.tcp.port:{','.join(ports)}"]
    if any(kind == "rtu" for kind, _ in known):
        options += ["-d", "rtacser.data,mbrtu"]
    return options


class _Stream:
    """One TCP connection: whom it joins, and how far each side's sequence numbers are."""

    def __init__(self, peer: Address, own: Address) -> None:
        self._addresses = _ip(peer[0], own[0]), _ip(own[0], peer[0])
        self._ports = peer[1], own[1]
        self._next = [1, 1]  # after a SYN that may be older than the recording

    def packets(self, frame: Frame) -> Iterator[tuple[bool, bytes]]:
        """Yield whether it is from us, and a packet, for all that a frame needs."""
        if frame.kind is Kind.OPENED:
            yield False, self._packet(0, 0, 0, _SYN)
            yield True, self._packet(1, 0, 1, _SYN | _ACK)
            return
        side = int(frame.kind is Kind.SENT)
        flags = (_FIN if frame.kind is Kind.CLOSED else _PUSH) | _ACK
        for start in range(0, max(1, len(frame.data)), _SEGMENT_BYTES):
            data = frame.data[start : start + _SEGMENT_BYTES]
            yield bool(side), self._packet(side, self._next[side], self._next[1 - side], flags, data)
            self._next[side] = (self._next[side] + len(data)) & 0xFFFFFFFF

    def _packet(self, side: int, sequence: int, acknowledged: int, flags: int, data: bytes = b"") -> bytes:
        ports = self._ports[side], self._ports[1 - side]
        source, target = self._addresses[side], self._addresses[1 - side]
        head = pack(">HHIIBBHHH", *ports, sequence, acknowledged, 5 << 4, flags, 0xFFFF, 0, 0)
        pseudo = source.packed + target.packed + pack(">II", len(head) + len(data), _TCP)
        check = _checksum(pseudo + head + data)
        segment = head[:16] + pack(">H", check) + head[18:] + data
        if isinstance(source, IPv6Address):
            return pack(">IHBB", 6 << 28, len(segment), _TCP, 64) + source.packed + target.packed + segment
        parts = 0x45, 0, 20 + len(segment), 0, 0x4000, 64, _TCP
        addresses = source.packed + target.packed
        check = _checksum(pack(">BBHHHBBH", *parts, 0) + addresses)
        return pack(">BBHHHBBH", *parts, check) + addresses + segment


def _ip(text: str, other: str) -> IPv4Address | IPv6Address:
    """Return an address without its zone; if it is not known, the zero one of the other's family."""
    return ip_address(text.partition("%")[0] or ("::" if ":" in other else "0.0.0.0"))


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(unpack(f">{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _serial(frame: Frame, time_ns: int) -> bytes:
    lines = 0
    if frame.kind in (Kind.OPENED, Kind.CLOSED):
        event, lines = _STATUS_CHANGE, _RTS_AND_DTR if frame.kind is Kind.OPENED else 0
    else:
        event = _DATA_SENT if frame.kind is Kind.SENT else _DATA_RECEIVED
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return pack(">IIBBH", seconds, rest_ns // 1000, event, lines, 0) + frame.data


def _interface(talk: Conversation) -> bytes:
    link_type = _RTAC_SERIAL if talk.peer is None else _RAW_IP
    options = _options(
        (_INTERFACE_NAME, talk.link.encode()),
        (_INTERFACE_DESCRIPTION, f"decode with: {' '.join(decoding([talk.link]))}".encode()),
        (_RESOLUTION, _NANOSECONDS),
    )
    return _block(_INTERFACE, pack("<HHI", link_type, 0, 0) + options)


def _packet(interface: int, time_ns: int, is_sent: bool, data: bytes, comment: bytes) -> bytes:
    head = pack("<IIIII", interface, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), len(data))
    flags = pack("<I", _OUTBOUND if is_sent else _INBOUND)
    options = [(_PACKET_FLAGS, flags), *([(_COMMENT, comment)] if comment else [])]
    return _block(_PACKET, head + _padded(data) + _options(*options))


def _options(*options: tuple[int, bytes]) -> bytes:
    return b"".join(pack("<HH", code, len(data)) + _padded(data) for code, data in options) + bytes(4)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return pack("<II", kind, length) + body + pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
