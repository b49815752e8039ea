"""Configuration files: what is read, and that all that is wrong is reported, at its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ryu_lw4o6.core.binding import Binding, Origin, Prefix
from ryu_lw4o6.core.config import ConfigError, load
from ryu_lw4o6.core.pool import AddressRange
from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams
from ryu_lw4o6.core.settings import (
    Datapath,
    DhcpRelay,
    Dscp,
    Failover,
    FlowLabel,
    IcmpPolicy,
    Instance,
    Ipv4Side,
    Ipv6Side,
    Pcp,
    Settings,
    SupportingSystem,
    br_tag,
)

GOOD = """\
prefixes:
  - prefix: 192.0.2.0/28
    psid_offset: 6
    psid_length: 6
  - prefix: 203.0.113.0/29
bindings:
  - {lwb4: "2001:db8:b4::1", ipv4: 192.0.2.1, psid: 3}
  - {lwb4: "2001:db8:b4::3", ipv4: 203.0.113.1, br_address: "2001:db8:ffff::2"}
instances:
  - name: lwaftr1
    datapath_id: 1
    aftr_addresses:
      - 2001:db8:ffff::1
      - 2001:db8:ffff::2
    ipv6:
      port: eth6
      address: 2001:db8:1::1/64
      next_hop: 2001:db8:1::fe
      mtu: 1540
    ipv4:
      port: eth4
      address: 198.51.100.1/24
      next_hop: 198.51.100.254
"""

SHARED = Prefix(IPv4Network("192.0.2.0/28"), PortParams(6, 6))
WHOLE = Prefix(IPv4Network("203.0.113.0/29"), FULL_ADDRESS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lw4o6.yaml"


def problems(path: Path, text: str) -> list[str]:
    """``line path: reason. suggestion`` of each problem of the file."""
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    return [f"{p.line or '-'} {str(p).partition(': ')[2]}" for p in raised.value.problems]


def test_every_value_arrives(path: Path) -> None:
    path.write_text(GOOD)
    assert load(path) == Settings(
        instances=(
            Instance(
                name="lwaftr1",
                datapath_id=1,
                ipv6=Ipv6Side(
                    "eth6", IPv6Interface("2001:db8:1::1/64"), IPv6Address("2001:db8:1::fe"), 1540
                ),
                ipv4=Ipv4Side(
                    "eth4", IPv4Interface("198.51.100.1/24"), IPv4Address("198.51.100.254"), 1500
                ),
                aftr_addresses=(IPv6Address("2001:db8:ffff::1"), IPv6Address("2001:db8:ffff::2")),
                prefixes=(SHARED, WHOLE),
            ),
        ),
        prefixes=(SHARED, WHOLE),
        bindings=(
            Binding(
                IPv6Address("2001:db8:b4::1"), IPv4Address("192.0.2.1"), 3, SHARED.params,
                origin=Origin.STATIC,
            ),
            Binding(
                IPv6Address("2001:db8:b4::3"), IPv4Address("203.0.113.1"), 0, FULL_ADDRESS,
                IPv6Address("2001:db8:ffff::2"), Origin.STATIC,
            ),
        ),
    )  # fmt: skip


def test_every_option_arrives(path: Path) -> None:
    (path.parent / "token").write_text("s3cret-token\n")
    (path.parent / "token").chmod(0o640)
    path.write_text(
        GOOD.replace("port: eth6", "port: eth6\n      vlan: 100\n      hop_limit: 64\n"
                     "      flow_label: hashed\n      dscp: outer")
        .replace("port: eth4", "port: eth6\n      vlan: 200")
        .replace("instances:", "store: sqlite:////tmp/b.sqlite\n"
                     "rest: {token_file: token, max_body: 4096}\n"
                     "supporting_system: {file: subscribers.csv, deadline: 0.5, remember_no: 7, "
                     "recheck: 600}\ninstances:")
        + """\
    prefixes: [203.0.113.0/29, 192.0.2.0/28]
    bridge: br7
    softwire_port: sw7
    datapath: system
    hairpinning: off
    failover: data-packet+icmpv6
    icmp:
      unknown_ipv4: true
      too_big: false
      ttl_expired: false
      to_lwaftr: false
      inbound: false
      rate: 5
