"""The kinds of labs there are, and which one stands."""

from __future__ import annotations

import json
from typing import Any

from ryu_lw4o6.core.settings import Datapath, Failover
from topo.build import OPTIONS, RUN, Builder
from topo.failover.build import FailoverBuilder
from topo.failover.plan import FailoverLab, Mode, Shared
from topo.lwb4.softwire import Tunnel
from topo.plan import MOST_SUBSCRIBERS, Lab, subscribers
from topo.provisioning import Provisioning


def builder_of(lab: Lab) -> Builder:
    """The builder for a lab."""
    return FailoverBuilder(lab) if isinstance(lab, FailoverLab) else Builder(lab)


def standing(name: str) -> Builder | None:
    """The lab of that name, as it was built; None if there is none."""
    try:
        options = json.loads((RUN / name / OPTIONS).read_text())
    except (OSError, ValueError):
        # Whatever it was, the largest lab has all nodes that it may have.
        largest = FailoverLab(
            name, subscribers(MOST_SUBSCRIBERS), provisioning=Provisioning.DHCP,
            mechanism=Failover.ICMPV6, store=Shared.POSTGRESQL,
        )  # fmt: skip
        builder = builder_of(largest)
        return builder if builder.exists() else None
    return builder_of(from_options(name, options))


def from_options(name: str, options: dict[str, Any]) -> Lab:
    """The plan that ``Lab.options`` tells of."""
    common = (
        name,
        subscribers(options["subscribers"]),
        Datapath(options["datapath"]),
        Tunnel(options["tunnel"]),
        Provisioning(options["provisioning"]),
    )
    if "mode" not in options:
        return Lab(*common)
    return FailoverLab(
        *common,
        Mode(options["mode"]),
        Failover(options["mechanism"]),
        Shared(options["store"]),
        options["own_pools"],
    )
