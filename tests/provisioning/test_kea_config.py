"""What Kea is told to lease."""

from __future__ import annotations

from pathlib import Path

from ryu_lw4o6.core.config import load
from ryu_lw4o6.provisioning import kea_config

CONFIG = """\
store: sqlite:////var/lib/lw4o6/bindings.sqlite
prefixes:
  - {prefix: 203.0.113.0/29}
bindings:
  - {lwb4: "2001:db8:b4::6", ipv4: 203.0.113.6}
instances:
  - name: lwaftr1
    datapath_id: 1
    aftr_addresses: ["2001:db8:ffff::1"]
    ipv6: {port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe"}
    ipv4: {port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}
    dhcp: {server: "2001:db8:9::67"}
    pcp: {pool: [203.0.113.2-203.0.113.4]}
"""


def test_kea_leases_what_nobody_else_gives_out(tmp_path: Path) -> None:
    """Neither static bindings nor what PCP gives out (RFC 7596 section 7)."""
    file = tmp_path / "lw4o6.yaml"
    file.write_text(CONFIG)
    made = kea_config.dhcp4(load(file), kea_config.KeaServer())["Dhcp4"]
    (network,) = made["shared-networks"]
    (subnet,) = network["subnet4"]
    assert [pool["pool"] for pool in subnet["pools"]] == [
        "203.0.113.0 - 203.0.113.1",
        "203.0.113.5 - 203.0.113.5",
        "203.0.113.7 - 203.0.113.7",
    ]
