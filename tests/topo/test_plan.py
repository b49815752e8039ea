"""The lab as it is planned, without building it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.settings import Datapath
from topo.build import Builder
from topo.lwb4.softwire import Tunnel
from topo.plan import (
    FULL,
    MOST_SUBSCRIBERS,
    SHARED,
    SITES,
    SUBSCRIBERS,
    Lab,
    subscribers,
)
from topo.provisioning import Provisioning


@pytest.mark.parametrize("datapath", Datapath)
def test_its_configuration_is_right(tmp_path: Path, datapath: Datapath) -> None:
    path = tmp_path / "lw4o6.yaml"
    path.write_text(Lab(datapath=datapath).config(SITES[0], str(tmp_path)))
    settings = load(path)
    assert settings.instances[0].datapath is datapath
    assert settings.store_url == f"sqlite:///{tmp_path}/lwaftr1/bindings.sqlite"
    # The first subscriber's binding is made over REST.
    assert [binding.psid for binding in settings.bindings] == [4, 0]


def test_napt_uses_every_port_of_the_port_set_and_no_other() -> None:
    lab, sub = Lab(), SUBSCRIBERS[0]
    ranges = re.findall(r"\d+ : 192\.0\.2\.1 \. (\d+)-(\d+)", lab.napt(sub))
    ports = {port for first, last in ranges for port in range(int(first), int(last) + 1)}
    # PSID 3 of offset 6, length 6: sixteen ports in each 1024 but the first.
    assert ports == {1024 * a + 48 + j for a in range(1, 64) for j in range(16)}
    assert f"mod {len(ranges)} " in lab.napt(sub)
    assert "snat to 203.0.113.1" in lab.napt(SUBSCRIBERS[2])


@pytest.mark.parametrize("tunnel", Tunnel)
def test_every_command_is_for_a_node_that_is_there(tunnel: Tunnel) -> None:
    lab = Lab("x", tunnel=tunnel)
    assert {node for node, _ in lab.addresses()} <= set(lab.nodes)
    words = " ".join(word for _, command in lab.addresses() for word in command)
    assert ("mode ipip6" in words) is (tunnel is Tunnel.IPIP6)
    assert ("seg6" in words) is (tunnel is Tunnel.SRV6)


def test_names_of_interfaces_fit() -> None:
    for link in Lab().links:
        assert len(link.left_name) < 16
        assert len(link.right_name) < 16


def test_no_two_subscribers_have_a_port_in_common() -> None:
    found = subscribers(MOST_SUBSCRIBERS)
    assert len({(sub.ipv4, sub.psid) for sub in found}) == MOST_SUBSCRIBERS
    for sub in found:
        assert sub.owns(sub.inbound_port)
        assert sub.ipv4 in (SHARED if sub.params.shared else FULL)


def test_two_labs_share_no_namespace() -> None:
    one, two = Builder(Lab("a")), Builder(Lab("b"))
    names = [built.namespace(node) for built in (one, two) for node in built.lab.nodes]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("provisioning", Provisioning)
def test_lwb4s_that_are_provisioned_have_no_address_yet(
    tmp_path: Path, provisioning: Provisioning
) -> None:
    lab = Lab(provisioning=provisioning)
    words = [word for _, command in lab.addresses() for word in command]
    assert ("192.0.2.1/32" in words) is (provisioning is Provisioning.STATIC)
    path = tmp_path / "lw4o6.yaml"
    path.write_text(lab.config(SITES[0], str(tmp_path)))
    settings = load(path)
    assert bool(settings.bindings) is (provisioning is Provisioning.STATIC)
    (instance,) = settings.instances
    assert (instance.pcp is not None) is (provisioning is Provisioning.PCP)
    assert (instance.dhcp is not None) is (provisioning is Provisioning.DHCP)
