"""One switch across its connections: what outlives a session, and the session of the moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from ryu.lib import hub

from openflow_rules import encode
from openflow_rules.tables import CookieClass, Punt, cookie
from ryu_lw4o6.core.binding import BindingKey, BindingTable
from ryu_lw4o6.core.next_hop import NextHop
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.session import Session, State

LOG = logging.getLogger(__name__)

_ARP_COOKIE = cookie(CookieClass.PUNT, Punt.ARP)
_PROBE_TICK = 0.25


class Switch:
    def __init__(self, instance: Instance, table: BindingTable) -> None:
        self.instance = instance
        self.session: Session | None = None
        self.next_hop = NextHop(instance.ipv4.address.ip, instance.ipv4.next_hop)
        self.connections = 0
        self._table = table
        self._datapath: Any = None

    def connect(self, datapath: Any) -> Session:
        """A connection was made: start its session. The caller runs it."""
        if self.session is not None:
            LOG.warning("%s: connected again; the older connection is closed", self.instance.name)
            old, old_datapath = self.session, self._datapath
            old.close()
            old_datapath.close()
        self.connections += 1
        self.next_hop.reset()
        self._datapath = datapath
        self.session = Session(
            datapath,
            self.instance,
            self._table,
            next_hop_mac=lambda: self.next_hop.mac,
            adopt_next_hop=self.next_hop.adopt,
            on_packet_in=self._packet_in,
        )
        return self.session

    def disconnect(self, datapath: Any) -> None:
        """A connection ended; nothing happens if a newer one has taken its place."""
        if self._datapath is datapath and self.session is not None:
            self.session.close()
            self.session = None
            self._datapath = None

    def touch(self, keys: Iterable[BindingKey]) -> None:
        if self.session is not None:
            self.session.touch(keys)

    def probe(self, session: Session) -> None:
        """Keep the next hop's MAC address fresh for as long as ``session`` lasts."""
        while session is self.session and session.state is not State.CLOSED:
            if session.ports is not None and session.state is not State.WAITING:
                own_mac = bytes.fromhex(session.ports.ipv4_mac.replace(":", ""))
                frame = self.next_hop.probe(time.monotonic(), own_mac)
                if frame is not None:
                    session.send(encode.packet_out(frame, session.ports.ipv4))
            hub.sleep(_PROBE_TICK)

    def _packet_in(self, flow_cookie: int, fields: bytes, frame: bytes) -> None:
        if flow_cookie == _ARP_COOKIE and self.next_hop.learn(time.monotonic(), frame):
            LOG.info(
                "%s: next hop %s is at %s",
                self.instance.name, self.next_hop.address, self.next_hop.mac,
            )  # fmt: skip
            if self.session is not None:
                self.session.touch_pipeline()

    def status(self) -> dict[str, Any]:
        """The switch's state, ready for JSON."""
        session = self.session
        status: dict[str, Any] = {
            "name": self.instance.name,
            "datapath_id": f"{self.instance.datapath_id:016x}",
            "connected": session is not None,
            "state": "disconnected" if session is None else str(session.state),
            "connections": self.connections,
            "next_hop": {
                "address": str(self.next_hop.address),
                "mac": self.next_hop.mac,
                "state": str(self.next_hop.state),
            },
        }
        if session is not None:
            status |= {
                "connected_at": session.connected_at,
                "missing_ports": list(session.missing_ports),
                "backlog": session.backlog,
                "bindings": session.bindings,
                "last_reconcile": session.reconciled or None,
            }
        return status
