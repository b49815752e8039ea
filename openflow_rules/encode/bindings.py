"""The flows of bindings, fast.

They exist a hundred thousand times, so each is encoded once with recognisable values in place of
its ``Var``s; a ``Template`` then packs the real values into those places with one call of
``struct``.
"""

from __future__ import annotations

import functools
import struct
from ipaddress import IPv6Address
from operator import itemgetter
from typing import Any

from openflow_rules.compiler import unknown
from openflow_rules.compiler.bindings import BINDING_FLOWS, br_mac
from openflow_rules.encode.control import in_bundle
from openflow_rules.encode.flows import (
    PLACEHOLDER,
    XID,
    XID_PLACEHOLDER,
    add_flow,
    canonical_flow,
    cookie_of,
    delete_by_cookie,
    with_xid,
)
from openflow_rules.flow import Var
from openflow_rules.tables import CookieClass, cookie
from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.core.settings import Instance

_PLACES: tuple[tuple[Var | None, bytes, str], ...] = (
    (None, XID.pack(XID_PLACEHOLDER), "I"),
    (Var.COOKIE, struct.pack("!Q", PLACEHOLDER[Var.COOKIE]), "Q"),
    (Var.IPV4, bytes([203, 93, 181, 27]), "I"),
    (Var.PSID, struct.pack("!I", PLACEHOLDER[Var.PSID]), "I"),
    (Var.LWB4, bytes.fromhex(str(PLACEHOLDER[Var.LWB4]).replace(":", "")), "16s"),
    (Var.BR_ADDRESS, bytes.fromhex(str(PLACEHOLDER[Var.BR_ADDRESS]).replace(":", "")), "16s"),
    (Var.BR_MAC, bytes.fromhex(str(PLACEHOLDER[Var.BR_MAC]).replace(":", "")), "6s"),
)
_Values = tuple[int, int, int, int, bytes, bytes, bytes]
_BINDING_CLASS = cookie(CookieClass.BINDING)


class Template:
    """Bytes with places for (xid, cookie, IPv4, PSID, lwB4, br-address, br MAC)."""

    def __init__(self, sample: bytes) -> None:
        found: list[tuple[int, int, int, str]] = []
        for index, (_, placeholder, code) in enumerate(_PLACES):
            at = sample.find(placeholder)
            while at >= 0:
                found.append((at, len(placeholder), index, code))
                at = sample.find(placeholder, at + 1)
        formats: list[str] = ["!"]
        order: list[int] = []
        constants: list[bytes] = []
        end = 0
        for at, length, index, code in sorted(found):
            assert at >= end, "placeholders overlap"
            if at > end:
                order.append(len(_PLACES) + len(constants))
                constants.append(sample[end:at])
                formats.append(f"{at - end}s")
            order.append(index)
            formats.append(code)
            end = at + length
        order.append(len(_PLACES) + len(constants))
        constants.append(sample[end:])
        formats.append(f"{len(sample) - end}s")
        self._constants = tuple(constants)
        self._pick = itemgetter(*order)
        self._pack = struct.Struct("".join(formats)).pack

    def fill(self, values: _Values) -> bytes:
        return self._pack(*self._pick(values + self._constants))


class BindingEncoder:
    """Encodes the flows of one instance's bindings.

    Every ``add_*`` gives two messages whose transaction ids are ``xid`` for both: an error about
    either is an error about the binding.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._default_br = self._br(None)
        self._brs = {address: self._br(address) for address in instance.aftr_addresses}
        messages = [add_flow(flow, XID_PLACEHOLDER) for flow in BINDING_FLOWS]
        self._add = Template(b"".join(messages))
        self._add_bundled = Template(b"".join(in_bundle(m) for m in messages))
        self._delete_bundled = Template(
            in_bundle(with_xid(delete_by_cookie(cookie_of(BINDING_FLOWS[0])), XID_PLACEHOLDER))
        )
        self._canonical = {
            int(flow.table): Template(canonical_flow(flow)) for flow in BINDING_FLOWS
        }

    def _br(self, address: Any) -> tuple[bytes, bytes]:
        address = address or self._instance.aftr_addresses[0]
        return address.packed, br_mac(address).to_bytes(6, "big")

    def _values(self, binding: Binding, xid: int) -> _Values:
        ipv4 = int(binding.ipv4)
        br = self._brs[binding.br_address] if binding.br_address else self._default_br
        # The same as tables.binding_cookie, without building a key for each of 100,000 bindings.
        key = _BINDING_CLASS | ipv4 << 16 | binding.psid
        return (xid, key, ipv4, binding.psid, binding.lwb4.packed, *br)

    def add(self, binding: Binding, xid: int) -> bytes:
        return self._add.fill(self._values(binding, xid))

    def add_bundled(self, binding: Binding, xid: int) -> bytes:
        return self._add_bundled.fill(self._values(binding, xid))

    def delete_bundled(self, cookie: int, xid: int) -> bytes:
        return self._delete_bundled.fill((xid, cookie, 0, 0, b"", b"", b""))

    def canonical(self, binding: Binding, table: int) -> bytes | None:
        """The flow of ``binding`` in ``table`` in canonical form; None for a table that has
        none."""
        template = self._canonical.get(table)
        return None if template is None else template.fill(self._values(binding, 0))


def quiet(key: BindingKey, lwb4: IPv6Address | None, seconds: int) -> bytes:
    """A message that keeps an address and port set off the controller for ``seconds``: as the inner
    source of ``lwb4``, or as a destination if that is None."""
    outer = b"" if lwb4 is None else lwb4.packed
    return _quiet_template(seconds, lwb4 is not None).fill(
        (0, 0, int(key.ipv4), key.psid, outer, b"", b"")
    )


def quiet_lwb4(lwb4: bytes, seconds: int) -> bytes:
    """A message that keeps whatever an lwB4 sends without a binding off the controller."""
    return _quiet_template(seconds, None).fill((0, 0, 0, 0, lwb4, b"", b""))


@functools.lru_cache(maxsize=8)
def _quiet_template(seconds: int, upstream: bool | None) -> Template:
    flow = (
        unknown.quiet_lwb4(seconds)
        if upstream is None
        else unknown.quiet(seconds, upstream=upstream)
    )
    return Template(add_flow(flow))
