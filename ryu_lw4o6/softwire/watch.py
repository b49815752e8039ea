"""Whether the shim stays where it is: a NIC that was taken out and put back has lost it, and so has
one whose tc filters somebody has deleted. Softwire packets then leave as GRE, which nobody reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import eventlet.timeout
from ryu.lib import hub

from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.softwire import nic
from ryu_lw4o6.softwire.commands import ShimError

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


class ShimWatch:
    """``missing`` says where the shim is missing, None if it is not. Where it was never seen, as on
    another machine, nobody misses it. ``changed`` is told when that changes."""

    def __init__(self, instance: Instance, changed: Callable[[], None]) -> None:
        self.missing: str | None = None
        self._instance = instance
        self._changed = changed
        self._seen = False

    def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            self.look()
            hub.sleep(LOOK_SECONDS)

    def look(self) -> None:
        try:
            with eventlet.timeout.Timeout(LOOK_SECONDS):
                gone = [h for h in nic.hooks(self._instance) if nic.program(h) is None]
        except (ShimError, OSError, eventlet.timeout.Timeout):
            return  # there is no such NIC here, or nobody answers in time
        self._seen |= not gone
        if not self._seen:
            return
        missing = ", ".join(f"{hook.device} ({hook.kind})" for hook in gone) or None
        if missing == self.missing:
            return
        self.missing = missing
        if missing is not None:
            LOG.error(
                "%s: the softwire shim is gone from %s; lw4o6 switch up attaches it",
                self._instance.name, missing,
            )  # fmt: skip
        else:
            LOG.info("%s: the softwire shim is back", self._instance.name)
        self._changed()
