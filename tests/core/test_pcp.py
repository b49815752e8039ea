"""PCP messages, byte by byte against RFC 6887 and RFC 7753, and whatever else may arrive."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core import pcp
from ryu_lw4o6.core.pcp import (
    Filter,
    Ignored,
    Mapping,
    Opcode,
    Options,
    PortSet,
    Refused,
    Request,
    Response,
    Result,
)

B4 = IPv4Address("192.0.0.2")
NONCE = bytes.fromhex("0102030405060708090a0b0c")

HEADER = "02 01 0000 00000e10 00000000000000000000ffffc0000002"  # MAP for an hour, 192.0.0.2
MAP = (
    "0102030405060708090a0b0c"  # nonce
    "11 000000 1000 1400"  # UDP, internal port 4096, suggested external port 5120
    "00000000000000000000ffffc0000201"  # suggested external address 192.0.2.1
)
PORT_SET = "82 00 0005 0400 1000 01 000000"  # 1024 ports from internal port 4096, parity


def data(*parts: str) -> bytes:
    return bytes.fromhex("".join(parts))


def test_map_request_with_port_set_to_the_byte() -> None:
    request = Request(
        Opcode.MAP,
        B4,
        3600,
        Mapping(NONCE, 17, 4096, 5120, IPv4Address("192.0.2.1")),
        Options(port_set=PortSet(1024, 4096, parity=True)),
    )
    expected = data(HEADER, MAP, PORT_SET)
    assert len(expected) == 72
    assert request.encode() == expected
    assert pcp.parse_request(expected) == request


def test_map_response_to_the_byte() -> None:
    response = Response(
        Opcode.MAP,
        Result.SUCCESS,
        3600,
        1000,
        Mapping(NONCE, 17, 4096, 5120, IPv4Address("192.0.2.1")),
        Options(port_set=PortSet(1024, 5120)),
    )
    expected = data(
        "02 81 00 00 00000e10 000003e8 000000000000000000000000", MAP, "82000005 0400 1400 00000000"
    )
    assert response.encode() == expected
    assert pcp.parse_response(expected) == response


def test_announcement_to_the_byte() -> None:
    expected = data("02 80 00 00 00000000 0000002a", "00" * 12)
    assert pcp.announcement(42) == expected
    assert pcp.parse_response(expected) == Response(0, Result.SUCCESS, 0, 42)


@pytest.mark.parametrize(
    ("options", "wire"),
    [
        (Options(third_party=B4), "01 00 0010 00000000000000000000ffffc0000002"),
        (Options(prefer_failure=True), "02 00 0000"),
        (
            Options(filters=(Filter(120, 53, IPv4Address("198.18.0.0")), Filter(0, 0, B4))),
            "03 00 0014 00 78 0035 00000000000000000000ffffc6120000"
            "03 00 0014 00 00 0000 00000000000000000000ffffc0000002",
        ),
        (
            Options(filters=(Filter(32, 0, IPv6Address("2001:db8::")),)),
            "03 00 0014 00 20 0000 20010db8000000000000000000000000",
        ),
    ],
)
def test_options_to_the_byte(options: Options, wire: str) -> None:
    assert options.encode() == data(wire)
    assert pcp.parse_request(data(HEADER, MAP, wire)).options == options


def test_an_unknown_option_that_may_be_passed_over_is() -> None:
    parsed = pcp.parse_request(data(HEADER, MAP, "ff 00 0003 abcdef 00", PORT_SET))
    assert parsed.options == Options(port_set=PortSet(1024, 4096, parity=True))


@pytest.mark.parametrize(
    "message",
    ["", "02", "02 81", "02 01", data(HEADER)[:23].hex(), f"{HEADER.replace('01', '81', 1)}{MAP}"],
)
def test_what_is_no_request_is_ignored(message: str) -> None:
    with pytest.raises(Ignored):
        pcp.parse_request(data(message))


def test_all_protocols_with_a_port_set() -> None:
    """The request of RFC 7753 section 5.2: which ports, all protocols', are mine?"""
    request = data(
        HEADER, MAP.replace("11 000000 1000", "00 000000 0001"), "82 00 0005 ffff 0001 00 000000"
    )
    parsed = pcp.parse_request(request)
    assert parsed.mapping is not None
    assert (parsed.mapping.protocol, parsed.mapping.internal_port) == (0, 1)
    assert parsed.options.port_set == PortSet(65535, 1)


