"""The Ryu application: ``ryu-manager ryu_lw4o6.app rest.app --lw4o6-config FILE``.

Only Ryu's events are handled here. A connection's session does the work, in a greenlet of its own.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3

from ryu_lw4o6 import channel, log
from ryu_lw4o6.context import LwaftrContext
from ryu_lw4o6.core.recent import Recent
from ryu_lw4o6.fatal import fatal
from ryu_lw4o6.ledger import Outage
from ryu_lw4o6.store import StoreUnavailable
from ryu_lw4o6.switchboard import Switch

LOG = logging.getLogger(__name__)

EXPIRY_TICK = 1.0
THREAD_SECONDS = 0.0005
"""How long a database thread may have to wait for Python's interpreter lock, each time it needs
it. Python's own 5 ms would make a query of a busy controller ten times as slow."""
COLLECTED_AFTER = 50_000, 20, 100
"""When Python looks for garbage in cycles, of which there is little: by default it would go through
all bindings again and again while they are made, a fifth of a storm's time."""
STRANGER_SECONDS = 60.0
"""How often the log has a switch of nobody's, which tries to connect again and again."""
_MOST_STRANGERS = 1000
channel.install()
log.install()


def _on(event: Any, states: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Handle a Ryu event, in these states of the connection."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        handler: Callable[..., None] = set_ev_cls(event, states)(fatal(function))
        return handler

    return decorate


def _connect(switch: Switch, datapath: Any) -> None:
    LOG.info("%s: connected from %s", switch.instance.name, datapath.address[0])
    session = switch.connect(datapath)
    hub.spawn(fatal(session.run))
    hub.spawn(fatal(switch.probe), session)
    hub.spawn(fatal(switch.watch), session)


class LwaftrApp(app_manager.RyuApp):  # type: ignore[misc]
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012 (Ryu's way)
    _CONTEXTS = {"lwaftr": LwaftrContext}  # noqa: RUF012

    def __init__(self, *args: Any, lwaftr: LwaftrContext, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sys.setswitchinterval(THREAD_SECONDS)
        gc.freeze()  # modules and stored bindings: not to be gone through again and again
        gc.set_threshold(*COLLECTED_AFTER)
        self._service = lwaftr.service
        self._strangers = Recent(STRANGER_SECONDS, _MOST_STRANGERS)
        hub.spawn(self._expire)
        hub.spawn(self._renew)
        for work in self._service.greenlets():
            hub.spawn(fatal(work))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: Any) -> None:
        """Routers are told before the process ends; whatever else there is, is stored."""
        self._service.stop()
        logging.shutdown()
        os._exit(0)

    @_on(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def _state_change(self, event: Any) -> None:
        datapath = event.datapath
        if datapath.id is None:  # it went before it said who it was
            return
        switch = self._service.switch(datapath.id)
        if switch is None:
            if event.state == MAIN_DISPATCHER:
                if self._strangers.add(datapath.id, time.monotonic()):
                    LOG.error(
                        "no instance has datapath id %016x (from %s); closing the connection",
                        datapath.id, datapath.address[0],
                    )  # fmt: skip
                datapath.close()
        elif event.state == MAIN_DISPATCHER:
            if switch.session is None:
                _connect(switch, datapath)
            else:
                hub.spawn(self._take_place, switch, datapath)
        else:
            switch.disconnect(datapath)

    @fatal
    def _take_place(self, switch: Switch, datapath: Any) -> None:
        """The switch may have lost its older connection, which nobody has told us. If that answers,
        it is another switch."""
        channel.tap(datapath, lambda kind, *_: kind == ofproto_v1_3.OFPT_PACKET_IN)
        if switch.session is not None and switch.session.is_alive():
            if self._strangers.add((datapath.id, datapath.address[0]), time.monotonic()):
                LOG.error(
                    "%s: a second switch has datapath id %016x (from %s); closing its connection",
                    switch.instance.name, datapath.id, datapath.address[0],
                )  # fmt: skip
            datapath.close()
        elif datapath.state == MAIN_DISPATCHER:
            _connect(switch, datapath)

    @_on(ofp_event.EventOFPPortStateChange, MAIN_DISPATCHER)
    def _port_state_change(self, event: Any) -> None:
        switch = self._service.switch(event.datapath.id)
        if switch is not None:
            switch.port_changed()

    @fatal
    def _expire(self) -> None:
        outage = Outage("expired bindings stay")
        while True:
            hub.sleep(EXPIRY_TICK)
            try:
                self._service.changes.expire(time.time())
            except StoreUnavailable as error:
                outage.goes_on(error)
            else:
                outage.is_over()

    @fatal
    def _renew(self) -> None:
        """Beside ``_expire``, which waits for the store."""
        while True:
            hub.sleep(EXPIRY_TICK)
            self._service.renew(time.time())
