"""Whether what lw4o6 switch up has made stays. A NIC that was taken out and put back has lost the
shim, and so has one whose tc filters somebody has deleted: softwire packets then leave as GRE,
which nobody reads. A bridge that has lost its addresses ends no tunnels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import eventlet.timeout
from ryu.lib import hub

from ryu_lw4o6 import local_port
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.softwire import nic
from ryu_lw4o6.softwire.commands import ShimError

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


class SetupWatch:
    """``missing`` says what is gone, None if all is there. What was never seen, as on another
    machine, nobody misses. ``changed`` is told when that changes."""

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
                missing = self._gone()
        except (ShimError, OSError, eventlet.timeout.Timeout):
            return  # there is no such NIC here, or nobody answers in time
        self._seen |= missing is None
        if not self._seen or missing == self.missing:
            return
        self.missing = missing
        name = self._instance.name
        if missing is not None:
            LOG.error("%s: %s; lw4o6 switch up puts it back", name, missing)
        else:
            LOG.info("%s: the softwire shim and the bridge's addresses are back", name)
        self._changed()

    def _gone(self) -> str | None:
        instance, gone = self._instance, []
        hooks = [f"{h.device} ({h.kind})" for h in nic.hooks(instance) if nic.program(h) is None]
        if hooks:
            gone.append(f"the softwire shim is gone from {', '.join(hooks)}")
        lost = local_port.missing(instance)
        if lost:
            gone.append(f"{instance.bridge} has lost {', '.join(lost)}")
        return "; ".join(gone) or None
