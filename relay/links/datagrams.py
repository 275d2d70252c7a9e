"""What travels on a link: probes, a few bytes of ours, and the contract's messages.

A datagram is a probe or a message by its first byte. Whatever is malformed raises `LinkViolation`; the node closes the
link's connection then, and nothing else.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

import msgspec

from tradewind.contract.messages import Received

PROTOCOL = "tradewind-link/1"
"""The ALPN."""
PROBE, MESSAGE = 1, 2
MOST_BYTES = 1200
MOST_COUNT = 2**53
MOST_NEXT_S = 1.0

_PROBE = Struct(">BQQI")
SMALLEST_PROBE_BYTES = _PROBE.size


class LinkViolation(Exception):
    """The far end sent what no link sends."""


class Probe(NamedTuple):
    """One probe. Times are of the sender's clock and good for differences alone."""

    number: int
    """From 1, one more for each."""
    sent_us: int
    next_us: int
    """The next one leaves no later than so much after this one."""


def encode_probe(probe: Probe, size_bytes: int) -> bytes:
    """The datagram, padded with zeros to `size_bytes`."""
    return _PROBE.pack(PROBE, *probe).ljust(size_bytes, b"\0")


def encode_report(report: Received) -> bytes:
    """The datagram of a report."""
    return b"\x02" + _encoder.encode(report)


def decode_datagram(data: bytes) -> Probe | Received:
    """What a datagram says. Raises LinkViolation."""
    if not 0 < len(data) <= MOST_BYTES:
        raise LinkViolation("a datagram of no size for a link")
    kind = data[0]
    if kind == PROBE:
        if len(data) < SMALLEST_PROBE_BYTES:
            raise LinkViolation("a probe that is cut short")
        _, number, sent_us, next_us = _PROBE.unpack_from(data)
        if not 0 < number <= MOST_COUNT:
            raise LinkViolation("a probe's number out of bounds")
        return Probe(number, sent_us, next_us)
    if kind == MESSAGE:
        return _decode_report(data[1:])
    raise LinkViolation("a datagram of unknown kind")


# Ten a second from each of 32 neighbours: straight to bytes and back, without the contract's envelope. The link's
# protocol has a version of its own in its name.
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Received] = msgspec.msgpack.Decoder(Received)


def _decode_report(data: bytes) -> Received:
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LinkViolation("a message that does not fit its type") from error
