"""What each feature costs: packets per second against plain packets, flows in the datapath's cache,
and messages between switch and controller.

Plain packets and those that need a feature are sent in turns. What the switch does by itself gets
more than it can take, and the medians of what comes out are compared, per processor-second of
ovs-vswitchd, and per second; where the controller takes part, so much is sent that all of it should
come out.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.loads import PACED, SUBSCRIBERS, Load, loads, plain, to_be_fragmented
from bench.rates import Rate, Way, pin, rate, sent
from bench.rig import CONFIG, MTU, NIC6, WIRE6, Result, Rig, Row, lwaftr
from ryu_lw4o6.core.ethernet import mac_bytes

ROUNDS = 3
WARM_UP, SECONDS = 0.3, 0.7
PLAIN = "plain packets"
_ENOUGH = 0.98
"""Of what is paced, has to come out: a flood does not keep its pace to the packet."""
_ICMP_RATE = "    icmp: {{rate: 1000000}}\n"
_FILTERS = ", ".join(
    f"{{{{direction: in, action: deny, protocol: tcp, destination_port: {port}}}}}"
    for port in range(25, 35)
)


@dataclass
class Seen:
    """``messages`` to the controller and back, for each packet."""

    rates: list[Rate] = field(default_factory=list)
    flows: int = 0
    messages: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Variant:
    """Another configuration, with plain packets unless it has ``own`` ones."""

    name: str
    config: str
    vlans: tuple[int, int] = (0, 0)
    stick: bool = False
    own: Callable[[], list[Load]] | None = None

    def loads(self) -> list[Load]:
        return self.own() if self.own else plain(self.name, self._way, self._frame)

    def _way(self, way: Way) -> Way:
        return Way("wire6", "wire6") if self.stick else way

    def _frame(self, frame: bytes, side: int) -> bytes:
        if self.stick:
            frame = mac_bytes(NIC6) + mac_bytes(WIRE6) + frame[12:]
        vlan = self.vlans[0 if side == 6 else 1]
        return frame[:12] + b"\x81\0" + vlan.to_bytes(2, "big") + frame[12:] if vlan else frame


def _with(config: str, side: str, text: str) -> str:
    return config.replace(f"{side}: {{{{", f"{side}: {{{{{text}, ")


VARIANTS = (
    Variant("VLAN tags on the IPv6 side", _with(CONFIG, "ipv6", "vlan: 100"), (100, 0)),
    Variant("VLAN tags on both sides",
            _with(_with(CONFIG, "ipv6", "vlan: 100"), "ipv4", "vlan: 200"), (100, 200)),
    Variant("both sides on one NIC", CONFIG.replace("port: eth4", "port: eth6"), stick=True),
    Variant("10 filter rules on each side",
            _with(_with(CONFIG, "ipv6", f"filters: [{_FILTERS}]"),
                  "ipv4", f"filters: [{_FILTERS}]")),
    Variant("fragmentation", CONFIG.replace(f"mtu: {MTU}", "mtu: 1500"), own=to_be_fragmented),
    Variant("hashed flow labels", _with(CONFIG, "ipv6", "flow_label: hashed")),
)  # fmt: skip


def measure() -> Result:
    seen: dict[str, Seen] = defaultdict(Seen)
    base = plain(PLAIN)
    shown = [*base, *loads()]
    with _rig(CONFIG + _ICMP_RATE) as (rig, generator):
        _play(seen, generator, [(rig, load) for load in shown])
        for variant in VARIANTS:
            with _rig(variant.config, variant.vlans, stick=variant.stick) as (other, _):
                own = variant.loads()
                turns = [(rig, load) for load in base] + [(other, load) for load in own]
                _play(seen, generator, turns)
                shown += own
    rows = [_row(load, seen, base) for load in shown]
    figures = {
        name: {"rates": [r._asdict() for r in found.rates], "flows": found.flows,
               "messages": found.messages}
        for name, found in seen.items()
    }  # fmt: skip
    return Result(rows, {"subscribers": len(SUBSCRIBERS), "features": figures})


@contextlib.contextmanager
def _rig(
    config: str, vlans: tuple[int, int] = (0, 0), *, stick: bool = False
) -> Iterator[tuple[Rig, list[str]]]:
    with lwaftr(len(SUBSCRIBERS), config, vlans, stick=stick) as rig:
        rig.controller.start()
        rig.wait_ready()
        yield rig, pin(rig)


def _play(
    seen: dict[str, Seen], generator: Sequence[str], turns: Sequence[tuple[Rig, Load]]
) -> None:
    for number in range(ROUNDS):
        for rig, load in turns:
            if number == 0:
                load.prepare(rig)
            if number == 0 or not load.paced:
                _measure(seen[load.name], rig, generator, load)


def _measure(found: Seen, rig: Rig, generator: Sequence[str], load: Load) -> None:
    rig.ovs("ovs-appctl", "revalidator/purge")
    before, sent_before = _messages(rig), sent(rig, load.way.into)

    def watch() -> None:
        text = rig.ovs("ovs-appctl", "dpctl/dump-flows")
        found.flows = max(found.flows, text.count("actions:"))

    pace = PACED if load.paced else 0
    found.rates.append(
        rate(
            rig,
            generator,
            load.way,
            load.frames,
            per_second=pace,
            warm_up=WARM_UP,
            seconds=SECONDS,
            watch=watch,
        )
    )
    packets = sent(rig, load.way.into) - sent_before
    to, back = (now - then for now, then in zip(_messages(rig), before, strict=True))
    found.messages = to / packets, back / packets


def _row(load: Load, seen: dict[str, Seen], base: Sequence[Load]) -> Row:
    found = seen[load.name]
    flows = f"{found.flows} flows"
    if load.paced:
        share = median(rate.clock for rate in found.rates) / (PACED * load.arriving)
        to, back = found.messages
        return Row(load.name, f"{share:.0%} of {PACED:,}/s, {flows}",
                   f"{to:.1f} + {back:.1f} messages", share >= _ENOUGH)  # fmt: skip
    (plain_one,) = (other for other in base if other.side == load.side)
    processor, clock = (
        _median(found, by) / load.arriving / _median(seen[plain_one.name], by)
        for by in ("processor", "clock")
    )
    absolute = f", {_median(found, 'clock') / 1e3:.0f}k/s" if load is plain_one else ""
    return Row(load.name, f"{processor:.2f} ({clock:.2f}), {flows}{absolute}")


def _median(found: Seen, by: str) -> float:
    middle: float = median(getattr(rate, by) for rate in found.rates)
    return middle


def _messages(rig: Rig) -> tuple[int, int]:
    """That the switch has sent to its controller, and received."""
    to, back = (
        int(rig.ovs("ovs-appctl", "coverage/read-counter", f"vconn_{which}"))
        for which in ("sent", "received")
    )
    return to, back
