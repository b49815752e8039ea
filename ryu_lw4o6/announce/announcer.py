"""Says what an instance announces: all its routes while it forwards, none otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from ryu.lib import hub

from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.fatal import fatal

LOOK_SECONDS = 0.2
"""How often to look whether anything has changed that nobody tells of."""
START_SECONDS = 10.0
"""How long a controller that has just started gives its switch before it withdraws routes that were
kept without a controller: traffic goes on flowing by them."""


class Speaker(Protocol):
    """Speaks to routers; ``ExaBgp`` is one."""

    peers: dict[str, str]

    def announce(self, routes: list[str]) -> None:
        """Announce exactly these routes; nothing changes before the first call. Must not wait."""

    def run(self) -> None:
        """Do what is to be done in the background. For ever."""

    def stop(self) -> None:
        """Withdraw everything and end."""

    @property
    def running(self) -> bool:
        """Whether it can speak now."""


class Announcer:
    """``obstacle`` says why the instance cannot have traffic now, None if it can. ``tell`` is
    told of every change."""

    def __init__(
        self,
        instance: Instance,
        speaker: Speaker,
        obstacle: Callable[[], str | None],
        tell: Callable[[str, str | None], None],
    ) -> None:
        self._speaker = speaker
        self._obstacle = obstacle
        self._tell = tell
        self._routes = routes_of(instance)
        kept = instance.announce is not None and instance.announce.keep_without_controller
        self._silent_until = time.monotonic() + START_SECONDS if kept else 0.0
        self._announcing: bool | None = None
        self._why: str | None = None

    def look(self) -> None:
        """Something may have changed: announce or withdraw at once. Must not wait."""
        self._why = why = self._obstacle()
        announcing = why is None
        if self._announcing is None and not announcing and time.monotonic() < self._silent_until:
            return
        if announcing != self._announcing:
            self._speaker.announce(self._routes if announcing else [])
            if announcing or self._announcing:
                self._tell("announced" if announcing else "withdrawn", why)
            self._announcing = announcing

    def run(self) -> None:
        """Look every now and then. For ever."""
        hub.spawn(fatal(self._speaker.run))
        while True:
            self.look()
            hub.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        self._speaker.stop()

    def status(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "announced": bool(self._announcing) and self._speaker.running,
            "obstacle": self._why,
            "speaker": "running" if self._speaker.running else "not running",
            "peers": dict(self._speaker.peers),
        }


def routes_of(instance: Instance) -> list[str]:
    """What to announce, in ExaBGP's words: the lwAFTR addresses (the anycast one among them) and
    the IPv4 prefixes, with the instance's own addresses as next hops."""
    settings = instance.announce
    assert settings is not None
    attributes = f"local-preference {settings.local_preference} med {settings.med}"
    routes = [
        f"{address}/128 next-hop {instance.ipv6.address.ip} {attributes}"
        for address in instance.aftr_addresses
    ]
    routes += [
        f"{prefix.network} next-hop {instance.ipv4.address.ip} {attributes}"
        for prefix in instance.prefixes
    ]
    return routes