FILTER_128 = "03 00 0014 00 80 0035 00000000000000000000ffffc6120909"
FILTER_10 = "03 00 0014 00 0a 0000 00000000000000000000ffffc6120000"  # below an IPv4 address's 96


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (data("00 00"), Result.UNSUPP_VERSION),  # NAT-PMP asks for the external address
        (data("01", (HEADER + MAP)[2:]), Result.UNSUPP_VERSION),
        (data(HEADER, MAP, "00"), Result.MALFORMED_REQUEST),
        (data(HEADER, MAP).ljust(1104, b"\xff"), Result.MALFORMED_REQUEST),
        (data(HEADER), Result.MALFORMED_REQUEST),
        (data(HEADER, MAP.replace("11 ", "00 ")), Result.MALFORMED_REQUEST),
        (data(HEADER.replace("01", "02", 1), MAP), Result.UNSUPP_OPCODE),
        (data(HEADER.replace("01", "7f", 1), MAP), Result.UNSUPP_OPCODE),
        (data(HEADER, MAP, "04 00 0000"), Result.UNSUPP_OPTION),
        (data(HEADER.replace("01", "00", 1), "02 00 0000"), Result.UNSUPP_OPTION),
        (data(HEADER, MAP, "02 00 0004 00000000"), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, "04 00 0000", "82 00 0005 04001000"), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, "82 00 0005 0400"), Result.MALFORMED_REQUEST),
        (data(HEADER, MAP, "82 00 0005 04001000"), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, "82 00 0004 04001000"), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, PORT_SET, PORT_SET), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, PORT_SET.replace("0400 ", "0000 ")), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, PORT_SET.replace("1000 ", "1001 ")), Result.MALFORMED_OPTION),
        (
            data(HEADER, MAP.replace("11 ", "00 "), PORT_SET.replace("0400 ", "0001 ")),
            Result.MALFORMED_REQUEST,
        ),
        (data(HEADER.replace("0e10", "0000"), MAP, "02 00 0000"), Result.MALFORMED_OPTION),
        (data(HEADER, MAP.replace("1400", "0000"), "02 00 0000"), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, "02 00 0000", PORT_SET), Result.MALFORMED_OPTION),
        (data(HEADER.replace("0e10", "0000"), MAP, FILTER_128), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, FILTER_10), Result.MALFORMED_OPTION),
        (data(HEADER, MAP, FILTER_10.replace("0a", "81", 1)), Result.MALFORMED_OPTION),
    ],
)
def test_bad_requests(message: bytes, result: Result) -> None:
    with pytest.raises(Refused) as refused:
        pcp.parse_request(message)
    assert refused.value.result is result
    answer = pcp.error_response(message, result, 7)
    assert answer[:4] == bytes([2, 0x80 | message[1], 0, result])
    assert answer[4:12] == data("00000708 00000007")  # 30 minutes: it will not go by itself
    assert len(answer) % 4 == 0
    assert 24 <= len(answer) <= pcp.MAX_LENGTH
    assert answer[24:].startswith(message[24 : pcp.MAX_LENGTH])


def test_an_error_response_says_what_it_is_about() -> None:
    request = data(HEADER, MAP, PORT_SET)
    answer = pcp.error_response(request, Result.NO_RESOURCES, 1000)
    assert answer[:24] == data("02 81 00 08 0000001e 000003e8", "00" * 12)
    assert answer[24:] == request[24:]
    assert pcp.parse_response(answer).mapping == pcp.parse_request(request).mapping
    lifetime = pcp.error_response(request, Result.NOT_AUTHORIZED, 1000, 77)[4:8]
    assert lifetime == data("0000004d")


def test_what_could_not_be_read_comes_back_with_the_end_of_its_client_address() -> None:
    request = data("01", (HEADER + MAP)[2:])
    answer = pcp.error_response(request, Result.UNSUPP_VERSION, 0)
    assert answer[12:24] == request[12:24] == data("00000000 0000ffff c0000002")
    nat_pmp = pcp.error_response(data("00 00"), Result.UNSUPP_VERSION, 5)
    assert nat_pmp == data("02 80 00 01 00000708 00000005", "00" * 12)


