"""Labs whose lwB4s are told their addresses, as people use them."""

from __future__ import annotations

import pytest

from tests.lab.commands import NAME, lab, left
from topo.labs import standing
from topo.plan import SERVER
from topo.provisioning import Provisioning


@pytest.mark.parametrize("provisioning", [Provisioning.PCP, Provisioning.DHCP])
def test_lwb4s_come_to_their_addresses(provisioning: Provisioning) -> None:
    try:
        done = lab("up", "--provisioning", provisioning)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the lab is up already" in lab("up", "--provisioning", provisioning).stdout
        built = standing(NAME)
        assert built is not None
        for sub in built.lab.subscribers:
            assert built.run(sub.host, "ping", "-c", "1", "-W", "3", str(SERVER)).returncode == 0
        status = lab("status")
        assert status.returncode == 0, status.stdout
        assert status.stdout.count(f"{provisioning} bound: 192.0.2.") == 3
        bindings = built.lwaftr.rest("GET", "/v1/bindings")[1]["bindings"]
        assert {binding["origin"] for binding in bindings} == {provisioning.value}
        leases = [built.lwb4s.address(sub) for sub in built.lab.subscribers]
        assert len(set(leases)) == 3
    finally:
        lab("down")
    assert left() == []
