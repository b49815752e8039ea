"""The static bindings of a configuration, in the file itself and in a CSV file."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

from ryu_lw4o6.core.binding import Binding, BindingTable, Origin, Prefix, UnknownPrefix
from ryu_lw4o6.core.config import values
from ryu_lw4o6.core.config.document import Entry, read_text, value_of
from ryu_lw4o6.core.config.instances import Instances, Prefixes
from ryu_lw4o6.core.config.problems import Bad, Problem, did_you_mean, quote
from ryu_lw4o6.core.portset import FULL_ADDRESS

MAX_CSV = 512 << 20
COLUMNS = ("lwb4", "ipv4", "psid", "br_address")
REQUIRED = ("lwb4", "ipv4")


class _Address(NamedTuple):
    """What is known of an IPv4 address: ``prefix`` is the one it is in."""

    ipv4: IPv4Address
    number: int
    prefix: Prefix | None
    br_addresses: frozenset[IPv6Address | None]
    """The br-addresses with which an instance carries its bindings; None is the default one."""


class _Place(NamedTuple):
    file: str
    line: int


class BindingReader:
    """Checks bindings against prefixes, instances and each other."""

    def __init__(self, prefixes: Prefixes, instances: Instances) -> None:
        self._prefixes = prefixes
        self._instances = instances
        self._table = BindingTable(prefixes.prefixes)
        self._bound: dict[tuple[int, int], _Place] = {}
        self._carried: dict[Prefix, set[IPv6Address | None]] = {}
        for instance in instances.instances:
            for prefix in instance.prefixes:
                served = self._carried.setdefault(prefix, {None})
                served.update(instance.aftr_addresses)
        # Only lwB4 addresses are all different.
        self._converters: dict[str, Callable[[str], Any]] = {
            "lwb4": values.ipv6_host,
            "ipv4": functools.cache(self._read_ipv4),
            "psid": functools.cache(values.integer(0, 0xFFFF)),
            "br_address": functools.cache(self._read_br_address),
        }

    def inline(self, entry: Entry) -> Iterator[Binding]:
        """The bindings that stand in the configuration file itself."""
        for item in entry.items(may_be_empty=True):
            found = item.fields(COLUMNS, REQUIRED)
            if found is None:
                continue
            read = {key: value_of(found, key, convert) for key, convert in self._converters.items()}
            if any(read[key] is None for key in (*REQUIRED, *found)):
                continue
            try:
                yield self._binding(
                    read["lwb4"], read["ipv4"], read["psid"] or 0, read["br_address"],
                    _Place(item.file, item.line),
                )  # fmt: skip
            except Bad as bad:
                item.problem(bad.reason, bad.suggestion)

    def csv(self, entry: Entry, directory: Path) -> Iterator[Binding]:
        """The bindings of the CSV file that ``entry`` names, relative to ``directory``."""
        name = entry.value(values.text)
        if name is None:
            return
        path = directory / name
        try:
            text = read_text(path, MAX_CSV)
        except Bad as bad:
            if bad.line is None:
                entry.problem(f"{path}: {bad.reason}", bad.suggestion)
            else:
                entry.problems.append(Problem(str(path), bad.line, "", bad.reason, bad.suggestion))
            return

        def problem(column: str, reason: str, suggestion: str) -> None:
            line = max(rows.line_num, 1)
            entry.problems.append(Problem(str(path), line, column, reason, suggestion))

        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header = [column.strip() for column in next(rows, [])]
            if _check_header(header, problem):
                yield from self._rows(rows, header, str(path), problem)
        except csv.Error as error:
            problem("", f"not CSV: {error}", "Check the quotes; all that follows was not read")

    def _rows(
        self, rows: Any, header: Sequence[str], file: str, problem: Callable[[str, str, str], None]
    ) -> Iterator[Binding]:
        columns = [(key, header.index(key), self._converters[key]) for key in header]
        (_, lwb4_at, read_lwb4), (_, ipv4_at, read_ipv4) = sorted(
            (column for column in columns if column[0] in REQUIRED), reverse=True
        )
        optional = [column for column in columns if column[0] not in REQUIRED]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                problem("", f"{len(row)} columns, the header has {len(header)}", "Correct the row")
                continue
            row = [text.strip() for text in row]
            try:
                lwb4, ipv4 = read_lwb4(row[lwb4_at]), read_ipv4(row[ipv4_at])
                rest = {key: convert(row[at]) for key, at, convert in optional if row[at]}
            except Bad:
                for key, at, convert in columns:
                    try:
                        if row[at] or key in REQUIRED:
                            convert(row[at])
                    except Bad as bad:
                        problem(key, bad.reason, bad.suggestion)
                continue
            try:
                place = _Place(file, rows.line_num)
                yield self._binding(lwb4, ipv4, rest.get("psid", 0), rest.get("br_address"), place)
            except Bad as bad:
                problem("", bad.reason, bad.suggestion)

    def _read_ipv4(self, text: str) -> _Address:
        ipv4 = values.ipv4(text)
        try:
            prefix = self._table.prefix_of(ipv4)
        except UnknownPrefix:
            if self._prefixes.complete:
                raise Bad(
                    f"{ipv4} is in none of the prefixes", "Add its prefix, or correct it"
                ) from None
            return _Address(ipv4, int(ipv4), None, frozenset())
        return _Address(ipv4, int(ipv4), prefix, frozenset(self._carried.get(prefix, ())))

    def _read_br_address(self, text: str) -> IPv6Address:
        address = values.ipv6(text)
        if self._instances.aftr_known and address not in self._instances.aftr:
            raise Bad(f"{address} is no instance's", "Add it to the aftr_addresses of the instance")
        return address

    def _binding(
        self, lwb4: IPv6Address, address: _Address, psid: int, br: IPv6Address | None, at: _Place
    ) -> Binding:
        ipv4, number, prefix, br_addresses = address
        if lwb4 in self._instances.own:
            raise Bad(f"lwB4 {lwb4} is an address of the lwAFTR", "Use the lwB4's own address")
        if prefix is None:  # reported already: no PSID can be judged
            return Binding(lwb4, ipv4, psid, FULL_ADDRESS, br, Origin.STATIC)
        try:
            prefix.params.check_psid(psid)
        except ValueError as error:
            raise Bad(str(error), "Correct the PSID, or the prefix's psid_length") from None
        if self._instances.complete and br not in br_addresses:
            if not br_addresses:
                raise Bad(
                    f"no instance serves {prefix.network}", "Add it to an instance's prefixes"
                )
            raise Bad(
                f"no instance that serves {prefix.network} has the br_address {br}",
                "Add it to the aftr_addresses of one that does",
            )
        first = self._bound.setdefault((number, psid), at)
        if first is not at:
            place = f"line {first.line}" if first.file == at.file else f"{first.file}:{first.line}"
            raise Bad(f"{ipv4} PSID {psid} is bound already ({place})", "Remove one of the two")
        return Binding(lwb4, ipv4, psid, prefix.params, br, Origin.STATIC)


def _check_header(header: Sequence[str], problem: Callable[[str, str, str], None]) -> bool:
    """Whether the first row names the columns."""
    expected = f"The columns are {', '.join(COLUMNS)}; the last two may be left out"
    if not header:
        problem("", "the file is empty", expected)
        return False
    good = True
    for column in dict.fromkeys(header):
        if column not in COLUMNS:
            problem("", f"unknown column {quote(column)}", did_you_mean(column, COLUMNS))
            good = False
        elif header.count(column) > 1:
            problem(column, "the column is there twice", "Remove one of them")
            good = False
    for column in REQUIRED:
        if column not in header:
            problem(column, "the column is missing", expected)
            good = False
    return good
