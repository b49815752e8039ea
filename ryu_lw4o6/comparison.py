"""A switch's flows, one by one, compared with what should be there."""

from __future__ import annotations

from openflow_rules import encode
from openflow_rules.compiler.parts import Ports
from openflow_rules.tables import TABLES, CookieClass, Table
from ryu_lw4o6.core.binding import BindingKey, BindingTable
from ryu_lw4o6.core.settings import Instance

_OUR_CLASSES = frozenset(int(kind) for kind in CookieClass)
_TRANSIENT = frozenset(int(table) for table, declared in TABLES.items() if declared.transient)


class Comparison:
    """Give every flow of a dump to ``take``; the rest says what they were."""

    def __init__(
        self, instance: Instance, table: BindingTable, encoder: encode.BindingEncoder, ports: Ports
    ) -> None:
        self.on_switch: set[BindingKey] = set()
        """The bindings that have flows, right or wrong."""
        self.pipeline: dict[bytes, bytes] = {}
        """Canonical form of the other flows that are there, and the messages that delete them."""
        self.orphans: dict[BindingKey, encode.PipelineFields] = {}
        """The softwires of bindings that nobody knows, unless ``differing`` finds them known."""
        self.alien: list[encode.FlowStats] = []
        """Flows that are not ours; they are in ``pipeline`` as well."""
        self.next_hop_mac: str | None = None
        self._instance = instance
        self._table = table
        self._encoder = encoder
        self._ports = ports
        self._right: dict[BindingKey, int] = {}
        self._wrong: dict[BindingKey, None] = {}
        self._unknown: dict[BindingKey, list[tuple[int, bytes]]] = {}

    def take(self, flow: encode.FlowStats) -> None:
        kind = flow.cookie >> 56
        if flow.table in _TRANSIENT or kind == CookieClass.TEMPORARY:
            return
        if kind == CookieClass.BINDING:
            self._take_binding(flow)
            return
        self.pipeline[flow.canonical()] = flow.delete()
        if kind not in _OUR_CLASSES:
            self.alien.append(flow)
        elif flow.table == Table.INTERNET_OUTPUT:
            mac = encode.next_hop_mac(flow, self._instance, self._ports)
            self.next_hop_mac = mac or self.next_hop_mac

    def _take_binding(self, flow: encode.FlowStats) -> None:
        key = BindingKey.from_numbers(flow.cookie >> 16 & 0xFFFFFFFF, flow.cookie & 0xFFFF)
        self.on_switch.add(key)
        if key in self._table:
            self._judge(key, flow.table, flow.canonical())
            return
        self._unknown.setdefault(key, []).append((flow.table, flow.canonical()))
        if flow.table == Table.UPSTREAM_BINDING:
            self.orphans[key] = encode.pipeline_fields(flow.match[4:])

    def _judge(self, key: BindingKey, table: int, canonical: bytes) -> None:
        binding = self._table.get(key)
        if (
            binding is not None
            and self._instance.carries(binding)
            and canonical == self._encoder.canonical(binding, table)
        ):
            self._right[key] = self._right.get(key, 0) + 1
        else:
            self._wrong[key] = None

    def is_early(self, key: BindingKey) -> bool:
        """Whether a binding's flows were compared when they were taken: the table may say something
        else by now. The others are compared by ``differing``."""
        return key in self.on_switch and key not in self._unknown

    def differing(self) -> dict[BindingKey, None]:
        """The bindings whose flows are wrong, or not both there, once all have been taken. Of those
        that nobody knew the table may have learnt meanwhile. To be called once."""
        for key, flows in self._unknown.items():
            for table, canonical in flows:
                self._judge(key, table, canonical)
        missing = {
            key: None
            for key, binding in self._table.items()
            if self._right.get(key) != 2 and self._instance.carries(binding)
        }
        return self._wrong | missing
