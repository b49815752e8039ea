"""What becomes of subscribers at a failover, by what the lwAFTRs do about unknown packets."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.lab.commands import PINGS_PER_SECOND, Ping, lab, left, up
from topo.failover.build import FailoverBuilder
from topo.nodes import wait_for
from topo.plan import SERVER


def test_icmpv6_and_ecmp_each_lwb4_makes_its_binding_anew_where_its_packets_go() -> None:
    try:
        built = up("--mechanism", "icmpv6", "--mode", "active-active", "--own-pools",
                   "--subscribers", "6")  # fmt: skip
        assert built.anycast_ways == ["lwaftr1", "lwaftr2"]
        hosts = [sub.host for sub in built.lab.subscribers]
        shares = [len(_bindings(built, name)) for name in built.lwaftrs]
        assert sum(shares) == len(hosts)  # each at one of them
        assert lab("fail", "backup", "--how", "kill").returncode == 0
        for host in hosts:
            wait_for("it is provisioned anew", partial(_reaches, built, host))
        assert len(_bindings(built, "lwaftr1")) == len(hosts)
        assert lab("recover", "backup").returncode == 0
        for host in hosts:
            wait_for("it is provisioned anew", partial(_reaches, built, host))
    finally:
        lab("down")
    assert left() == []


def test_icmpv6_and_a_central_dhcp_server_every_lwb4_keeps_its_address() -> None:
    try:
        built = up("--mechanism", "icmpv6", "--provisioning", "dhcp")
        subs = built.lab.subscribers
        before = [built.lwb4s.address(sub) for sub in subs]
        assert lab("fail", "primary", "--how", "kill").returncode == 0
        for sub in subs:
            wait_for("it is provisioned anew", partial(_reaches, built, sub.host))
        assert [built.lwb4s.address(sub) for sub in subs] == before
        for sub in subs:
            status = built.lwb4s.status(sub)
            assert status is not None
            assert status["counters"]["icmpv6_accepted"] == status["restarts"] == 1
        assert {b["lwb4"] for b in _bindings(built, "lwaftr2")} == {str(s.lwb4) for s in subs}
        assert lab("recover", "primary").returncode == 0
        for sub in subs:
            wait_for("it goes on", partial(_reaches, built, sub.host))
    finally:
        lab("down")
    assert left() == []


def test_a_shared_store_lets_the_backup_know_every_binding_beforehand() -> None:
    try:
        built = up("--mechanism", "none", "--store", "postgresql")
        for name in built.lwaftrs:
            assert len(_bindings(built, name)) == len(built.lab.subscribers)
        ping = Ping(built, "host1")
        assert lab("fail", "primary").returncode == 0
        body = '{"lwb4": "2001:db8:b4:9::1", "ipv4": "192.0.2.9", "psid": 9}'
        made = lab("rest", "--lwaftr", "lwaftr2", "POST", "/v1/bindings?wait=applied", body)
        assert made.returncode == 0, made.stderr
        assert lab("recover", "primary").returncode == 0
        assert ping.lost() <= PINGS_PER_SECOND
        assert len(_bindings(built, "lwaftr1")) == len(built.lab.subscribers) + 1
    finally:
        lab("down")
    assert left() == []


def _reaches(built: FailoverBuilder, host: str) -> bool:
    return built.run(host, "ping", "-c", "1", "-W", "1", str(SERVER), check=False).returncode == 0


def _bindings(built: FailoverBuilder, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = built.lwaftrs[name].rest("GET", "/v1/bindings")[1]["bindings"]
    return found
