"""The failover lab as it is planned, without building it."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.settings import Failover, Settings
from ryu_lw4o6.provisioning import kea_config
from ryu_lw4o6.provisioning.kea_config import KeaServer
from topo.failover.plan import ROUTERS, FailoverLab, Mode, Shared, fitting, management
from topo.kea import kea_settings
from topo.plan import SITES
from topo.provisioning import Provisioning


def _every() -> Iterator[FailoverLab]:
    for mode, mechanism, store, provisioning, own in itertools.product(
        Mode, Failover, Shared, Provisioning, (False, True)
    ):
        # Not all go together.
        with contextlib.suppress(ValueError):
            yield FailoverLab(
                "x", mode=mode, mechanism=mechanism, store=store, provisioning=provisioning,
                own_pools=own,
            )  # fmt: skip


EVERY = list(_every())


def _id(lab: FailoverLab) -> str:
    own = "own" if lab.own_pools else "same"
    return f"{lab.mode} {lab.mechanism} {lab.store} {lab.provisioning} {own}"


def settings(lab: FailoverLab, directory: Path) -> list[Settings]:
    found = []
    for site in lab.sites:
        path = directory / f"{site.name}.yaml"
        path.write_text(lab.config(site, str(directory)))
        found.append(load(path))
    return found


@pytest.mark.parametrize("lab", EVERY, ids=_id)
def test_both_configurations_are_right_and_fit_each_other(lab: FailoverLab, tmp_path: Path) -> None:
    one, two = settings(lab, tmp_path)
    (first,), (second,) = one.instances, two.instances
    assert first.failover is second.failover is lab.mechanism
    assert first.aftr_addresses == second.aftr_addresses
    assert first.datapath_id != second.datapath_id
    common = {p.network for p in first.prefixes} & {p.network for p in second.prefixes}
    assert len(common) == (0 if lab.own_pools else 2)
    assert first.announce is not None
    assert second.announce is not None
    preferred = first.announce.local_preference - second.announce.local_preference
    assert (preferred > 0) is (lab.mode is Mode.ACTIVE_BACKUP)
    assert (one.store_url == two.store_url) is (lab.store is Shared.POSTGRESQL)
    # Whoever is to be asked is the same for both, and there.
    assert one.supporting_system == two.supporting_system
    if lab.mechanism.validates and lab.provisioning is Provisioning.STATIC:
        assert lab.database
        assert "postgresql" in (one.supporting_system.source or one.store_url)


@pytest.mark.parametrize("lab", EVERY, ids=_id)
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
    lab = FailoverLab("x", mechanism=mechanism, provisioning=fitting(mechanism, Shared.NONE))
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


def test_what_nobody_would_know_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody knows any binding"):
        FailoverLab(mechanism=Failover.ICMPV6)
    with pytest.raises(ValueError, match="what PCP servers have given out"):
        FailoverLab(mechanism=Failover.DATA_PACKET, provisioning=Provisioning.PCP)
    with pytest.raises(ValueError, match="own pools"):
        FailoverLab(
            mode=Mode.ACTIVE_ACTIVE, mechanism=Failover.ICMPV6, provisioning=Provisioning.DHCP
        )


def test_kea_leases_the_pools_of_both_lwaftrs(tmp_path: Path) -> None:
    for own, count in ((False, 2), (True, 4)):
        lab = FailoverLab(mechanism=Failover.ICMPV6, provisioning=Provisioning.DHCP, own_pools=own)
        made = kea_config.dhcp4(kea_settings(lab, tmp_path), KeaServer())["Dhcp4"]
        subnets = [s["subnet"] for net in made["shared-networks"] for s in net["subnet4"]]
        assert len(set(subnets)) == len(subnets) == count


def test_a_lab_is_known_by_what_it_leaves_in_its_directory() -> None:
    """``topo.labs`` makes the same plan of it."""
    from topo.labs import from_options

    for lab in EVERY:
        assert from_options(lab.name, lab.options()) == lab
