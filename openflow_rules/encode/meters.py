"""Meters: what limits how much of something the controller is shown, and counts it exactly.

A flow's counters are credited with every packet that Open vSwitch could send its way, a meter's
with those that came by.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ryu.ofproto import ofproto_v1_3 as ofp
from ryu.ofproto import ofproto_v1_3_parser as parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from openflow_rules.encode.flows import multipart_request
from openflow_rules.tables import Punt

_PROTOCOL = ProtocolDesc(ofp.OFP_VERSION)
_FLAGS = ofp.OFPMF_PKTPS | ofp.OFPMF_BURST | ofp.OFPMF_STATS
_ALL = struct.pack("!I4x", ofp.OFPM_ALL)
_HEADER = 16  # of a multipart reply
_CONFIG = struct.Struct("!HHI")  # length, flags, meter
_BAND = struct.Struct("!HHII4x")  # type, length, rate, burst
_STATS = struct.Struct("!IH6xIQQII")  # meter, length, flows, packets, bytes, seconds, nanoseconds
_BAND_STATS = struct.Struct("!QQ")  # packets, bytes


@dataclass(frozen=True, slots=True)
class MeterStats:
    """``packets`` and ``bytes``, with their Ethernet headers, came to a meter; ``withheld`` of them
    it did not let pass."""

    packets: int = 0
    bytes: int = 0
    withheld: int = 0
    withheld_bytes: int = 0


def set_meter(punt: Punt, rate: int, *, exists: bool) -> bytes:
    """A message that makes the meter of ``punt`` pass ``rate`` packets/s. It begins to count anew.

    Deleting one that ``exists`` would take the flows that use it along.
    """
    command = ofp.OFPMC_MODIFY if exists else ofp.OFPMC_ADD
    band = parser.OFPMeterBandDrop(rate=rate, burst_size=rate)
    message = parser.OFPMeterMod(_PROTOCOL, command, _FLAGS, punt, [band])
    message.set_xid(0)
    message.serialize()
    return bytes(message.buf)


def meter_rates_request(xid: int) -> bytes:
    """Ask for the rates of all meters."""
    return multipart_request(ofp.OFPMP_METER_CONFIG, xid, _ALL)


def meter_stats_request(xid: int) -> bytes:
    """Ask for the counters of all meters."""
    return multipart_request(ofp.OFPMP_METER, xid, _ALL)


def meter_rates(message: bytes) -> Iterator[tuple[int, int | None]]:
    """Each meter's rate out of a reply; None for one that ``set_meter`` has not made so.

    Raises ValueError if the message is cut off.
    """
    for at, length in _entries(message, _CONFIG, 0):
        _, flags, meter = _CONFIG.unpack_from(message, at)
        rate = None
        if flags == _FLAGS and length == _CONFIG.size + _BAND.size:
            kind, _, rate_of_band, burst = _BAND.unpack_from(message, at + _CONFIG.size)
            if kind == ofp.OFPMBT_DROP and rate_of_band == burst:
                rate = rate_of_band
        yield meter, rate


def meter_stats(message: bytes) -> Iterator[tuple[int, MeterStats]]:
    """Each meter's counters out of a reply. Raises ValueError if the message is cut off."""
    for at, length in _entries(message, _STATS, 1):
        meter, _, _, packets, size, _, _ = _STATS.unpack_from(message, at)
        withheld = (0, 0)
        if length >= _STATS.size + _BAND_STATS.size:
            withheld = _BAND_STATS.unpack_from(message, at + _STATS.size)
        yield meter, MeterStats(packets, size, *withheld)


def _entries(message: bytes, fixed: struct.Struct, length_at: int) -> Iterator[tuple[int, int]]:
    """Where each entry of a multipart reply begins, and how long it is."""
    at, end = _HEADER, len(message)
    while at < end:
        if end - at < fixed.size:
            raise ValueError("meter reply is cut off")
        length = fixed.unpack_from(message, at)[length_at]
        if length < fixed.size or at + length > end:
            raise ValueError("meter entry has a wrong length")
        yield at, length
        at += length
