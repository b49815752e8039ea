"""What a PCP server keeps in the store beside bindings: mappings, and since when it keeps them.

Controllers that share a store share all of it. So a renewal may come to any of them, and all tell
the same epoch (RFC 6887 section 8.5): it began with the store, whose loss is the loss of the
mappings' state.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import sqlalchemy as sa

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin
from ryu_lw4o6.core.pcp_server import Mapping, Subscriber
from ryu_lw4o6.store import Store, rows

_METADATA = sa.MetaData()
_MAPPINGS = sa.Table(
    "pcp_mappings",
    _METADATA,
    sa.Column("lwb4", sa.String(39), primary_key=True),
    sa.Column("protocol", sa.SmallInteger, primary_key=True),
    sa.Column("internal_port", sa.Integer, primary_key=True),
    sa.Column("nonce", sa.String(24), nullable=False),
    sa.Column("external_address", sa.String(15), nullable=False),
    sa.Column("external_port", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False, index=True),
)
_EPOCH = sa.Table("pcp_epoch", _METADATA, sa.Column("started_at", sa.Double, primary_key=True))


@dataclass(frozen=True, slots=True)
class Change:
    """A subscriber before and after a request."""

    before: Subscriber
    after: Subscriber

    @property
    def put(self) -> Binding | None:
        """The binding to be made or prolonged."""
        binding = self.after.binding
        if binding is None or binding.origin is not Origin.PCP or binding == self.before.binding:
            return None
        return binding

    @property
    def gone(self) -> Binding | None:
        """The binding to be removed."""
        binding = self.before.binding
        if binding is None or self.after.binding is not None or binding.origin is not Origin.PCP:
            return None
        return binding

    @property
    def key(self) -> BindingKey | None:
        """The key of the binding that the mappings are of."""
        binding = self.after.binding or self.before.binding
        return None if binding is None else binding.key


class PcpRecords:
    """May be used from several threads. Everything raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.create(_METADATA)
        with store.exclusive() as connection:
            started = connection.scalar(sa.select(sa.func.min(_EPOCH.c.started_at)))
            if started is None:
                started = time.time()
                connection.execute(_EPOCH.insert().values(started_at=started))
        self._started: float = started

    def epoch(self, now: float) -> int:
        """The epoch time at ``now``, Unix time in seconds."""
        return max(0, int(now - self._started))

    def mappings(
        self, lwb4s: Iterable[IPv6Address], now: float
    ) -> dict[IPv6Address, list[Mapping]]:
        """The mappings of these lwB4s that are not over."""
        asked = self._store.given(_MAPPINGS.c.lwb4)
        query = sa.select(_MAPPINGS).where(
            _MAPPINGS.c.lwb4.in_(asked), _MAPPINGS.c.expires_at > sa.bindparam("now")
        )
        values = rows({"lwb4": str(lwb4)} for lwb4 in lwb4s)
        found: dict[IPv6Address, list[Mapping]] = {}
        with self._store.transaction() as connection:
            rows_found = connection.execute(query, {**values, "now": now}).all()
        for lwb4, protocol, internal, nonce, ipv4, external, size, expires_at in rows_found:
            found.setdefault(IPv6Address(lwb4), []).append(
                Mapping(
                    protocol, internal, bytes.fromhex(nonce), IPv4Address(ipv4), external, size,
                    expires_at,
                )
            )  # fmt: skip
        return found

    def commit(self, changes: Sequence[Change], now: float) -> set[BindingKey]:
        """Make changes durable, but for those whose address and port set somebody else has by
        now, of which nothing is kept: the keys of these."""
        wanted = [binding for change in changes if (binding := change.put) is not None]
        with self._store.transaction() as connection:
            refused = {b.key for b in wanted} - self._store.claim(connection, wanted, now)
            done = [change for change in changes if change.put is None or change.key not in refused]
            self._store.release(connection, [b for c in done if (b := c.gone) is not None])
            gone = [
                {"lwb4": str(change.before.lwb4), "protocol": protocol, "internal_port": port}
                for change in done
                for protocol, port in _keys(change.before) - _keys(change.after)
            ]
            if gone:
                keys = list(_MAPPINGS.primary_key)
                connection.execute(self._store.delete(_MAPPINGS, *keys), rows(gone))
            made = [
                _row(change.after.lwb4, mapping)
                for change in done
                for mapping in change.after.mappings
                if mapping not in change.before.mappings
            ]
            if made:
                connection.execute(self._store.upsert(_MAPPINGS), rows(made))
        return refused

    def expire(self, now: float) -> None:
        """Forget the mappings that are over."""
        with self._store.transaction() as connection:
            over = self._store.over(_MAPPINGS.c.expires_at, now)
            connection.execute(_MAPPINGS.delete().where(over))


def _keys(subscriber: Subscriber) -> set[tuple[int, int]]:
    return {mapping.key for mapping in subscriber.mappings}


def _row(lwb4: IPv6Address, mapping: Mapping) -> dict[str, object]:
    return {
        "lwb4": str(lwb4),
        "protocol": mapping.protocol,
        "internal_port": mapping.internal_port,
        "nonce": mapping.nonce.hex(),
        "external_address": str(mapping.external_address),
        "external_port": mapping.external_port,
        "size": mapping.size,
        "expires_at": mapping.expires_at,
    }
