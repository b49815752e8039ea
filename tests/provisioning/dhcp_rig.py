"""A whole lwAFTR, a Kea behind its access router, and lwB4s: see ``tests.support.rig``.

Kea and the lwB4s live in the router's namespace, at addresses of their own.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.provisioning import kea_config
from tests.support.kea import Kea, server
from tests.support.lwb4 import WANTED, Client
from tests.support.netns import inside
from tests.support.ovs import run, wait_for
from tests.support.rig import Rig

SERVER = "2001:db8:9::67"
OWN, ANYCAST, SECOND_AFTR = "2001:db8:1::1", "2001:db8:ffff::1", "2001:db8:ffff::2"
LEASE_SECONDS = 600
DUID = "00:03:00:01:02:00:00:00:ff:fe"
"""Of the lwB4 that has a static binding, which Kea tells it by DHCPv6."""
A6K6 = PortParams(6, 6)
SHARED = Prefix(IPv4Network("192.0.2.0/28"), A6K6, IPv4Network("10.64.0.0/22"))

CONFIG = """\
store: sqlite:///{directory}/bindings.sqlite
prefixes:
  - {{prefix: 192.0.2.0/28, psid_offset: 6, psid_length: 6, leased_as: 10.64.0.0/22}}
  - {{prefix: 203.0.113.0/29}}
bindings:
  - {{lwb4: "2001:db8:b4::fffe", ipv4: 192.0.2.0, psid: 0}}
instances:
  - name: lwaftr1
    datapath_id: 1
    bridge: br0
    aftr_addresses: ["2001:db8:ffff::1", "2001:db8:ffff::2"]
    ipv6: {{port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe", mtu: 1500}}
    ipv4: {{port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}}
    prefixes: {prefixes}
    dhcp: {{server: "2001:db8:9::67", access_relays: ["2001:db8:ac::/64"]}}
"""


class DhcpRig(Rig):
    """``shared`` or full addresses are leased. ``kea`` keeps its files in ``directory``."""

    def __init__(
        self, directory: Path, *, shared: bool = True, config: str = CONFIG, **fields: Any
    ) -> None:
        prefixes = "[192.0.2.0/28]" if shared else "[203.0.113.0/29]"
        if not shared:
            config = config.replace("ipv4: 192.0.2.0, psid: 0", "ipv4: 203.0.113.0")
        super().__init__(config.replace("{prefixes}", prefixes))
        fields = {"lease_seconds": LEASE_SECONDS} | fields
        try:
            # Open vSwitch would hand on frames whose checksums a NIC was to fill in.
            run("ip", "netns", "exec", self.router, "ethtool", "-K", "wire6", "tx", "off")
            self._add("2001:db8:9::67/128", "wire6")
            self._add("198.51.100.67/32", "wire6")
            run("ip", "-n", self.router, "-6", "route", "add", "2001:db8:ffff::/64", "via", OWN,
                "dev", "wire6")  # fmt: skip
            self.server = server(directory, "wire6", **fields)
            settings = load(self.controller.config)
            self.kea = Kea(
                directory,
                {"dhcp4": kea_config.dhcp4(settings, self.server),
                 "dhcp6": kea_config.dhcp6(settings, self.server, {DUID: settings.bindings[0]})},
                self.router,
            )  # fmt: skip
            self._exits.callback(self.kea.stop)
            self.kea.start()
        except BaseException:
            self.stop()
            raise

    def client(
        self, address: str, server: str = ANYCAST, *, wanted: bytes = WANTED, port: int = 546
    ) -> Client:
        """An lwB4 that sends to one of the lwAFTR's addresses."""
        self._add(f"{address}/128", "lo")
        with inside(self.router):
            client = Client(address, server, wanted=wanted, port=port)
        self._exits.callback(client.close)
        return client

    def _add(self, address: str, device: str) -> None:
        family, nodad = ("-6", ["nodad"]) if ":" in address else ("-4", [])
        ip = ("ip", family, "-n", self.router)
        run(*ip, "addr", "replace", address, "dev", device, *nodad)
        # The kernel takes packets for an IPv6 address a moment after it has the address.
        local = (*ip, "route", "show", "table", "local", address.partition("/")[0])
        wait_for("packets are taken", lambda: run(*local).stdout)

    def dhcp(self) -> dict[str, Any]:
        """The relay's state."""
        status, body = self.controller.rest("GET", "/v1/provisioning/lwaftr1")
        assert status == 200
        found: dict[str, Any] = body["dhcp"]
        return found

    def dropped(self) -> Counter[str]:
        return Counter(self.dhcp()["dropped"])

    def bindings(self) -> list[dict[str, Any]]:
        """Those that DHCP has made."""
        status, body = self.controller.rest("GET", "/v1/bindings?origin=dhcp")
        assert status == 200
        return list(body["bindings"])
