from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.ovs import Ovs


@pytest.fixture(scope="module")
def ovs() -> Iterator[Ovs]:
    """A bridge br0 with ports eth6 = 1, eth4 = 2, softwire0 = 3 and nobody in control."""
    switch = Ovs()
    try:
        switch.bridge("br0", "eth6", "eth4", controller="unix:/nonexistent")
        yield switch
    finally:
        switch.stop()