"""
    )  # fmt: skip
    settings = load(path)
    assert settings.store_url == "sqlite:////tmp/b.sqlite"
    assert (settings.rest.token, settings.rest.max_body) == ("s3cret-token", 4096)
    (instance,) = settings.instances
    assert (instance.ipv6.vlan, instance.ipv6.hop_limit) == (100, 64)
    assert (instance.ipv6.flow_label, instance.ipv4.vlan) == (FlowLabel.HASHED, 200)
    assert instance.ipv6.dscp is Dscp.OUTER
    assert instance.ipv4.port == instance.ipv6.port == "eth6"
    assert (instance.bridge, instance.softwire_port) == ("br7", "sw7")
    assert instance.datapath is Datapath.KERNEL
    assert instance.hairpinning is False
    assert instance.icmp == IcmpPolicy(True, False, False, False, False, 5)
    assert instance.failover is Failover.DATA_PACKET_ICMPV6
    assert instance.failover.validates
    assert instance.failover.answers
    assert settings.supporting_system == SupportingSystem(
        str(path.parent / "subscribers.csv"), 0.5, 7, 600
    )
    assert instance.prefixes == (SHARED, WHOLE)


def test_what_dhcp_leases_is_not_for_pcp(path: Path) -> None:
    text = GOOD.replace("psid_offset: 6", "psid_offset: 0\n    leased_as: 10.64.0.0/22")
    text = text.replace("psid: 3", "psid: 5") + "    dhcp: {server: 2001:db8:9::67}\n"
    (problem,) = problems(path, text + "    pcp: {}\n")
    assert problem.startswith("26 instances[0].pcp: 192.0.2.0/28 is leased by DHCP, too")
    path.write_text(text + "    pcp: {pool: [203.0.113.0/29]}\n")
    assert load(path).instances[0].pcp is not None


def test_dhcp_arrives(path: Path) -> None:
    text = GOOD.replace("psid_length: 6", "psid_length: 6\n    leased_as: 10.64.0.0/22")
    path.write_text(text + "    dhcp: {server: 2001:db8:9::67}\n")
    settings = load(path)
    assert settings.prefixes == (replace(SHARED, leased_as=IPv4Network("10.64.0.0/22")), WHOLE)
    server, own = IPv6Address("2001:db8:9::67"), IPv6Address("2001:db8:1::1")
    assert settings.instances[0].dhcp == DhcpRelay(server, own, 64)
    path.write_text(
        GOOD + "    dhcp: {server: 2001:db8:9::67, address: 2001:db8:9::1, "
        "softwire_prefix_length: 56, access_relays: [2001:db8:ac::/64, 2001:db8::1]}\n"
    )
    assert load(path).instances[0].dhcp == DhcpRelay(
        server, IPv6Address("2001:db8:9::1"), 56,
        (IPv6Network("2001:db8:ac::/64"), IPv6Network("2001:db8::1/128")),
    )  # fmt: skip


@pytest.mark.parametrize(
    "endpoint", ["/run/kea/kea4-ctrl-socket", "http://[::1]:8000", "http://user:a%20b@kea.example/"]
)
def test_kea_arrives(path: Path, endpoint: str) -> None:
    path.write_text(f"supporting_system: {{kea: '{endpoint}', warm: yes, refresh: 5}}\n" + GOOD)
    assert load(path).supporting_system == SupportingSystem(f"kea:{endpoint}", refresh=5, warm=True)


def test_one_s_own_store_is_no_other_supporting_system(path: Path) -> None:
    """What is made of its answers must not be written over what it was asked."""
    store = "postgresql+psycopg://lw4o6@/lw4o6"
    text = f"store: {store}\nsupporting_system: {{store: '{store}', deadline: 2}}\n"
    path.write_text(text + GOOD)
    assert load(path).supporting_system == SupportingSystem(None, deadline=2)


@pytest.mark.parametrize("text", ["31", "0x1f", "000000000000001f"])
def test_datapath_ids_are_written_in_three_ways(path: Path, text: str) -> None:
    path.write_text(GOOD.replace("datapath_id: 1", f"datapath_id: {text}"))
    assert load(path).instances[0].datapath_id == 31


WRONG = [
    # What is replaced, by what, and a problem there is then: its line, path and reason.
    ("name: lwaftr1", "name: x\n    failover: icmp", "11 instances[0].failover: 'icmp' is not a "
     "failover mechanism. Did you mean icmpv6?"),
    ("prefixes:", "supporting_system: {file: b.txt}\nprefixes:",
     "1 supporting_system.file: 'b.txt' is neither .csv nor .json"),
    ("prefixes:", "supporting_system: {file: b.csv, store: 'sqlite:////b'}\nprefixes:",
     "1 supporting_system: has both store and file"),
    ("prefixes:", "supporting_system: {kea: /run/x, file: b.csv}\nprefixes:",
     "1 supporting_system: has both file and kea. Keep the one"),
    ("prefixes:", "supporting_system: {kea: run/x}\nprefixes:",
     "1 supporting_system.kea: 'run/x' is neither the path of a socket nor a http:// URL"),
    ("prefixes:", "supporting_system: {kea: 'https://kea'}\nprefixes:",
     "1 supporting_system.kea: 'https://kea' is neither the path"),
    ("prefixes:", "supporting_system: {kea: 'http://u:secret@ka:99999'}\nprefixes:",
     "1 supporting_system.kea: 'ka:99999' is neither the path"),
    ("prefixes:", f"supporting_system: {{kea: /{'x' * 107}}}\nprefixes:",
     "1 supporting_system.kea: '/xxxx"),
    ("prefixes:", "supporting_system: {read_ahead: -1}\nprefixes:",
     "1 supporting_system.read_ahead: -1 is out of range. Use 0 to 1000000"),
    ("prefixes:", "supporting_system: {warm: maybe}\nprefixes:",
     "1 supporting_system.warm: 'maybe' is neither true nor false"),
    ("prefixes:", "supporting_system: {refresh: 0}\nprefixes:",
     "1 supporting_system.refresh: 0 is out of range. Use 1 to 86400"),
    ("prefixes:", "supporting_system: {deadline: 0}\nprefixes:",
     "1 supporting_system.deadline: 0 is out of range. Use 0.05 to 30"),
    ("prefixes:", "supporting_system: {deadline: soon}\nprefixes:",
     "1 supporting_system.deadline: 'soon' is not a number of seconds"),
    ("name: lwaftr1", "nmae: lwaftr1", "10 instances[0].nmae: unknown key. Did you mean name?"),
    ("prefixes:", "colour: red\nprefixes:", "1 colour: unknown key. Known are store, supporting"),
    ("psid_offset: 6", "psid_offset: 16", "3 prefixes[0].psid_offset: 16 is out of range"),
    ("psid_offset: 6", "psid_offset: 11", "2 prefixes[0]: PSID offset 11 + PSID length 6 exceeds"),
    ("psid_offset: 6", "psid_offset: six", "3 prefixes[0].psid_offset: 'six' is not a whole numb"),
    ("psid_offset: 6", "psid_offset: 06", "3 prefixes[0].psid_offset: 06 starts with 0"),
    ("psid_offset: 6", "psid_offset: [6]", "3 prefixes[0].psid_offset: not a single value"),
    ("psid_offset: 6", "psid_offset:", "3 prefixes[0].psid_offset: empty"),
    ("psid: 3", "psid: 64", "7 bindings[0]: PSID 64 is out of range: a PSID of length 6 is in 0"),
    ("psid: 3", "psid: -1", "7 bindings[0].psid: -1 is out of range. Use 0 to 65535"),
    ("203.0.113.1,", "203.0.113.1, psid: 1,", "8 bindings[1]: PSID 1 is out of range: a full add"),
    ("203.0.113.0/29", "192.0.2.8/29", "5 prefixes[1].prefix: 192.0.2.8/29 overlaps 192.0.2.0/28"),
    ("203.0.113.0/29", "203.0.113.1/29", "5 prefixes[1].prefix: 203.0.113.1/29 has host bits set. "
     "Did you mean 203.0.113.0/29?"),
    ("203.0.113.0/29", "203.0.113.0", "5 prefixes[1].prefix: 203.0.113.0 has no prefix length"),
    ("203.0.113.0/29", "2001:db8::/32", "5 prefixes[1].prefix: 2001:db8::/32 is IPv6, not an IPv4"),
    ("203.0.113.0/29", "127.0.0.0/8", "5 prefixes[1].prefix: 127.0.0.0/8 has addresses that no h"),
    ("ipv4: 203.0.113.1", "ipv4: 192.0.2.99", "8 bindings[1].ipv4: 192.0.2.99 is in none of the p"),
    ("ipv4: 203.0.113.1", "ipv4: 192.0.2.1, psid: 3", "8 bindings[1]: 192.0.2.1 PSID 3 is bound "
     "already (line 7). Remove one of the two"),
    ('"2001:db8:b4::1"', '"192.0.2.77"', "7 bindings[0].lwb4: 192.0.2.77 is IPv4, not an IPv6 add"),
    ('"2001:db8:b4::1"', '"ff02::1"', "7 bindings[0].lwb4: ff02::1 is not the address of a single"),
    ('"2001:db8:b4::1"', '"fe80::1%eth0"', "7 bindings[0].lwb4: 'fe80::1%eth0' has a zone"),
    ('"2001:db8:b4::1"', '"2001:db8:1::1"', "7 bindings[0]: lwB4 2001:db8:1::1 is an address of "),
    ('br_address: "2001:db8:ffff::2"', 'br_address: "2001:db8:ffff::3"',
     "8 bindings[1].br_address: 2001:db8:ffff::3 is no instance's"),
    ("ipv4: 192.0.2.1", "ip: 192.0.2.1", "7 bindings[0].ip: unknown key. Did you mean ipv4?"),
    ("datapath_id: 1", "datapath_id: 0", "11 instances[0].datapath_id: 0 is out of range"),
    ("datapath_id: 1", "datapath_id: 0x10000000000000000", "11 instances[0].datapath_id: '0x1000"),
    ("datapath_id: 1", "datapath_id: br0", "11 instances[0].datapath_id: 'br0' is not a datapath"),
    ("- 2001:db8:ffff::2", "- 2001:db8:ffff::1", "14 instances[0].aftr_addresses[1]: 2001:db8:fff"),
    ("port: eth4", "port: eth4\n      vlan: 4095", "22 instances[0].ipv4.vlan: 4095 is out of ra"),
    ("mtu: 1540", "vlan: 0", "19 instances[0].ipv6.vlan: 0 is out of range. Use 1 to 4094"),
    ("mtu: 1540", "hop_limit: 256", "19 instances[0].ipv6.hop_limit: 256 is out of range. Use 1 "),
    ("mtu: 1540", "dscp: both", "19 instances[0].ipv6.dscp: 'both' is none of inner, outer"),
    ("mtu: 1540", "flow_label: 7", "19 instances[0].ipv6.flow_label: '7' is none of zero, hashed"),
    ("mtu: 1540", "filters: [{direction: up, action: deny}]",
     "19 instances[0].ipv6.filters[0].direction: 'up' is none of in, out"),
    ("mtu: 1540", "filters: [{direction: in}]",
     "19 instances[0].ipv6.filters[0].action: missing"),
    ("mtu: 1540", "filters: [{direction: in, action: deny, destination_port: 25}]",
     "19 instances[0].ipv6.filters[0]: ports need a protocol that has them. Add protocol: tcp"),
    ("mtu: 1540", "filters: [{direction: in, action: deny, protocol: tcp, source_port: 9-3}]",
     "19 instances[0].ipv6.filters[0].source_port: '9-3' is not a port. Use one, such as 25"),
    ("mtu: 1540", "filters: [{direction: in, action: deny, lwb4: 2001:db8::1/32}]",
     "19 instances[0].ipv6.filters[0].lwb4: '2001:db8::1/32' is not an IPv6 prefix"),
    ("port: eth4", "port: eth4\n      filters: [{direction: in, action: deny, lwb4: '::/0'}]",
     "22 instances[0].ipv4.filters[0].lwb4: unknown key"),
    ("port: eth4", "port: softwire0", "10 instances[0].softwire_port: softwire0 is also instances"),
    ("port: eth4", "port: a/b", "21 instances[0].ipv4.port: 'a/b' is not an interface name"),
    ("port: eth4", "port: interface-sixteen", "21 instances[0].ipv4.port: 'interface-sixteen' is"),
    ("mtu: 1540", "mtu: 1279", "19 instances[0].ipv6.mtu: 1279 is out of range. Use 1280 to 65535"),
    ("next_hop: 2001:db8:1::fe", "next_hop: 2001:db8:2::fe", "18 instances[0].ipv6.next_hop: 2001"),
    ("next_hop: 2001:db8:1::fe", "next_hop: 2001:db8:1::1", "18 instances[0].ipv6.next_hop: 2001:d"
     "b8:1::1 is the lwAFTR itself"),
    ("address: 2001:db8:1::1/64", "address: 192.0.2.1/24", "17 instances[0].ipv6.address: 192.0.2.1"
     "/24 is IPv4, not an IPv6 address"),
    ("address: 198.51.100.1/24", "address: 192.0.2.14/28", "22 instances[0].ipv4.address: 192.0.2.1"
     "4 lies in 192.0.2.0/28, whose addresses belong to lwB4s"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.101.1", "23 instances[0].ipv4.next_hop: 198.51.1"
     "01.1 is not in 198.51.100.0/24"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.255", "23 instances[0].ipv4.next_hop: 198.51"
     ".100.255 is the first or last of"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    hairpinning: maybe",
     "24 instances[0].hairpinning: 'maybe' is neither true nor false"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    datapath: kernel",
     "24 instances[0].datapath: 'kernel' is not a datapath. Use netdev (userspace) or"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    icmp: {rate: 0}",
     "24 instances[0].icmp.rate: 0 is out of range"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    prefixes: [10.0.0.0/8]",
     "24 instances[0].prefixes[0]: 10.0.0.0/8 is not among the top-level prefixes"),
    ("psid_length: 6", "psid_length: 6\n    leased_as: 10.64.0.0/16",
     "5 prefixes[0].leased_as: 10.64.0.0/16 has 65536 addresses, 192.0.2.0/28 has 1024 port sets. "
     "Use a /22"),
    ("psid_length: 6", "psid_length: 6\n    leased_as: 10.64.0.1/22",
     "5 prefixes[0].leased_as: 10.64.0.1/22 has host bits set. Did you mean 10.64.0.0/22?"),
    ("192.0.2.0/28\n    psid_offset: 6\n    psid_length: 6",
     "64.0.0.0/4\n    psid_length: 6\n    leased_as: 10.0.0.0/8",
     "4 prefixes[0].leased_as: 64.0.0.0/4 has 17179869184 port sets, more than IPv4 networks"),
    ("psid_length: 6", "psid_length: 6\n    leased_as: 203.0.112.0/22",
     "6 prefixes[1].prefix: leased as 203.0.113.0/29, which overlaps 203.0.112.0/22 of line 2"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    dhcp: {address: 2001:db8:1::1}",
     "24 instances[0].dhcp.server: missing. Add server"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    dhcp: {server: 192.0.2.99}",
     "24 instances[0].dhcp.server: 192.0.2.99 is IPv4, not an IPv6 address"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    dhcp: {server: 2001:db8:ffff::1}",
     "24 instances[0].dhcp.server: 2001:db8:ffff::1 is the lwAFTR itself"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    dhcp: {server: 2001:db8:9::67, "
     "address: 2001:db8:ffff::1}",
     "24 instances[0].dhcp.address: 2001:db8:ffff::1 is an AFTR address, where another lwAFTR"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    dhcp: {server: 2001:db8:9::67, "
     "softwire_prefix_length: 129}",
     "24 instances[0].dhcp.softwire_prefix_length: 129 is out of range. Use 0 to 128"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    dhcp: {server: 2001:db8:9::67, "
     "access_relays: [2001:db8:ac::1/64]}",
     "24 instances[0].dhcp.access_relays[0]: 2001:db8:ac::1/64 has host bits set. Did you mean"),
    ("next_hop: 198.51.100.254", "next_hop: 198.51.100.254\n    dhcp: {server: 2001:db8:9::67, "
     "access_relays: [10.0.0.0/8]}",
     "24 instances[0].dhcp.access_relays[0]: 10.0.0.0/8 is IPv4, not an IPv6 prefix"),
    ("prefixes:", "store: mysql://db/x\nprefixes:", "1 store: 'mysql://db/x' is not the URL of a "),
    ("prefixes:", "store: sqlite:///here\nprefixes:", "1 store: 'sqlite:///here' is not the URL"),
    ("prefixes:", "rest: {token_file: absent}\nprefixes:", "1 rest.token_file: "),
    ("prefixes:", "rest: {max_body: 12}\nprefixes:", "1 rest.max_body: 12 is out of range"),
    ("prefixes:", "bindings_csv: absent.csv\nprefixes:", "1 bindings_csv: "),
    ("prefixes:\n", "prefixes: &a\n", None),  # an anchor alone does no harm
    ("name: lwaftr1", "name: *a", "10 not YAML: alias *a, which is not supported"),
    ("name: lwaftr1", "name: lwaftr1\n    name: lwaftr2", "11 instances[0].name: also on line 10"),
    ("name: lwaftr1", "name: 'lw aftr'", "10 instances[0].name: 'lw aftr' is not a name"),
    ("name: lwaftr1", "name: {lwaftr1", "11 not YAML: "),
    ("    datapath_id: 1\n", "", "10 instances[0].datapath_id: missing. Add datapath_id"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), WRONG)
def test_a_problem(path: Path, old: str, new: str, expected: str | None) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if expected is None:
        path.write_text(text)
        assert load(path).instances
        return
    found = problems(path, text)
    assert any(problem.startswith(expected) for problem in found), found


def test_all_problems_are_reported_at_once_and_in_order(path: Path) -> None:
    text = GOOD.replace("psid_length: 6", "psid_length: 60").replace("1540", "12")
    text = text.replace("name: lwaftr1", "name: ''").replace("eth4", "eth/4")
    found = problems(path, text)
    assert [problem.split(":")[0] for problem in found] == [
        "4 prefixes[0].psid_length", "10 instances[0].name", "19 instances[0].ipv6.mtu",
        "21 instances[0].ipv4.port",
    ]  # fmt: skip


def test_a_prefix_that_is_wrong_does_not_make_its_bindings_wrong(path: Path) -> None:
    found = problems(path, GOOD.replace("192.0.2.0/28", "192.0.2.1/28"))
    assert len(found) == 1


def test_all_problems_of_a_binding_are_reported(path: Path) -> None:
    """One that is wrong in itself may be wrong among the others, too."""
    wrong = (
        '  - {lwb4: 192.0.2.9, ipv4: 192.0.2.1, psid: 64, br_address: "2001:db8:ffff::9"}\n'
        '  - {lwb4: "2001:db8:ffff::1", ipv4: 192.0.2.1, psid: 3}\n'
    )
    found = problems(path, GOOD.replace("instances:\n", wrong + "instances:\n"))
    assert [problem.split(". ")[0] for problem in found] == [
        "9 bindings[2].lwb4: 192.0.2.9 is IPv4, not an IPv6 address",
        "9 bindings[2].br_address: 2001:db8:ffff::9 is no instance's",
        "9 bindings[2]: PSID 64 is out of range: a PSID of length 6 is in 0..63",
        "10 bindings[3]: lwB4 2001:db8:ffff::1 is an address of the lwAFTR",
        "10 bindings[3]: 192.0.2.1 PSID 3 is bound already (line 7)",
    ]


def test_what_is_no_key_is_not_offered_as_one(path: Path) -> None:
    (found,) = problems(
        path, GOOD.replace("    datapath_id: 1\n", "    datapath_id: 1\n    _index: 1\n")
    )
    assert found.startswith("12 instances[0]._index: unknown key")
    assert found.count("_index") == 1


def test_two_instances_share_neither_name_nor_datapath_id(path: Path) -> None:
    again = GOOD[GOOD.index("  - name: lwaftr1") :]
    found = problems(path, GOOD + again)
    assert found[0].startswith("24 instances[1].name: lwaftr1 is also instances[0].name (line 10)")
    assert found[1].startswith("25 instances[1].datapath_id: 1 is also instances[0].datapath_id")
    assert len(found) == 2


def test_a_nic_for_both_sides_is_right_beside_a_mistake(path: Path) -> None:
    one_nic = GOOD.replace("port: eth4", "port: eth6")
    (found,) = problems(path, one_nic.replace("2001:db8:1::1/64", "2001:db8:1::1"))
    assert "ipv6.address: 2001:db8:1::1 has no prefix length" in found


def test_a_binding_needs_an_instance_that_serves_its_prefix_from_its_br_address(
    path: Path,
) -> None:
    other = GOOD[GOOD.index("  - name: lwaftr1") :].replace("lwaftr1", "lwaftr2")
    other = other.replace("datapath_id: 1", "datapath_id: 2").replace("ffff::2", "ffff::9")
    served = "    prefixes: [192.0.2.0/28]\n"
    (problem,) = problems(path, GOOD + served + other + served)
    assert problem.startswith("8 bindings[1]: no instance serves 203.0.113.0/29")
    (problem,) = problems(path, GOOD + served + other)
    assert problem.startswith(
        "8 bindings[1]: no instance that serves 203.0.113.0/29 has the br_address 2001:db8:ffff::2"
    )


def test_addresses_that_the_softwire_port_cannot_tell_apart(path: Path) -> None:
    one, other = "2001:db8:ffff:0:adc8:875f:b9df:b7b0", "2001:db8:ffff:0:9af7:5a07:98df:5aa3"
    assert br_tag(IPv6Address(one)) == br_tag(IPv6Address(other))
    text = GOOD.replace("- 2001:db8:ffff::1", f"- {one}")
    text = text.replace("- 2001:db8:ffff::2", f"- {other}").replace("2001:db8:ffff::2", other)
    (problem,) = problems(path, text)
    assert problem.startswith(f"14 instances[0].aftr_addresses[1]: {other} has the same CRC-32 as")


# --- PCP ------------------------------------------------------------------------------------------

CONTIGUOUS = GOOD.replace("psid_offset: 6", "psid_offset: 0")


def with_pcp(text: str, good: str = CONTIGUOUS) -> str:
    return good + "    pcp: " + text + "\n"


def test_pcp(path: Path) -> None:
    path.write_text(CONTIGUOUS)
    assert load(path).instances[0].pcp is None
    path.write_text(with_pcp("{}"))
    shared = Prefix(SHARED.network, PortParams(0, 6))
    everything = tuple(
        AddressRange(each.network[0], each.network[-1], each) for each in (shared, WHOLE)
    )
    assert load(path).instances[0].pcp == Pcp(everything)
    path.write_text(with_pcp("{}", GOOD))  # what is not contiguous is left out
    assert load(path).instances[0].pcp == Pcp(everything[1:])
    path.write_text(
        with_pcp(
            "{pool: [192.0.2.8/30, 203.0.113.1 - 203.0.113.2, 192.0.2.1], server: 192.0.0.5,"
            " min_lifetime: 5, max_lifetime: 600, mappings: 3, system_ports: true}"
        )
    )
    pool = (
        AddressRange(IPv4Address("192.0.2.8"), IPv4Address("192.0.2.11"), shared),
        AddressRange(IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2"), WHOLE),
        AddressRange(IPv4Address("192.0.2.1"), IPv4Address("192.0.2.1"), shared),
    )
    assert load(path).instances[0].pcp == Pcp(pool, IPv4Address("192.0.0.5"), 5, 600, 3, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{pools: []}", "pools: unknown key. Did you mean pool?"),
        ("", "pcp: empty"),
        ("{pool: []}", "pool: the list is empty"),
        ("{pool: [10.0.0.0/24]}", "pool[0]: 10.0.0.0-10.0.0.255 does not lie in one"),
        ("{pool: [192.0.2.14-203.0.113.1]}", "pool[0]: 192.0.2.14-203.0.113.1 does not lie in"),
        ("{pool: [192.0.2.9-192.0.2.1]}", "pool[0]: 192.0.2.9 comes after 192.0.2.1. Write"),
        ("{pool: [192.0.2.1/30]}", "pool[0]: 192.0.2.1/30 has host bits set"),
        ("{pool: [x-y]}", "pool[0]: 'x' is not an IPv4 address"),
        ("{pool: [192.0.2.0/29, 192.0.2.7]}", "pool[1]: overlaps instances[0].pcp.pool[0]"),
        ("{server: 192.0.2.1}", "server: 192.0.2.1 lies in 192.0.2.0/28"),
        ("{server: 2001:db8::1}", "server: 2001:db8::1 is IPv6"),
        ("{min_lifetime: 0}", "min_lifetime: 0 is out of range"),
        ("{min_lifetime: 90000}", "min_lifetime: the shortest lifetime, 90000, is longer than"),
        ("{max_lifetime: 60}", "max_lifetime: the shortest lifetime, 120, is longer than"),
        ("{mappings: 0}", "mappings: 0 is out of range"),
        ("{system_ports: 3}", "system_ports: '3' is neither"),
    ],
)
def test_problems_of_pcp(path: Path, text: str, expected: str) -> None:
    (problem,) = problems(path, with_pcp(text))
    assert expected in problem


def test_pcp_needs_contiguous_port_sets(path: Path) -> None:
    (problem,) = problems(path, with_pcp("{pool: [192.0.2.1]}", GOOD))
    assert "pool[0]: port sets of 192.0.2.0/28 are not contiguous" in problem
    (problem,) = problems(path, with_pcp("{}\n    prefixes: [192.0.2.0/28]", GOOD).replace(
        '  - {lwb4: "2001:db8:b4::3", ipv4: 203.0.113.1, br_address: "2001:db8:ffff::2"}\n', ""
    ))  # fmt: skip
    assert "pcp: none of the prefixes has contiguous port sets" in problem


def test_all_problems_of_pcp_are_reported(path: Path) -> None:
    found = problems(path, with_pcp("{server: x, pool: [y, 1.2.3.4], mappings: z}"))
    assert len(found) == 4


# --- CSV ------------------------------------------------------------------------------------------


def with_csv(path: Path, text: str) -> str:
    (path.parent / "bindings.csv").write_text(text)
    return "bindings_csv: bindings.csv\n" + GOOD


def test_bindings_come_from_csv_too(path: Path) -> None:
    path.write_text(
        with_csv(
            path,
            "psid,lwb4,ipv4,br_address\r\n"
            "4, 2001:db8:b4::4 ,192.0.2.1,\r\n"
            "\r\n"
            ",2001:DB8:B4:0::5,203.0.113.2,2001:db8:ffff::2\r\n",
        )
    )
    csv = load(path).bindings[2:]
    assert csv == (
        Binding(
            IPv6Address("2001:db8:b4::4"), IPv4Address("192.0.2.1"), 4, SHARED.params,
            origin=Origin.STATIC,
        ),
        Binding(
            IPv6Address("2001:db8:b4::5"), IPv4Address("203.0.113.2"), 0, FULL_ADDRESS,
            IPv6Address("2001:db8:ffff::2"), Origin.STATIC,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lwb4,ipv4\n2001:db8::1\n", "2 1 columns, the header has 2"),
        ("lwb4,ipv4\n2001:db8::1,192.0.2.1,5\n", "2 3 columns, the header has 2"),
        ("lwb4,ipv4,psid\n2001:db8::1,192.0.2.1,x\n", "2 psid: 'x' is not a whole number"),
        ("lwb4,ipv4,psid\n2001:db8::1,192.0.2.1,64\n", "2 PSID 64 is out of range"),
        ("lwb4,ipv4\n192.0.2.1,2001:db8::1\n", "2 lwb4: 192.0.2.1 is IPv4"),
        ("lwb4,ipv4\n,192.0.2.1\n", "2 lwb4: '' is not an IPv6 address"),
        ("lwb4,ipv4\n2001:db8::1,10.0.0.1\n", "2 ipv4: 10.0.0.1 is in none of the prefixes"),
        (
            "lwb4,ipv4\n2001:db8::1,192.0.2.2\n2001:db8::2,192.0.2.2\n",
            "3 192.0.2.2 PSID 0 is bound",
        ),
        ("lwb4,ipv4,psid\n2001:db8::1,192.0.2.1,3\n", "2 192.0.2.1 PSID 3 is bound already ("),
        ("lwb4,ipv\n", "1 unknown column 'ipv'. Did you mean ipv4?"),
        ("lwb4,lwb4,ipv4\n", "1 lwb4: the column is there twice"),
        ("lwb4\n", "1 ipv4: the column is missing"),
        ("", "1 the file is empty"),
        ('lwb4,ipv4\n"2001:db8::1,192.0.2.1\n', "2 not CSV: unexpected end of data"),
    ],
)
def test_problems_of_a_csv_file(path: Path, text: str, expected: str) -> None:
    found = problems(path, with_csv(path, text))
    assert any(problem.startswith(expected) for problem in found), found


def test_all_problems_of_a_row_are_reported(path: Path) -> None:
    found = problems(path, with_csv(path, "lwb4,ipv4,psid\nx,y,z\n2001:db8::1,192.0.2.2,1\n"))
    assert [problem.split(":")[0] for problem in found] == ["2 lwb4", "2 ipv4", "2 psid"]


def test_all_problems_of_a_row_among_the_others_are_reported(path: Path) -> None:
    found = problems(path, with_csv(path, "lwb4,ipv4,psid\nx,192.0.2.2,64\ny,192.0.2.1,3\n"))
    assert [problem.split(". ")[0] for problem in found] == [
        "2 lwb4: 'x' is not an IPv6 address",
        "2 PSID 64 is out of range: a PSID of length 6 is in 0..63",
        "3 lwb4: 'y' is not an IPv6 address",
        f"3 192.0.2.1 PSID 3 is bound already ({path}:8)",
    ]


# --- files that are no configuration --------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"- a\n- b\n", "not a mapping"),
        (b"just text", "not a mapping"),
        (b"a: \xff\n", "byte 0xff is not UTF-8"),
        (b"a: \x00\n", "not YAML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 5000, "not YAML: nested too deeply"),
        (b"a: 1\n---\nb: 2\n", "not YAML"),
        (b"{1: 2, [3]: 4}", "unknown key"),
        (b"? [a, b]\n: c\n", "a key is not a single word"),
        (b"prefixes: !!python/object:os.system x\n", "not a list"),
    ],
)
def test_what_is_no_configuration(path: Path, data: bytes, reason: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=reason):
        load(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for bad in (tmp_path, tmp_path / "absent", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=r"cannot be read|not a regular file"):
            load(bad)


def test_a_token_that_others_can_read_is_refused(path: Path) -> None:
    token = path.parent / "token"
    token.write_text("s3cret-token")
    token.chmod(0o644)
    (problem,) = problems(path, "rest: {token_file: token}\n" + GOOD)
    assert f"{token}: can be read or changed by others. Run chmod o=,g-w {token}" in problem
    assert "s3cret" not in problem


def test_passwords_are_not_shown(path: Path) -> None:
    (problem,) = problems(path, "store: postgres://u:hunter2@db/x\n" + GOOD)
    assert "hunter2" not in problem


@example("prefixes: [{prefix: 0.0.0.0/0}]")
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "lw4o6.yaml"
    path.write_text(text, newline="")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert raised.value.problems


ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(),
    st.sampled_from(["192.0.2.1", "192.0.2.0/24", "2001:db8::1", "::/0", "0x1", "eth0", "", "\0"]),
    st.text(max_size=20),
)  # fmt: skip
TREES = st.recursive(
    ATOMS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ATOMS, inner))
)


@given(data=st.data(), tree=TREES)
def test_any_value_at_any_place_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, tree: object
) -> None:
    """A good file in which some value is replaced by whatever YAML can say."""
    document = yaml.safe_load(GOOD)
    parent, key = data.draw(st.sampled_from(list(places(document))))
    parent[key] = tree
    path = tmp_path_factory.mktemp("fuzz") / "lw4o6.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True))
    try:
        found: Sequence[object] = load(path).instances
    except ConfigError as error:
        found = [p for p in error.problems if p.reason and p.suggestion]
    assert found


def places(tree: Any) -> list[tuple[Any, Any]]:
    if isinstance(tree, dict):
        return [(tree, k) for k in tree] + [p for v in tree.values() for p in places(v)]
    if isinstance(tree, list):
        return [(tree, i) for i in range(len(tree))] + [p for v in tree for p in places(v)]
    return []
