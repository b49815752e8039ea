"""The failover lab as it is planned, without building it."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.settings import Failover, Settings
from topo.failover.plan import ROUTERS, FailoverLab, Mode, Shared, management
from topo.plan import SITES, subscribers

EVERY = [
    FailoverLab("x", mode=mode, mechanism=mechanism, store=store)
    for mode, mechanism, store in itertools.product(Mode, Failover, Shared)
]


def settings(lab: FailoverLab, directory: Path) -> list[Settings]:
    found = []
    for site in lab.sites:
        path = directory / f"{site.name}.yaml"
        path.write_text(lab.config(site, str(directory)))
        found.append(load(path))
    return found


@pytest.mark.parametrize("lab", EVERY, ids=lambda lab: f"{lab.mode} {lab.mechanism} {lab.store}")
def test_both_configurations_are_right_and_fit_each_other(lab: FailoverLab, tmp_path: Path) -> None:
    one, two = settings(lab, tmp_path)
    (first,), (second,) = one.instances, two.instances
    assert first.failover is second.failover is lab.mechanism
    assert first.aftr_addresses == second.aftr_addresses
    assert first.datapath_id != second.datapath_id
    # Dynamic addresses: each has its own prefixes. Otherwise both have the same.
    common = set(first.prefixes) & set(second.prefixes)
    assert len(common) == (0 if lab.mechanism is Failover.ICMPV6 else 2)
    assert first.announce is not None
    assert second.announce is not None
    preferred = first.announce.local_preference - second.announce.local_preference
    assert (preferred > 0) is (lab.mode is Mode.ACTIVE_BACKUP)
    assert (one.store_url == two.store_url) is (lab.store is Shared.POSTGRESQL)
    # Whoever is to be asked is the same for both, and there.
    assert one.supporting_system == two.supporting_system
    if lab.mechanism.validates:
        assert lab.database
        assert "postgresql" in (one.supporting_system.source or one.store_url)


@pytest.mark.parametrize("lab", EVERY, ids=lambda lab: f"{lab.mode} {lab.mechanism} {lab.store}")
def test_routers_understand_their_configuration(lab: FailoverLab, tmp_path: Path) -> None:
    for router in ROUTERS:
        path = tmp_path / router
        path.write_text(lab.bird(router))
        done = subprocess.run(
            ["/usr/sbin/bird", "-p", "-c", str(path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mechanism", Failover)
def test_every_command_is_for_a_node_that_is_there(mechanism: Failover) -> None:
    lab = FailoverLab("x", mechanism=mechanism)
    assert {node for node, _ in lab.addresses()} <= set(lab.nodes)
    assert ("database" in lab.nodes) is mechanism.validates
    for link in lab.links:
        assert len(link.left_name) < 16
        assert len(link.right_name) < 16


def test_sessions_have_links_of_their_own() -> None:
    links = {(link.left, link.right) for link in FailoverLab().links if "mgmt" in link.left_name}
    assert links == set(itertools.product(("lwaftr1", "lwaftr2"), ROUTERS))
    ends = [end for site in SITES for router in ROUTERS for end in management(site, router)]
    assert len(set(ends)) == len(ends) == 8


def test_with_pools_of_its_own_an_lwaftr_serves_the_same_ports_of_other_addresses() -> None:
    lab = FailoverLab(subscribers=subscribers(6), mechanism=Failover.ICMPV6)
    for sub in lab.subscribers:
        here, there = (lab.at(sub, site) for site in lab.sites)
        assert (here.psid, here.params, here.lwb4) == (there.psid, there.params, there.lwb4)
        for bound, site in ((here, SITES[0]), (there, SITES[1])):
            assert sum(bound.ipv4 in pool for pool in lab.pools(site)) == 1
        assert here.ipv4 != there.ipv4


def test_a_lab_is_known_by_what_it_leaves_in_its_directory() -> None:
    """``topo.labs`` makes the same plan of it."""
    from topo.labs import from_options

    for lab in EVERY:
        assert from_options(lab.name, lab.options()) == lab
