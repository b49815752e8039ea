"""Interoperability: libtorrent, a PCP client as applications have it, at an lwB4.

The lwB4 is made of the kernel's own parts: an SRv6 encapsulation with one segment and no routing
header is a softwire (RFC 2473). Its gateway, where libtorrent asks, is the lwAFTR inside of it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.netns import namespace
from tests.support.ovs import run, wait_for
from tests.support.rig import CONFIG, IPV6, Rig

AFTR, LWB4 = "2001:db8:ffff::1", "2001:db8:b4::77"
ROUTER, TUNNEL = "2001:db8:77::1", "2001:db8:77::2"

CLIENT = """
import json, time
import libtorrent as lt
session = lt.session({
    "listen_interfaces": "192.0.0.2:6881", "enable_natpmp": True, "enable_upnp": False,
    "enable_dht": False, "enable_lsd": False,
    "alert_mask": lt.alert.category_t.port_mapping_notification,
})
transports, end = {}, time.monotonic() + 20
while len(transports) < 2 and time.monotonic() < end:
    session.wait_for_alert(500)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.portmap_alert):
            transports[str(alert.map_protocol)] = alert.external_port
        elif isinstance(alert, lt.portmap_error_alert):
            transports["error"] = alert.message()
print(json.dumps(transports), flush=True)
import os
os._exit(0)  # without giving its ports back
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(CONFIG + "    pcp: {{pool: [198.18.0.0/30]}}\n")
    yield rig
    rig.stop()


@pytest.fixture
def application(rig: Rig) -> Iterator[str]:
    """A namespace whose way out is a softwire to the lwAFTR."""
    with namespace() as app, namespace() as tunnel:
        router = rig.router

        def ip(name: str, *command: str) -> None:
            run("ip", "-n", name, *command)

        def link(left: str, left_name: str, right: str, right_name: str) -> None:
            run("ip", "link", "add", left_name, "netns", left, "type", "veth",
                "peer", "name", right_name, "netns", right)  # fmt: skip
            for name, device in ((left, left_name), (right, right_name)):
                ip(name, "link", "set", device, "up")
                # Checksums are right on the wire, and not left to a NIC that is none.
                run("ip", "netns", "exec", name, "ethtool", "-K", device, "tx", "off")

        for name in (tunnel, router):
            for setting in ("ipv6.conf.all.forwarding", "ipv4.ip_forward"):
                run("ip", "netns", "exec", name, "sysctl", "-qw", f"net.{setting}=1")
        link(app, "eth0", tunnel, "v4")
        link(tunnel, "wan", router, "sub77")
        ip(app, "addr", "add", "192.0.0.2/29", "dev", "eth0")
        ip(app, "route", "add", "default", "via", "192.0.0.1")
        run("ip", "netns", "exec", tunnel, "sysctl", "-qw", "net.ipv4.conf.v4.proxy_arp=1")
        ip(tunnel, "addr", "add", f"{TUNNEL}/64", "dev", "wan", "nodad")
        ip(router, "addr", "add", f"{ROUTER}/64", "dev", "sub77", "nodad")
        ip(tunnel, "route", "add", "192.0.0.2/32", "dev", "v4")
        ip(tunnel, "sr", "tunsrc", "set", LWB4)
        ip(tunnel, "route", "add", "192.0.0.1/32", "encap", "seg6", "mode", "encap.red",
           "segs", AFTR, "dev", "wan")  # fmt: skip
        ip(tunnel, "-6", "route", "add", f"{AFTR}/128", "via", ROUTER)
        ip(tunnel, "-6", "route", "add", f"{LWB4}/128", "encap", "seg6local", "action", "End.DX4",
           "nh4", "0.0.0.0", "dev", "wan")  # fmt: skip
        ip(router, "-6", "route", "add", f"{LWB4}/128", "via", TUNNEL)
        ip(router, "-6", "route", "replace", f"{AFTR}/128", "via", IPV6)
        yield app


def bindings(rig: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rig.controller.rest("GET", f"/v1/lookup?lwb4={LWB4}")[1][
        "bindings"
    ]
    return found


def test_libtorrent_gets_its_ports_mapped(rig: Rig, application: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", application, "/usr/bin/python3", "-c", CLIENT],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    mapped = json.loads(done.stdout.splitlines()[-1])
    assert "error" not in mapped, mapped
    assert len(mapped) == 2, (mapped, done.stderr)  # TCP and UDP
    (binding,) = bindings(rig)
    assert (binding["origin"], binding["psid_offset"]) == ("pcp", 0)
    first = binding["psid"] << 12
    assert all(first <= port < first + 4096 for port in mapped.values())
    # Version 2, not NAT-PMP, of which libtorrent's own words make no difference.
    pcp = rig.controller.rest("GET", "/v1/provisioning/lwaftr1")[1]["pcp"]
    assert pcp["received"]["map"] >= 2
    assert pcp["received"]["unreadable"] == 0
    assert pcp["answered"]["SUCCESS"] == sum(pcp["answered"].values()) >= 2
    wait_for("the switch has it", lambda: binding["state"]["lwaftr1"]["state"] == "applied")
