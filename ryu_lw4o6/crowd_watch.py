"""Keeps new lwB4s out while Open vSwitch cannot keep up, so that known ones lose nothing.

``unknown_rate`` says how many are let in, but not what this machine can do beside the traffic of
those who are known. What waits in the packet sockets of ovs-vswitchd says it, before anything is
lost. The shim is told every time for a moment only: without a controller it lets in as many as
usual.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable

from ryu.lib import hub

from ryu_lw4o6 import vswitchd
from ryu_lw4o6.core.relief import Relief
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.softwire import maps, nic
from ryu_lw4o6.softwire.commands import ShimError
from ryu_lw4o6.softwire.kernel_map import KernelMap

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
AGAIN_SECONDS = 5.0
QUIET_SECONDS = 5.0
"""It is only over in the log when it has been for so long: a storm is one pair of lines."""
_ANEW_SECONDS = 60.0
"""The shim may have been replaced by another one, with a map of its own."""
_HOLDS_SECONDS = 2.0


def as_usual() -> float:
    """Nobody has anything to say about how many new lwB4s get in."""
    return 1.0


class CrowdWatch:
    """``share`` is how much of ``unknown_rate`` gets in, ``most`` how much may."""

    def __init__(self, instance: Instance, most: Callable[[], float]) -> None:
        self.share = 1.0
        self._instance = instance
        self._most = most
        self._behind_at: float | None = None

    def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                if self._watch():
                    continue
            except (ShimError, OSError):  # not on this machine, or made anew
                self._note(1.0, 1.0)
            hub.sleep(AGAIN_SECONDS)

    def _watch(self) -> bool:
        """Watch for a while; whether there was something to watch. Raises ShimError, OSError."""
        queues = vswitchd.queues(nic.devices(self._instance))
        found = maps.of_instance(self._instance) if queues else None
        if found is None or maps.ALLOWANCE not in found:
            return False
        allowance = KernelMap(found[maps.ALLOWANCE])
        try:
            relief, usual = Relief(), maps.crowd(self._instance)
            anew = time.monotonic() + _ANEW_SECONDS
            while self.share != 1.0 or time.monotonic() < anew:
                fill = max(vswitchd.fill(queue) for queue in queues)
                most = self._most()
                self._note(relief.look(fill, time.monotonic(), most), min(most, 1.0))
                if self.share != 1.0:
                    until = time.monotonic_ns() + int(_HOLDS_SECONDS * 1e9)
                    allowance.write(0, struct.pack("=QQ", until, int(usual * self.share)))
                hub.sleep(LOOK_SECONDS)
            return True
        finally:
            allowance.close()

    def _note(self, share: float, enough: float) -> None:
        """``enough`` get in when the switch keeps up."""
        self.share = share
        name, now = self._instance.name, time.monotonic()
        if share < enough:
            if self._behind_at is None:
                LOG.warning("%s: the switch cannot keep up: fewer new lwB4s get in", name)
            self._behind_at = now
        elif self._behind_at is not None and now - self._behind_at >= QUIET_SECONDS:
            LOG.info("%s: as many new lwB4s get in as usual", name)
            self._behind_at = None
