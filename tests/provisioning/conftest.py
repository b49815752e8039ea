from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.provisioning.dhcp_rig import DhcpRig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DhcpRig]:
    rig = DhcpRig(Path(tmp_path_factory.mktemp("kea")))
    yield rig
    rig.stop()
