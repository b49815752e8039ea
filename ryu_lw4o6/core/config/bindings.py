"""Bindings in files: the static ones of a configuration, in the file itself and in a CSV file,
and those of a supporting system that is a CSV or JSON file."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
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
EXPIRES_AT = "expires_at"
REQUIRED = ("lwb4", "ipv4")
_ALSO_IN_JSON = ("psid_offset", "psid_length", "ports", "origin", "state")
"""What REST shows of a binding besides, so that what it lists can be used as it is."""


class _Address(NamedTuple):
    """What is known of an IPv4 address: ``prefix`` is the one it is in."""

    ipv4: IPv4Address
    number: int
    prefix: Prefix | None
    br_addresses: frozenset[IPv6Address | None]
    """The br-addresses with which an instance carries its bindings; None is the default one."""


class _Place(NamedTuple):
    """A row of a file: on a line of text, or at an index of JSON."""

    file: str
    line: int | None
    path: str = ""

    def __str__(self) -> str:
        return self.path if self.line is None else f"line {self.line}"


_Report = Callable[[_Place, str, str, str], None]
"""Takes place, column, reason and suggestion."""


class BindingReader:
    """Checks bindings against prefixes, instances and each other. ``origin`` is theirs; what
    comes from files may have an ``expires_at`` if ``may_expire`` is set."""

    def __init__(
        self,
        prefixes: Prefixes,
        instances: Instances,
        origin: Origin = Origin.STATIC,
        *,
        may_expire: bool = False,
    ) -> None:
        self._origin = origin
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
        if may_expire:
            self._converters[EXPIRES_AT] = values.moment

    def inline(self, entry: Entry) -> Iterator[Binding]:
        """The bindings that stand in the configuration file itself."""
        for item in entry.items(may_be_empty=True):
            found = item.fields(COLUMNS, REQUIRED)
            if found is None:
                continue
            read = {key: value_of(found, key, convert) for key, convert in self._converters.items()}
            wrong = any(read[key] is None for key in (*REQUIRED, *found))
            psid = read["psid"] if "psid" in found else 0
            place = _Place(item.file, item.line)
            for misfit in self._misfits(
                read["lwb4"], read["ipv4"], psid, read["br_address"], place
            ):
                item.problem(misfit.reason, misfit.suggestion)
                wrong = True
            if not wrong:
                yield self._binding(read["lwb4"], read["ipv4"], psid, read["br_address"])

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

        yield from self.csv_text(text, str(path), entry.problems)

    def csv_text(self, text: str, file: str, problems: list[Problem]) -> Iterator[Binding]:
        """The bindings of a CSV file; what is wrong with it is added to ``problems``."""
        report = _reporter(problems)
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)

        def rows() -> Iterator[tuple[_Place, list[str]]]:
            for row in reader:
                yield _Place(file, reader.line_num), [text.strip() for text in row]

        try:
            header = [column.strip() for column in next(reader, [])]
            place = _Place(file, max(reader.line_num, 1))
            if self._check_header(header, functools.partial(report, place)):
                yield from self._rows(rows(), header, report)
        except csv.Error as error:
            place = _Place(file, max(reader.line_num, 1))
            hint = "Check the quotes; all that follows was not read"
            report(place, "", f"not CSV: {error}", hint)

    def json_text(self, text: str, file: str, problems: list[Problem]) -> Iterator[Binding]:
        """The bindings of a JSON file: a list of objects, or an object that has it as
        ``bindings``, which is how REST lists them."""
        report = _reporter(problems)
        header = list(self._converters)

        def rows() -> Iterator[tuple[_Place, list[str]]]:
            for index, item in enumerate(items):
                place = _Place(file, None, f"bindings[{index}]")
                if not isinstance(item, dict):
                    report(place, "", "not an object", "Give it lwb4 and ipv4")
                    continue
                strange = [key for key in item if key not in header and key not in _ALSO_IN_JSON]
                for key in strange:
                    report(place, "", f"unknown field {quote(key)}", did_you_mean(key, header))
                if not strange:
                    row = (item.get(key) for key in header)
                    yield place, ["" if value is None else str(value) for value in row]

        try:
            items = json.loads(text)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            report(_Place(file, line), "", f"not JSON: {error}", "Check what stands there")
            return
        if isinstance(items, dict):
            items = items.get("bindings")
        if not isinstance(items, list):
            report(_Place(file, None), "", "not a list of bindings", "Write [{...}, {...}]")
            return
        yield from self._rows(rows(), header, report)

    def _rows(
        self, rows: Iterable[tuple[_Place, list[str]]], header: Sequence[str], report: _Report
    ) -> Iterator[Binding]:
        columns = [(key, header.index(key), self._converters[key]) for key in header]
        (_, lwb4_at, read_lwb4), (_, ipv4_at, read_ipv4) = sorted(
            (column for column in columns if column[0] in REQUIRED), reverse=True
        )
        optional = [column for column in columns if column[0] not in REQUIRED]
        for place, row in rows:
            if not row:
                continue
            if len(row) != len(header):
                reason = f"{len(row)} columns, the header has {len(header)}"
                report(place, "", reason, "Correct the row")
                continue
            wrong = False
            try:
                lwb4, ipv4 = read_lwb4(row[lwb4_at]), read_ipv4(row[ipv4_at])
                rest = {key: convert(row[at]) for key, at, convert in optional if row[at]}
            except Bad:
                wrong, rest = True, {}
                for key, at, convert in columns:
                    try:
                        if row[at] or key in REQUIRED:
                            rest[key] = convert(row[at])
                    except Bad as bad:
                        rest[key] = None
                        report(place, key, bad.reason, bad.suggestion)
                lwb4, ipv4 = rest["lwb4"], rest["ipv4"]
            psid, br = rest.get("psid", 0), rest.get("br_address")
            for misfit in self._misfits(lwb4, ipv4, psid, br, place):
                report(place, "", misfit.reason, misfit.suggestion)
                wrong = True
            if not wrong:
                yield self._binding(lwb4, ipv4, psid, br, rest.get(EXPIRES_AT))

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

    def _misfits(
        self,
        lwb4: IPv6Address | None,
        address: _Address | None,
        psid: int | None,
        br: IPv6Address | None,
        at: _Place,
    ) -> Iterator[Bad]:
        """In how many ways a binding does not fit the rest. An lwB4, address or PSID that could
        not be read is None, and reported already."""
        if lwb4 is not None and lwb4 in self._instances.own:
            yield Bad(f"lwB4 {lwb4} is an address of the lwAFTR", "Use the lwB4's own address")
        if address is None:
            return
        ipv4, number, prefix, br_addresses = address
        if prefix is None:
            return  # no PSID can be judged
        if self._instances.complete and br not in br_addresses:
            if not br_addresses:
                yield Bad(
                    f"no instance serves {prefix.network}", "Add it to an instance's prefixes"
                )
            else:
                yield Bad(
                    f"no instance that serves {prefix.network} has the br_address {br}",
                    "Add it to the aftr_addresses of one that does",
                )
        if psid is None:
            return
        try:
            prefix.params.check_psid(psid)
        except ValueError as error:
            yield Bad(str(error), "Correct the PSID, or the prefix's psid_length")
            return
        first = self._bound.setdefault((number, psid), at)
        if first is not at:
            place = str(first) if first.file == at.file else f"{first.file}:{first.line}"
            yield Bad(f"{ipv4} PSID {psid} is bound already ({place})", "Remove one of the two")

    def _binding(
        self,
        lwb4: IPv6Address,
        address: _Address,
        psid: int,
        br: IPv6Address | None,
        expires_at: float | None = None,
    ) -> Binding:
        # What is in no prefix belongs to one with a problem of its own: nothing will be applied.
        params = FULL_ADDRESS if address.prefix is None else address.prefix.params
        return Binding(lwb4, address.ipv4, psid, params, br, self._origin, expires_at)

    def _check_header(
        self, header: Sequence[str], problem: Callable[[str, str, str], None]
    ) -> bool:
        """Whether the first row names the columns."""
        columns = [key for key in (*COLUMNS, EXPIRES_AT) if key in self._converters]
        optional = ", ".join(columns[len(REQUIRED) :])
        expected = f"The columns are {', '.join(columns)}; {optional} may be left out"
        if not header:
            problem("", "the file is empty", expected)
            return False
        good = True
        for column in dict.fromkeys(header):
            if column not in columns:
                problem("", f"unknown column {quote(column)}", did_you_mean(column, columns))
                good = False
            elif header.count(column) > 1:
                problem(column, "the column is there twice", "Remove one of them")
                good = False
        for column in REQUIRED:
            if column not in header:
                problem(column, "the column is missing", expected)
                good = False
        return good


def _reporter(problems: list[Problem]) -> _Report:
    def report(place: _Place, column: str, reason: str, suggestion: str) -> None:
        path = ".".join(filter(None, (place.path, column)))
        problems.append(Problem(place.file, place.line, path, reason, suggestion))

    return report
