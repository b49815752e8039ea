"""The tables, and bindings as rows of them.

They are meant to be read by people and by other programs: addresses are text in their canonical
form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

import sqlalchemy as sa

from ryu_lw4o6.core import addresses
from ryu_lw4o6.core.binding import Binding, BindingKey, Origin
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.times import end_of

SCHEMA_VERSION = 1
METADATA = sa.MetaData()
VERSION = sa.Table("lw4o6_schema", METADATA, sa.Column("version", sa.Integer, primary_key=True))
IDENTITY = sa.Table("lw4o6_store", METADATA, sa.Column("id", sa.String(32), primary_key=True))
BINDINGS = sa.Table(
    "bindings",
    METADATA,
    sa.Column("ipv4", sa.String(15), primary_key=True),
    sa.Column("psid_length", sa.SmallInteger, primary_key=True),
    sa.Column("psid", sa.Integer, primary_key=True),
    sa.Column("psid_offset", sa.SmallInteger, nullable=False),
    sa.Column("lwb4", sa.String(39), nullable=False, index=True),
    sa.Column("br_address", sa.String(39)),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("expires_at", sa.Double, index=True),
    # Who asks for a port set does not say how long its PSID is, which the primary key wants to know
    # before the PSID: it would read all that share an address, for each of them.
    sa.Index("ix_bindings_ipv4_psid", "ipv4", "psid"),
)
DRAINED = sa.Table(
    "drained_instances", METADATA, sa.Column("name", sa.String(64), primary_key=True)
)
COLUMNS = (
    BINDINGS.c.ipv4,
    BINDINGS.c.psid,
    BINDINGS.c.psid_offset,
    BINDINGS.c.psid_length,
    BINDINGS.c.lwb4,
    BINDINGS.c.br_address,
    BINDINGS.c.origin,
    BINDINGS.c.expires_at,
)


def _find(asked: str) -> Any:
    """A query for many keys, given as one JSON value so that it is the same query every time."""
    columns = ", ".join(f"b.{column.name}" for column in COLUMNS)
    return sa.text(f"select {columns} from {asked}")


def _packed(rows: str) -> Any:
    """A query of SQLite whose answer is one JSON value, for ``unpacked``: Python gives its
    interpreter lock away for each row that it reads, and waits for it if the controller is busy.
    JSON would round the time, quote does not."""
    columns = ", ".join(f"b.{column.name}" for column in COLUMNS[:-1])
    return sa.text(
        f"select json_group_array(json_array({columns}, quote(b.expires_at))) from {rows}"
    )


def unpacked(answer: str | None) -> list[list[Any]]:
    """The rows of a query that answers with one JSON value."""
    return [[*row, None if end == "NULL" else end] for *row, end in json.loads(answer or "[]")]


FIND_SQLITE = _packed(
    "(select value ->> 'ipv4' as ipv4, value ->> 'psid' as psid from json_each(:asked)) k "
    "join bindings b on b.ipv4 = k.ipv4 and b.psid = k.psid"
)
# "offset 0" keeps the planner from reading the whole table when it has no statistics yet.
FIND_POSTGRESQL = _find(
    "json_to_recordset(cast(:asked as json)) as k(ipv4 text, psid integer) cross join lateral "
    "(select * from bindings where ipv4 = k.ipv4 and psid = k.psid offset 0) b"
)

_PAGE = (
    "bindings where ipv4 like :like and (ipv4, psid_length, psid) > (:ipv4, :length, :psid) "
    "order by ipv4, psid_length, psid limit :size"
)
PAGE_SQLITE = _packed(f"(select * from {_PAGE}) b")
PAGE = sa.text(f"select {', '.join(c.name for c in COLUMNS)} from {_PAGE}")


def like(network: IPv4Network) -> str:
    """A pattern of the addresses that share the whole octets of a network."""
    octets = str(network.network_address).split(".")[: network.prefixlen // 8]
    return ".".join([*octets, ""][:4]) + "%"


CHANNEL = "lw4o6_bindings"
NOTIFY = f"""
create function lw4o6_notify() returns trigger language plpgsql as $$
declare sender text := coalesce(nullif(current_setting('lw4o6.sender', true), ''), '-');
begin
    if tg_op = 'TRUNCATE' then
        perform pg_notify('{CHANNEL}', sender);
        return null;
    end if;
    if tg_op <> 'DELETE' then
        perform pg_notify('{CHANNEL}', sender || ' ' || new.ipv4 || ' ' || new.psid);
    end if;
    if tg_op <> 'INSERT' and (tg_op = 'DELETE' or (old.ipv4, old.psid) <> (new.ipv4, new.psid)) then
        perform pg_notify('{CHANNEL}', sender || ' ' || old.ipv4 || ' ' || old.psid);
    end if;
    return null;
end $$;
create trigger lw4o6_notify after insert or update or delete on bindings
    for each row execute function lw4o6_notify();
create trigger lw4o6_notify_all after truncate on bindings execute function lw4o6_notify();
"""
"""Whoever changes the table, by whatever program: those who listen are told the keys."""

DELETE = BINDINGS.delete().where(
    BINDINGS.c.ipv4 == sa.bindparam("k_ipv4"), BINDINGS.c.psid == sa.bindparam("k_psid")
)
IS_VALIDATED = BINDINGS.c.origin == str(Origin.VALIDATED)
WITHDRAW = DELETE.where(IS_VALIDATED)


def deleted(keys: Iterable[BindingKey]) -> list[dict[str, Any]]:
    """The parameters of ``DELETE`` and ``WITHDRAW``."""
    return [{"k_ipv4": str(key.ipv4), "k_psid": key.psid} for key in keys]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bindings of the store, and what it holds that is none."""

    bindings: list[Binding]
    problems: list[str]


def loaded(found: Iterable[Sequence[Any]]) -> Loaded:
    """Bindings out of rows of ``COLUMNS``."""
    bindings: list[Binding] = []
    problems: list[str] = []
    parameters: dict[tuple[int, int], PortParams] = {}
    for ipv4, psid, offset, length, lwb4, br_address, origin, expires_at in found:
        try:
            if (offset, length) not in parameters:
                parameters[offset, length] = PortParams(offset, length)
            params = parameters[offset, length]
            params.check_psid(psid)
            bindings.append(
                Binding(
                    addresses.ipv6(lwb4),
                    addresses.ipv4(ipv4),
                    psid,
                    params,
                    addresses.ipv6(br_address) if br_address else None,
                    Origin(origin),
                    None if expires_at is None else end_of(float(expires_at)),
                )
            )
        except (ValueError, TypeError) as error:
            problems.append(f"row {ipv4}/{psid} is no binding and is ignored: {error}")
    return Loaded(bindings, problems)


def rows(values: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Rows as the parameter of a statement: one value, however many there are, so that the
    statement is the same every time and nobody has to build and read thousands of parameters."""
    return {"rows": json.dumps(list(values))}


def row(binding: Binding) -> dict[str, Any]:
    return {
        "ipv4": str(binding.ipv4),
        "psid_length": binding.params.psid_length,
        "psid": binding.psid,
        "psid_offset": binding.params.psid_offset,
        "lwb4": addresses.text_of(binding.lwb4),
        "br_address": addresses.text_of(binding.br_address) if binding.br_address else None,
        "origin": str(binding.origin),
        "expires_at": binding.expires_at,
    }
