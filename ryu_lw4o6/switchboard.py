"""One switch across its connections: what outlives a session, and the session of the moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from typing import Any

from ryu.lib import hub

from openflow_rules import encode
from openflow_rules.compiler.parts import LOCAL_PORT
from openflow_rules.marks import own_error_frame
from openflow_rules.tables import QUIET_SECONDS, CookieClass, Count, Punt, Table, cookie
from ryu_lw4o6 import punt
from ryu_lw4o6.announce.announcer import Announcer
from ryu_lw4o6.backlog import Backlog
from ryu_lw4o6.core import arp, nd
from ryu_lw4o6.core.binding import BindingKey, BindingTable
from ryu_lw4o6.core.ethernet import ETH_IPV4, ETH_IPV6, mac_bytes
from ryu_lw4o6.core.ethernet import frame as frame_of
from ryu_lw4o6.core.failover import Question, RateLimit
from ryu_lw4o6.core.next_hop import REFRESH_SECONDS, NextHop, NextHopState
from ryu_lw4o6.core.recent import Recent
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.counters import IcmpSent
from ryu_lw4o6.crowd_watch import CrowdWatch, as_usual
from ryu_lw4o6.events import Events
from ryu_lw4o6.own_fragments import OwnFragments
from ryu_lw4o6.path_mtu import Outcome, Paths
from ryu_lw4o6.provisioning.pcp_server import PcpServer
from ryu_lw4o6.session import Orphans, Session, State
from ryu_lw4o6.setup_watch import SetupWatch
from ryu_lw4o6.slow_path import SlowPath
from ryu_lw4o6.softwire.reader import CounterReader
from ryu_lw4o6.unknown import UnknownTraffic
from ryu_lw4o6.validation import Validator

LOG = logging.getLogger(__name__)

_ARP = cookie(CookieClass.PUNT, Punt.ARP)
_NEIGHBOUR = cookie(CookieClass.PUNT, Punt.NEIGHBOUR)
_PCP = cookie(CookieClass.PUNT, Punt.PCP)
_UNKNOWN_LWB4 = cookie(CookieClass.PUNT, Punt.UNKNOWN_LWB4)
_TO_VALIDATE = {
    _UNKNOWN_LWB4: True,
    cookie(CookieClass.PUNT, Punt.UNKNOWN_IPV4): False,
}
"""What the supporting system is asked about, and whether it comes from an lwB4."""
_SLOW_SOFTWIRE = cookie(CookieClass.COUNT, Count.SLOW_SOFTWIRE)
_HELD = {
    cookie(CookieClass.COUNT, count)
    for count in (Count.HELD_FROM_SOFTWIRE, Count.HELD_FROM_INTERNET)
}
_AWAITED = {
    cookie(CookieClass.COUNT, count) for count in (Count.FROM_SOFTWIRE, Count.FROM_INTERNET)
}
_TUNNEL_ICMP = cookie(CookieClass.COUNT, Count.TUNNEL_ICMP)
_PATH_MTU = cookie(CookieClass.PUNT, Punt.PATH_MTU)
_OWN_FRAGMENT = cookie(CookieClass.COUNT, Count.FRAGMENTS_TO_LWAFTR)
_SLOW = {_SLOW_SOFTWIRE, _OWN_FRAGMENT} | _HELD | _AWAITED
_WATCHED_SECONDS = 5.0
"""How often a next hop is asked where routes depend on it. One that is gone is noticed after 12 s:
a controller that is busy for a moment is not to withdraw anything."""
MOST_SHOWN = 5_000
"""Packets without a binding that wait to be looked at, some tenths of a second's work."""
_PROBE_TICK = 0.25
_ALIVE_TICK = 1.0
_MOST_RECENT = 1_000_000
QUIETED_PER_SECOND = 1000
"""How many lwB4s that go on sending the switch is told to keep quiet. Each makes it look again at
all it has cached: beyond that, answering costs less."""


