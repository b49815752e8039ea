"""Flows as values: what a rule matches and does, before anything is encoded.

Field names are Ryu's. A value is what Ryu takes for that field (an int, or an address or MAC as
text), or a ``Var``: the part of a binding's flow that differs from binding to binding.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace


class Var(enum.Enum):
    """What a binding puts into its flows. The text is how the pipeline page shows it."""

    COOKIE = "<binding>"
    IPV4 = "<IPv4>"
    PSID = "<PSID>"
    LWB4 = "<lwB4>"
    BR_ADDRESS = "<br-address>"
    BR_MAC = "<br-tag>"


Value = int | str | Var


@dataclass(frozen=True, slots=True)
class Match:
    """One matched field; ``mask`` None means exactly."""

    field: str
    value: Value
    mask: int | str | None = None


@dataclass(frozen=True, slots=True)
class SetField:
    field: str
    value: Value


@dataclass(frozen=True, slots=True)
class Load:
    """Write ``bits`` bits of a field from bit ``first`` on: a part of one, or a whole one that
    OpenFlow 1.3's set_field may not, such as in_port."""

    field: str
    bits: int
    value: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """Copy ``bits`` bits between fields, from bit ``src_bit`` to bit ``dst_bit``."""

    src: str
    src_bit: int
    dst: str
    dst_bit: int
    bits: int


@dataclass(frozen=True, slots=True)
class CheckLarger:
    """Set bit 0 of ``register`` if the frame has more than ``size`` bytes, else clear it. Open
    vSwitch follows both outcomes when it translates a packet, and credits the flows of both."""

    size: int
    register: str


@dataclass(frozen=True, slots=True)
class DecTtl:
    pass


@dataclass(frozen=True, slots=True)
class Output:
    port: int


@dataclass(frozen=True, slots=True)
class ToController:
    """A copy of at most ``max_len`` bytes to the controller, if ``meter`` lets it pass. That of a
    flow stops the packet as well."""

    max_len: int
    meter: int | None = None


@dataclass(frozen=True, slots=True)
class Resubmit:
    table: int


Action = SetField | Load | Move | CheckLarger | DecTtl | Output | ToController | Resubmit


@dataclass(frozen=True, slots=True)
class Flow:
    """One OpenFlow rule. ``note`` says in one sentence what it is for.

    ``goto`` is the next table; a flow without actions and without ``goto`` drops. ``meter`` is
    the meter that packets pass first. ``hard_timeout`` is in seconds, 0 for a flow that stays.
    """

    table: int
    priority: int
    cookie: int | Var
    match: tuple[Match, ...]
    actions: tuple[Action, ...] = ()
    goto: int | None = None
    meter: int | None = None
    hard_timeout: int = 0
    note: str = ""

    def bind(self, value_of: Callable[[Var], int | str]) -> Flow:
        """This flow with every ``Var`` replaced by ``value_of(var)``."""

        def fill(value: Value) -> int | str:
            return value_of(value) if isinstance(value, Var) else value

        cookie = fill(self.cookie)
        assert isinstance(cookie, int)
        return replace(
            self,
            cookie=cookie,
            match=tuple(replace(m, value=fill(m.value)) for m in self.match),
            actions=tuple(
                replace(a, value=fill(a.value)) if isinstance(a, SetField) else a
                for a in self.actions
            ),
        )
