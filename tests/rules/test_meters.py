"""Meter messages to the byte (OpenFlow 1.3.5, A.3.4.4 and A.3.5.12 to 13)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openflow_rules import encode
from openflow_rules.tables import PUNT_MEANING, Punt
from tests.support.openflow import Connection
from tests.support.ovs import Ovs

REPLY = "04 13 0000 00000007"
RATES = bytes.fromhex(
    f"{REPLY} 000a 0000 00000000"  # OFPMP_METER_CONFIG, the last part
    "0018 000e 00000004"  # 24 bytes; packets/s, burst, statistics; meter 4
    "0001 0010 000003e8 000003e8 00000000"  # drop beyond 1000, burst 1000
    "0018 000d 00000017"  # kilobits/s: not ours
    "0001 0010 000003e8 000003e8 00000000"
)
STATS = bytes.fromhex(
    f"{REPLY} 0009 0000 00000000"  # OFPMP_METER
    "00000017 0038 000000000000 00000002"  # meter 23, 56 bytes, two flows use it
    "0000000000000006 0000000000002328 0000003c 00000000"  # 6 packets, 9000 bytes, a minute
    "0000000000000005 0000000000001d4c"  # 5 of them dropped, 7500 bytes
)


def test_set_meter() -> None:
    expected = (
        "04 1d 0020 00000000"  # OFPT_METER_MOD
        "0001 000e 00000004"  # MODIFY; packets/s, burst, statistics
        "0001 0010 000003e8 000003e8 00000000"
    )
    message = encode.set_meter(Punt.TOO_BIG, 1000, exists=True)
    assert message == bytes.fromhex(expected)
    assert encode.set_meter(Punt.TOO_BIG, 1000, exists=False)[8:10] == b"\0\0"  # ADD


def test_requests() -> None:
    asked = "04 12 0018 00000007 {} 0000 00000000 ffffffff 00000000"  # all meters
    assert encode.meter_rates_request(7) == bytes.fromhex(asked.format("000a"))
    assert encode.meter_stats_request(7) == bytes.fromhex(asked.format("0009"))


def test_replies() -> None:
    assert list(encode.meter_rates(RATES)) == [(4, 1000), (23, None)]
    assert list(encode.meter_stats(STATS)) == [(23, encode.MeterStats(6, 9000, 5, 7500))]


@pytest.mark.parametrize("reply", [RATES, STATS], ids=["rates", "stats"])
def test_replies_that_are_cut_off(reply: bytes) -> None:
    read = encode.meter_rates if reply is RATES else encode.meter_stats
    for length in range(17, len(reply)):
        if reply is RATES and length == 16 + 24:
            continue  # the first meter is there in full
        with pytest.raises(ValueError, match="meter"):
            list(read(reply[:length]))


@given(st.binary(max_size=200))
def test_garbage_causes_no_other_error(body: bytes) -> None:
    for read in (encode.meter_rates, encode.meter_stats):
        with contextlib.suppress(ValueError):
            list(read(bytes(16) + body))


def test_the_switch_takes_and_tells_them(ovs: Ovs) -> None:
    connection = Connection(ovs.directory / "br0.mgmt")
    try:
        connection.set_meters(77)
        found = dict(connection.ask(encode.meter_rates_request, encode.meter_rates))
        assert found == dict.fromkeys(Punt, 77)
        counted = dict(connection.ask(encode.meter_stats_request, encode.meter_stats))
        assert counted.keys() == found.keys()
    finally:
        connection.close()


def test_every_meter_that_may_withhold_says_what() -> None:
    assert set(Punt) - set(PUNT_MEANING) == {Punt.NEIGHBOUR}
