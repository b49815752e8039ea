from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.wire.scenario")

from tests.support.rig import CONFIG, Rig  # noqa: E402

SILENT = (
    CONFIG
    + """\
    hairpinning: false
    failover: none
    icmp: {{unknown_ipv4: false, too_big: false, ttl_expired: false, inbound: false}}
"""
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.stop()


@pytest.fixture(scope="module")
def silent() -> Iterator[Rig]:
    """One that answers nothing and forwards nothing it need not."""
    rig = Rig(SILENT)
    yield rig
    rig.stop()
