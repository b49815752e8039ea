"""What is made of any bytes as a DHCPv4 or DHCPv6 message. Raises when something is wrong."""

from __future__ import annotations

from ryu_lw4o6.core import dhcpv4, dhcpv6
from ryu_lw4o6.core.errors import Malformed

HEADER = bytes([1, 1, 6]).ljust(236, b"\0") + b"\x63\x82\x53\x63"  # RFC 2131 section 3


def dhcpv4_is_read(data: bytes) -> None:
    """Any bytes, or any bytes as options."""
    if data[:1] != b"\1":
        data = HEADER + data
    try:
        message = dhcpv4.Message.parse(data)
    except Malformed:
        return
    again = dhcpv4.Message.parse(message.pack())
    assert again == message
    assert again.softwire_source == message.softwire_source


def dhcpv6_is_read(data: bytes) -> None:
    try:
        message = dhcpv6.parse(data)
    except Malformed:
        return
    assert dhcpv6.parse(message.pack()) == message
    try:
        relays, innermost = dhcpv6.unwrap(data)
    except Malformed:
        return
    assert dhcpv6.unwrap(dhcpv6.wrap(relays, innermost)) == (relays, innermost)
    if innermost.dhcp4o6_servers is not None:
        assert all(server.packed for server in innermost.dhcp4o6_servers)
