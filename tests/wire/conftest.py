from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rig import CONFIG, Rig, in_vlans

SILENT = (
    CONFIG
    + """\
    hairpinning: false
    failover: none
    icmp: {{unknown_ipv4: false, too_big: false, ttl_expired: false, to_lwaftr: false,
      inbound: false}}
"""
)


@pytest.fixture(scope="module", params=[(0, 0), (100, 200)], ids=["untagged", "tagged"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The configuration that most scenarios are about, without VLANs and with one on each side.
    Without them, one scenario meets the datapath flows that those before it have left behind; with
    them each begins with none, which is faster."""
    vlans = request.param
    rig = Rig(in_vlans(CONFIG, *vlans), vlans=vlans, purges=vlans != (0, 0))
    yield rig
    rig.stop()


@pytest.fixture(scope="module")
def silent() -> Iterator[Rig]:
    """One that answers nothing and forwards nothing it need not."""
    rig = Rig(SILENT)
    yield rig
    rig.stop()