@pytest.mark.parametrize(
    "message",
    [
        "02 81 00 00",
        f"02 01 00 00 00000e10 000003e8 {'00' * 12} {MAP}",  # a request
        f"01 81 00 00 00000e10 000003e8 {'00' * 12} {MAP}",
        f"02 81 00 00 00000e10 000003e8 {'00' * 12}",  # where is the mapping?
        f"03 81 00 08 00000e10 000003e8 {'00' * 12} {MAP}",
        f"02 81 00 00 00000e10 000003e8 {'00' * 12} {MAP} 82 00 0004 04001000",
    ],
)
def test_bad_responses(message: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any will do)
        pcp.parse_response(data(message))


@pytest.mark.parametrize(
    ("head", "result"),
    [("02 81 00 63", Result.NO_RESOURCES), ("03 81 00 01", Result.UNSUPP_VERSION)],
)
def test_every_error_is_one(head: str, result: Result) -> None:
    """One that is not known, and that of a server which does not know version 2 (section 9)."""
    response = pcp.parse_response(data(f"{head} 00000e10 000003e8 {'00' * 12} {MAP}"))
    assert (response.result, response.lifetime) == (result, 3600)
    assert response.mapping is not None


def test_a_client_passes_over_options_that_it_does_not_know() -> None:
    """Those that a server would have to refuse, too (RFC 6887 section 7.3)."""
    response = f"02 81 00 00 00000e10 000003e8 {'00' * 12} {MAP} 7f 00 0003 abcdef 00 {PORT_SET}"
    parsed = pcp.parse_response(data(response))
    assert parsed.options == Options(port_set=PortSet(1024, 4096, parity=True))


@pytest.mark.parametrize(
    ("previous", "current", "elapsed", "plausible"),
    [
        (1000, 1010, 10.0, True),
        (1000, 999, 0.0, True),  # a second may be lost to rounding
        (1000, 998, 0.0, False),
        (1000, 0, 10.0, False),  # the server has lost its state
        (1000, 2000, 10.0, False),  # another server, started earlier
        (1000, 1160, 152.0, True),  # 160 - 160/16 = 150 < 152 + 2
        (1000, 1160, 147.0, False),  # 149 < 150
        (1000, 1147, 160.0, False),
        (1000, 1148, 160.0, True),
    ],
)
def test_epoch(previous: int, current: int, elapsed: float, plausible: bool) -> None:
    assert pcp.epoch_is_plausible(previous, current, elapsed) is plausible


ports = st.integers(0, 0xFFFF)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
    lambda address: address.version == 4 or address.ipv4_mapped is None
)
mappings = st.builds(
    Mapping, st.binary(min_size=12, max_size=12), st.integers(1, 255), ports, ports, addresses
)
filters = st.builds(Filter, st.integers(96, 128), ports, addresses)
options = st.builds(
    Options,
    st.none() | addresses,
    filters=st.lists(filters, max_size=3).map(tuple),
    port_set=st.none() | st.builds(PortSet, st.integers(1, 0xFFFF), ports, st.booleans()),
)


@given(addresses, st.integers(0, 0xFFFFFFFF), mappings, options)
def test_a_request_is_read_as_it_was_written(
    client: IPv4Address, lifetime: int, mapping: Mapping, given_options: Options
) -> None:
    if given_options.port_set is not None:
        port_set = replace(given_options.port_set, first_internal_port=mapping.internal_port)
        given_options = replace(given_options, port_set=port_set)
    if lifetime == 0:
        given_options = replace(given_options, filters=())  # nothing to filter is left
    request = Request(Opcode.MAP, client, lifetime, mapping, given_options)
    assert pcp.parse_request(request.encode()) == request


@given(st.sampled_from(Result), st.integers(0, 0xFFFFFFFF), mappings, options)
def test_a_response_is_read_as_it_was_written(
    result: Result, seconds: int, mapping: Mapping, given_options: Options
) -> None:
    kept = given_options if result is Result.SUCCESS else Options()
    response = Response(Opcode.MAP, result, seconds, seconds, mapping, kept)
    assert pcp.parse_response(response.encode()) == response


@given(st.binary(max_size=1200) | st.binary(max_size=120).map(lambda rest: b"\2\1" + rest))
def test_anything_else_is_ignored_or_refused(message: bytes) -> None:
    result = None
    with contextlib.suppress(Ignored):
        try:
            pcp.parse_request(message)
        except Refused as refused:
            result = refused.result
    if result is not None:
        assert pcp.parse_response(pcp.error_response(message, result, 0)).result is result
    with contextlib.suppress(ValueError):
        pcp.parse_response(message)
