from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ryu_lw4o6.core.addresses import ipv4, ipv6, text_of


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_read_as_it_is_written(address: IPv4Address) -> None:
    assert ipv4(str(address)) == address


@given(st.ip_addresses(v=6))
@example(IPv6Address("::"))
@example(IPv6Address("::1"))
@example(IPv6Address("::c000:201"))
@example(IPv6Address("::ffff:192.0.2.1"))
@example(IPv6Address("2001:db8:0:1:1:1:1:1"))  # a single 0 is no "::" (RFC 5952 section 4.2.2)
@example(IPv6Address("2001:db8:0:0:1:0:0:1"))  # the first of two as long (section 4.2.3)
def test_an_ipv6_address_is_written_as_everywhere_and_read_again(address: IPv6Address) -> None:
    assert text_of(address) == str(address)
    assert ipv6(text_of(address)) == address
    assert ipv6(address.exploded.upper()) == address


@given(st.one_of(st.text(max_size=45), st.from_regex(r"[0-9a-fA-F:.%]{0,45}", fullmatch=True)))
def test_what_is_no_address_is_none_here_either(text: str) -> None:
    for read, kind in ((ipv4, IPv4Address), (ipv6, IPv6Address)):
        try:
            expected = kind(text)
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                read(text)
        else:
            if "%" not in text:
                assert read(text) == expected


@pytest.mark.parametrize(
    "text", ["", "192.0.2", "192.0.2.1.", "192.0.2.01", "1\x00", "192.0.2.1%1"]
)
def test_no_ipv4_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IPv4 address"):
        ipv4(text)


def test_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="is not an IPv6 address without a zone"):
        ipv6("fe80::1%eth0")