class Switch:
    """``icmp_sent`` counts the ICMP errors this controller has sent. ``unknown`` and ``validator``
    are there if packets without a binding are validated."""

    def __init__(
        self,
        instance: Instance,
        table: BindingTable,
        validator: Validator | None = None,
        remember_no: int = QUIET_SECONDS,
        events: Events | None = None,
    ) -> None:
        self.instance = instance
        self.drained = False
        self.announcer: Announcer | None = None
        self.pcp: PcpServer | None = None
        self._events = events or Events()
        self.validator = validator if instance.failover.validates else None
        self.unknown: UnknownTraffic | None = None
        if self.validator is not None:
            self.unknown = UnknownTraffic(
                instance, table, self.validator.ask, remember_no, self._refused, self._events
            )
        self.session: Session | None = None
        refresh = REFRESH_SECONDS if instance.announce is None else _WATCHED_SECONDS
        ipv4, ipv6 = instance.ipv4, instance.ipv6
        self.ipv4_next_hop = NextHop(arp, ipv4.address.ip, ipv4.next_hop, refresh=refresh)
        self.ipv6_next_hop = (
            NextHop(nd, ipv6.address.ip, ipv6.next_hop, refresh=refresh)
            if ipv6.next_hop is not None
            else None
        )
        self.connections = 0
        self.icmp_sent = IcmpSent()
        self.shim = CounterReader(instance)
        self.crowd_watch = CrowdWatch(
            instance, as_usual if self.validator is None else self.validator.ahead.crowd
        )
        self.setup_watch = SetupWatch(instance, self.changed)
        self.slow_path = SlowPath(instance, self._too_big)
        self.own_fragments = OwnFragments(instance, self._tell_sender)
        self.paths = Paths(instance, table)
        self._shown = Backlog(self._without_binding, MOST_SHOWN)
        self._told = Recent(QUIET_SECONDS, _MOST_RECENT)
        self._quieted = Recent(QUIET_SECONDS, _MOST_RECENT)
        self._quiet_limit = RateLimit(QUIETED_PER_SECOND)
        self._icmpv4_limit = RateLimit(instance.icmp.rate)
        self._icmpv6_limit = RateLimit(instance.icmp.rate)
        self._table = table
        self._datapath: Any = None
        self._links_down: list[str] = []

    def connect(self, datapath: Any) -> Session:
        """A connection was made: start its session. The caller runs it."""
        if self.session is not None:
            LOG.warning("%s: connected again; the older connection is closed", self.instance.name)
            old, old_datapath = self.session, self._datapath
            old.close()
            old_datapath.close()
        self.connections += 1
        for _, hop in self._next_hops():
            hop.reset()
        self._links_down = []
        self._datapath = datapath
        self.session = Session(
            datapath,
            self.instance,
            self._table,
            next_hop_mac=lambda: self.ipv4_next_hop.mac,
            adopt_next_hop=self.ipv4_next_hop.adopt,
            on_packet_in=self._packet_in,
            on_change=self.changed,
            on_orphans=self._take_over,
        )
        if self.pcp is not None:
            self.pcp.connect(self.session)
        self._events.add("switch-connected", instance=self.instance.name)
        if self.unknown is not None:
            self.unknown.connect(self.session)
        return self.session

    def disconnect(self, datapath: Any) -> None:
        """A connection ended; nothing happens if a newer one has taken its place."""
        if self._datapath is datapath and self.session is not None:
            LOG.warning("%s: disconnected", self.instance.name)
            self.session.close()
            self.session = None
            self._datapath = None
            if self.unknown is not None:
                self.unknown.connect(None)
            if self.pcp is not None:
                self.pcp.connect(None)
            self._events.add("switch-disconnected", instance=self.instance.name)
            self.changed()

    def port_changed(self) -> None:
        """A port of the switch came, went, or changed its state."""
        session = self.session
        if session is None:
            return
        session.touch_ports()
        down = session.links_down()
        # Whoever is behind a link that is back may not be ready yet, or be somebody else.
        for nic, hop in self._next_hops():
            if nic in self._links_down and nic not in down:
                hop.reset()
        self._links_down = down
        self.changed()

    def _next_hops(self) -> Iterator[tuple[str, NextHop]]:
        """With the NICs they are behind."""
        yield self.instance.ipv4.port, self.ipv4_next_hop
        if self.ipv6_next_hop is not None:
            yield self.instance.ipv6.port, self.ipv6_next_hop

    def current_session(self) -> Session | None:
        return self.session

    def obstacle(self) -> str | None:
        """Why routers must not send packets here now; None if they may."""
        session = self.session
        if self.drained:
            return "drained"
        if session is None:
            return "the switch is not connected"
        if not session.forwarding:
            return f"the switch is {session.state}"
        down = session.links_down()
        if down:
            return f"no link on {', '.join(down)}"
        if self.setup_watch.missing is not None:
            return self.setup_watch.missing
        for _, hop in self._next_hops():
            # Open vSwitch finds that of the IPv6 side by the same answers, and has forgotten it
            # if it is a new one.
            if not hop.answered:
                return f"the next hop {hop.address} does not answer"
            # Nothing else tells of a link that loses everything, yet has a carrier.
            if hop.state is NextHopState.STALE:
                return f"the next hop {hop.address} does not answer any more"
        return None

    def changed(self) -> None:
        """Something has changed that routers may have to know of."""
        if self.announcer is not None:
            self.announcer.look()

    def watch(self, session: Session) -> None:
        """Give the switch up when it no longer answers, and fragments when the others of their
        packet have not come in time, for as long as ``session`` lasts."""
        while session is self.session:
            hub.sleep(_ALIVE_TICK)
            self._give_up_fragments(time.monotonic())
            if session is self.session and not session.is_alive() and session is self.session:
                LOG.error("%s: the switch does not answer; closing", self.instance.name)
                datapath = self._datapath
                self.disconnect(datapath)
                datapath.close()

    def touch(self, keys: Iterable[BindingKey]) -> None:
        if self.session is not None:
            self.session.touch(keys)

    def probe(self, session: Session) -> None:
        """Keep the next hops' MAC addresses fresh for as long as ``session`` lasts.

        Open vSwitch reads the answers of the IPv6 next hop, too, and so has its MAC address before
        the first packet needs it.
        """
        while session is self.session and session.state is not State.CLOSED:
            ports = session.ports
            if ports is not None and session.state is State.READY:
                now = time.monotonic()
                frame = self.ipv4_next_hop.probe(now, mac_bytes(ports.ipv4_mac))
                if frame is not None:
                    session.send(encode.packet_out(frame, ports.ipv4))
                if self.ipv6_next_hop is not None:
                    frame = self.ipv6_next_hop.probe(now, mac_bytes(ports.local_mac))
                    if frame is not None:
                        session.send(encode.packet_out(frame, ports.ipv6))
            hub.sleep(_PROBE_TICK)

    def _packet_in(self, flow_cookie: int, fields: bytes, frame: bytes) -> None:
        if flow_cookie == _ARP:
            self._learn(self.ipv4_next_hop, frame)
        elif flow_cookie == _NEIGHBOUR:
            if self.ipv6_next_hop is not None:
                self._learn(self.ipv6_next_hop, frame)
        elif flow_cookie == _TUNNEL_ICMP:
            self._follow(self.paths.error(frame, time.monotonic()))
        elif flow_cookie == _PATH_MTU:
            self._follow(self.paths.too_large(encode.pipeline_fields(fields), frame))
        elif flow_cookie in _SLOW:
            self._slow(flow_cookie, encode.pipeline_fields(fields), frame)
        elif flow_cookie == _PCP:
            if self.pcp is not None:
                self.pcp.packet_in(fields, frame)
        elif flow_cookie in _TO_VALIDATE:
            self._shown.add(flow_cookie, fields, frame)
        else:
            self._tell_sender(punt.icmp_answer(self.instance, flow_cookie, frame))

    def _without_binding(self, flow_cookie: int, fields: bytes, frame: bytes) -> None:
        if self.unknown is not None:
            self.unknown.packet_in(fields, frame, upstream=_TO_VALIDATE[flow_cookie])
        elif flow_cookie == _UNKNOWN_LWB4:
            outer = encode.pipeline_fields(fields)
            if outer.tunnel_source is not None and outer.tunnel_destination is not None:
                self._tell_lwb4(outer.tunnel_source, outer.tunnel_destination, frame)

    def _slow(self, flow_cookie: int, known: encode.PipelineFields, frame: bytes) -> None:
        now = time.monotonic()
        if flow_cookie == _SLOW_SOFTWIRE:
            injections = self.slow_path.softwire(frame, now)
        elif flow_cookie == _OWN_FRAGMENT:
            injections = self.own_fragments.add(known, frame, now)
        elif flow_cookie in _HELD:
            injections = self.slow_path.later(known, frame, now)
        else:
            injections = self.slow_path.first(known, frame, now)
        session = self.session
        if session is None or session.ports is None:
            return
        for injection in injections:
            if injection.table is None:
                session.send(encode.packet_out(injection.frame, LOCAL_PORT))
                continue
            from_internet = injection.table == Table.DOWNSTREAM_PORT_SET
            port = session.ports.ipv4 if from_internet else session.ports.softwire
            session.send(encode.reinject(injection.frame, port, injection.table, injection.tunnel))

    def _follow(self, outcome: Outcome) -> None:
        """What is to be done about the way to an lwB4."""
        self._tell_sender(outcome.answer)
        if self.session is not None and outcome.flow is not None:
            self.session.send(encode.add_flow(outcome.flow))
        for packet in outcome.packets:
            self._send_ipv6(packet)

    def _give_up_fragments(self, now: float) -> None:
        self.own_fragments.expire(now)
        for error in self.slow_path.late(now):
            if not self._icmpv6_limit.take(now):
                self.icmp_sent.withheld["icmpv6"] += 1
            elif self._send_ipv6(error):
                self.icmp_sent.add("icmpv6", error)

    def _send_ipv6(self, packet: bytes) -> bool:
        """Whether a packet has gone out to the access network's router."""
        session = self.session
        mac = self.ipv6_next_hop.mac if self.ipv6_next_hop is not None else None
        if session is None or session.ports is None or mac is None:
            return False
        out = frame_of(mac_bytes(mac), mac_bytes(session.ports.local_mac), ETH_IPV6, packet)
        return session.send(encode.packet_out(out, session.ports.ipv6))

    def _too_big(self, packet: bytes, lwb4: IPv6Address) -> None:
        """A packet out of a softwire that the Internet's side does not take whole; it has not
        been checked yet."""
        if self.instance.icmp.too_big and punt.is_own_source(
            self.instance, self._table, packet, lwb4
        ):
            self._tell_sender(punt.too_big(self.instance, packet, self.instance.ipv4.mtu))

    def _take_over(self, orphans: Orphans) -> None:
        """The switch has bindings that nobody knows, as after the end of a controller that had not
        stored them yet. What the supporting system confirms stays."""
        if self.validator is not None:
            self.validator.confirm(list(orphans))
        for key, known in orphans.items():
            if self.pcp is not None and known.softwire is not None and key not in self._table:
                self.pcp.lost(*known.softwire)

    def _refused(self, question: Question, frame: bytes) -> None:
        """The supporting system said no: tell the sender, as the policy wants it."""
        if question.lwb4 is None or question.br_address is None:
            if self.instance.icmp.unknown_ipv4:
                self._tell_sender(punt.icmp_answer(self.instance, punt.UNKNOWN_IPV4, frame))
        elif self.instance.failover.answers:
            self._tell_lwb4(question.lwb4.packed, question.br_address.packed, frame)

    def _tell_lwb4(self, lwb4: bytes, br_address: bytes, frame: bytes) -> None:
        """Send an lwB4 the ICMPv6 error, once an interval; one that goes on sending all the same
        is kept quiet by the switch."""
        session, now = self.session, time.monotonic()
        if session is None or session.ports is None:
            return
        if self._told.add(lwb4, now):
            packet = punt.lwb4_answer(frame, lwb4, br_address)
            if packet is not None and self._send_ipv6(packet):
                self.icmp_sent.add("icmpv6", packet)
        elif self._quieted.add(lwb4, now) and self._quiet_limit.take(now):
            session.send(encode.quiet_lwb4(lwb4, QUIET_SECONDS))

    def _tell_sender(self, packet: bytes | None) -> None:
        """Send an ICMPv4 error, if the rate allows it and the next hop is known."""
        session = self.session
        if packet is None or session is None or session.ports is None:
            return
        if punt.goes_to_lwb4(self.instance, packet):
            message = encode.from_controller(own_error_frame(packet))
        elif self.ipv4_next_hop.mac is not None:
            ports = session.ports
            macs = mac_bytes(self.ipv4_next_hop.mac), mac_bytes(ports.ipv4_mac)
            message = encode.packet_out(frame_of(*macs, ETH_IPV4, packet), ports.ipv4)
        else:
            return
        if not self._icmpv4_limit.take(time.monotonic()):
            self.icmp_sent.withheld["icmpv4"] += 1
        elif session.send(message):
            self.icmp_sent.add("icmpv4", packet)

    def _learn(self, next_hop: NextHop, frame: bytes) -> None:
        known = next_hop.answered
        if next_hop.learn(time.monotonic(), frame):
            LOG.info("%s: next hop %s is at %s", self.instance.name, next_hop.address, next_hop.mac)
            if next_hop is self.ipv4_next_hop and self.session is not None:
                self.session.touch_pipeline()
        if next_hop.answered and not known:
            self.changed()

    def _all_icmp_sent(self) -> IcmpSent:
        """The controller's and, where it has any to send, the shim's."""
        if not self.instance.failover.needs_no_question:
            return self.icmp_sent
        return self.icmp_sent.with_shim(self.shim.read())

    def failover_status(self) -> dict[str, Any]:
        """What becomes of packets without a binding, and of routes; ready for JSON."""
        return {
            "name": self.instance.name,
            "mechanism": str(self.instance.failover),
            "drained": self.drained,
            "obstacle": self.obstacle(),
            "announcements": None if self.announcer is None else self.announcer.status(),
            "validation": None if self.unknown is None else self.unknown.status(),
            "dropped_backlog": self._shown.dropped,
            "icmpv6_errors_sent": self._all_icmp_sent().packets["icmpv6"],
        }

    def status(self) -> dict[str, Any]:
        """The switch's state, ready for JSON."""
        session, icmp_sent = self.session, self._all_icmp_sent()
        status: dict[str, Any] = {
            "name": self.instance.name,
            "datapath_id": f"{self.instance.datapath_id:016x}",
            "connected": session is not None,
            "state": "disconnected" if session is None else str(session.state),
            "connections": self.connections,
            "next_hop": self.ipv4_next_hop.status(),
            "ipv6_next_hop": self.ipv6_next_hop.status() if self.ipv6_next_hop else None,
            "slow_path": self.slow_path.status() | {"own": self.own_fragments.status()},
            "paths": self.paths.status(),
            "icmp_errors_sent": {kind: icmp_sent.packets[kind] for kind in ("icmpv4", "icmpv6")},
        }
        if session is not None:
            reconciled = session.reconciled or None
            status |= {
                "connected_at": rfc3339(session.connected_at),
                "missing_ports": list(session.missing_ports),
                "backlog": session.backlog,
                "bindings": session.bindings,
                "last_reconcile": reconciled and reconciled | {"at": rfc3339(reconciled["at"])},
            }
        return status
