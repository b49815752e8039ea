"""Reads a configuration file into ``Settings``, or says everything that is wrong with it.

YAML is read as nodes, not as Python values: every problem knows its line, and nothing is mistaken
for a number, a date or a base-60 integer on the way.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
)
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin, Prefix
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import (
    Datapath,
    IcmpPolicy,
    Instance,
    Ipv4Side,
    Ipv6Side,
    RestSettings,
    Settings,
    br_tag,
)

MAX_FILE = 64 << 20
CSV_COLUMNS = ("lwb4", "ipv4", "psid", "br_address")
_MIN_IPV6_MTU = 1280  # RFC 8200 section 5
_MIN_IPV4_MTU = 576  # what every IPv4 host takes (RFC 791)
_INTERFACE_NAME = re.compile(r"[^\s/:]{1,15}")
_STORES = ("sqlite", "postgresql")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    file: str
    line: int | None
    path: str
    reason: str
    suggestion: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        path = f"{self.path}: " if self.path else ""
        end = "" if self.suggestion.endswith("?") else "."
        return f"{place}: {path}{self.reason}. {self.suggestion}{end}"


class ConfigError(Exception):
    """The file has ``problems``; nothing of it may be used."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(path: Path) -> Settings:
    """Read and check a configuration file. Raises ConfigError with every problem found."""
    reader = _Reader(path)
    settings = reader.read()
    if reader.problems or settings is None:
        raise ConfigError(sorted(reader.problems, key=lambda p: (p.file != str(path), p.line or 0)))
    return settings


class _Bad(Exception):
    """A value that is wrong: (reason, suggestion)."""

    def __init__(self, reason: str, suggestion: str) -> None:
        super().__init__(reason, suggestion)
        self.reason = reason
        self.suggestion = suggestion


# --- single values ----------------------------------------------------------------------------


def _ipv4(text: str) -> IPv4Address:
    return _address(text, IPv4Address, "an IPv4 address", "192.0.2.1")


def _ipv6(text: str) -> IPv6Address:
    return _address(text, IPv6Address, "an IPv6 address", "2001:db8:b4::1")


def _ipv4_interface(text: str) -> IPv4Interface:
    _require_slash(text, "198.51.100.1/24")
    return _address(text, IPv4Interface, "an IPv4 address with prefix length", "198.51.100.1/24")


def _ipv6_interface(text: str) -> IPv6Interface:
    _require_slash(text, "2001:db8:1::1/64")
    return _address(text, IPv6Interface, "an IPv6 address with prefix length", "2001:db8:1::1/64")


def _require_slash(text: str, example: str) -> None:
    if "/" not in text:
        raise _Bad(f"{text!r} has no prefix length", f"Write it like {example}")


def _address(text: str, kind: Callable[[str], T], what: str, example: str) -> T:
    try:
        return kind(text)
    except ValueError:
        other = "IPv6" if ":" in text else "IPv4"
        wrong_family = other not in what and re.fullmatch(r"[0-9a-fA-F.:/]+", text)
        reason = f"{text!r} is {other}, not {what}" if wrong_family else f"{text!r} is not {what}"
        raise _Bad(reason, f"Write it like {example}") from None


def _ipv4_network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError:
        try:
            fixed = IPv4Network(text, strict=False)
        except ValueError:
            raise _Bad(f"{text!r} is not an IPv4 prefix", "Write it like 192.0.2.0/24") from None
        raise _Bad(f"{text!r} has host bits set", f"Did you mean {fixed}?") from None


def _integer(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text, 10)
        except ValueError:
            raise _Bad(f"{text!r} is not a whole number", f"Use {low} to {high}") from None
        if not low <= value <= high:
            raise _Bad(f"{value} is out of range", f"Use {low} to {high}")
        return value

    return convert


def _datapath_id(text: str) -> int:
    base = 16 if re.fullmatch(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{16}", text) else 10
    try:
        value = int(text, base)
    except ValueError:
        raise _Bad(
            f"{text!r} is not a datapath id", "Use a number, 0x1f, or 16 hexadecimal digits"
        ) from None
    if not 0 < value < 1 << 64:
        raise _Bad(f"{text} is out of range", "A datapath id has 64 bits and is not 0")
    return value


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[
            text.lower()
        ]
    except KeyError:
        raise _Bad(f"{text!r} is neither true nor false", "Use true or false") from None


def _interface(text: str) -> str:
    if not _INTERFACE_NAME.fullmatch(text):
        raise _Bad(f"{text!r} is no interface name", "Use 1 to 15 characters without space, / or :")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise _Bad(f"{text!r} is no name", "Use letters, digits, '.', '_' and '-', at most 64")
    return text


def _datapath(text: str) -> Datapath:
    try:
        return Datapath(text)
    except ValueError:
        raise _Bad(
            f"{text!r} is no datapath", "Use netdev (userspace) or system (kernel)"
        ) from None


def _store_url(text: str) -> str:
    scheme = text.split(":", 1)[0].split("+", 1)[0]
    if "://" not in text or scheme not in _STORES:
        raise _Bad(
            f"{text!r} is no store URL",
            "Use sqlite:////var/lib/lw4o6/bindings.sqlite or postgresql+psycopg://USER@HOST/NAME",
        )
    return text


def _text(text: str) -> str:
    return text


def _lwb4(text: str) -> IPv6Address:
    return _check_unicast(_ipv6(text))


def _check_unicast(address: IPv6Address) -> IPv6Address:
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise _Bad(f"{address} is no unicast address of a host", "Use the address of one lwB4")
    return address


# --- the file -----------------------------------------------------------------------------------

_Fields = Mapping[str, yaml.Node]


class _Reader:
    def __init__(self, path: Path) -> None:
        self.problems: list[Problem] = []
        self._path = path
        self._prefixes: list[tuple[Prefix, yaml.Node]] = []
        # Whether every prefix could be read: if not, nobody can say which binding lies outside.
        self._prefixes_known = True
        self._seen: dict[BindingKey, str] = {}

    def _problem(self, node: yaml.Node | None, path: str, reason: str, suggestion: str) -> None:
        line = node.start_mark.line + 1 if node is not None else None
        self.problems.append(Problem(str(self._path), line, path, reason, suggestion))

    # Each of these reports what is wrong and gives None, so that reading goes on.

    def _fields(
        self, node: yaml.Node, path: str, known: Collection[str], required: Collection[str] = ()
    ) -> _Fields | None:
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, path, "this is not a mapping", f"Give it keys: {', '.join(known)}")
            return None
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            where = f"{path}.{key}" if path else key
            if key in found:
                self._problem(key_node, where, "the key is there twice", "Remove one of them")
            elif key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}"
                self._problem(key_node, where, "unknown key", hint.rstrip("."))
            else:
                found[key] = value
        for key in required:
            if key not in found:
                self._problem(node, f"{path}.{key}" if path else key, "is missing", f"Add {key}")
        return found

    def _items(self, node: yaml.Node | None, path: str) -> Iterator[tuple[yaml.Node, str]]:
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode):
            self._problem(node, path, "this is not a list", "Write each entry after '- '")
            return
        for index, item in enumerate(node.value):
            yield item, f"{path}[{index}]"

    def _value(
        self,
        found: _Fields,
        key: str,
        path: str,
        convert: Callable[[str], T],
        default: Any = None,
    ) -> Any:
        node = found.get(key)
        return default if node is None else self._scalar(node, f"{path}.{key}", convert)

    def _scalar(self, node: yaml.Node, path: str, convert: Callable[[str], T]) -> T | None:
        path = path.lstrip(".")
        if not isinstance(node, yaml.ScalarNode) or node.value == "":
            self._problem(node, path, "this is not a single value", "Give one value")
            return None
        try:
            return convert(node.value)
        except _Bad as bad:
            self._problem(node, path, bad.reason, bad.suggestion)
            return None

    # --- sections ---

    def read(self) -> Settings | None:
        root = self._parse()
        if root is None:
            return None
        top = self._fields(
            root,
            "",
            ("store", "rest", "prefixes", "bindings", "bindings_csv", "instances"),
            ("prefixes", "instances"),
        )
        if top is None:
            return None
        self._read_prefixes(top.get("prefixes"))
        prefixes = tuple(prefix for prefix, _ in self._prefixes)
        instances = self._read_instances(top.get("instances"), prefixes)
        br_addresses = {a for i in instances for a in i.aftr_addresses}
        bindings = [
            *self._read_bindings(top.get("bindings"), br_addresses),
            *self._read_csv(top.get("bindings_csv"), br_addresses),
        ]
        rest = self._read_rest(top.get("rest"))
        store = self._value(top, "store", "", _store_url, Settings((), ()).store_url)
        if self.problems:
            return None
        return Settings(tuple(instances), prefixes, tuple(bindings), store, rest)

    def _parse(self) -> yaml.Node | None:
        try:
            size = self._path.stat().st_size
            if size > MAX_FILE:
                self._problem(None, "", f"the file has {size} bytes", "Put bindings into a CSV")
                return None
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            self._problem(
                None, "", f"cannot be read: {error.strerror}", "Check the path and its permissions"
            )
            return None
        except UnicodeDecodeError as error:
            self._problem(None, "", f"byte {error.start} is not UTF-8", "Save the file as UTF-8")
            return None
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            self.problems.append(
                Problem(
                    str(self._path),
                    line,
                    "",
                    f"not YAML: {error.problem}",
                    "Check indentation and quotes around here",
                )
            )
            return None
        except (yaml.YAMLError, ValueError) as error:
            reason = str(error).splitlines()[0]
            self._problem(None, "", f"not YAML: {reason}", "Remove what is no printable text")
            return None
        except RecursionError:
            self._problem(None, "", "not YAML: nested too deeply", "Remove the nesting")
            return None
        if root is None:
            self._problem(None, "", "the file is empty", "See docs/configuration.md for an example")
        return root

    def _read_rest(self, node: yaml.Node | None) -> RestSettings:
        if node is None:
            return RestSettings()
        found = self._fields(node, "rest", ("token_file", "max_body"))
        if found is None:
            return RestSettings()
        max_body = self._value(found, "max_body", "rest", _integer(1024, 1 << 30), 8 << 20)
        token = None
        if "token_file" in found:
            token = self._scalar(found["token_file"], "rest.token_file", self._token)
        return RestSettings(token, max_body or 0)

    def _token(self, name: str) -> str:
        path = self._path.parent / name
        try:
            mode = path.stat().st_mode
            token = path.read_text(encoding="ascii").strip()
        except OSError as error:
            raise _Bad(f"{path} cannot be read: {error.strerror}", "Check the path") from None
        except UnicodeDecodeError:
            raise _Bad(f"{path} is not ASCII", "Use letters and digits") from None
        if mode & 0o007:
            raise _Bad(f"{path} is open to everybody", f"Run chmod o= {path}")
        if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{8,}", token):
            raise _Bad(
                f"{path} holds no bearer token",
                "Write one line of at least 8 letters, digits or ._~+/=- into it",
            )
        return token

    def _read_prefixes(self, node: yaml.Node | None) -> None:
        before = len(self.problems)
        self._read_prefix_items(node)
        self._prefixes_known = node is not None and len(self.problems) == before

    def _read_prefix_items(self, node: yaml.Node | None) -> None:
        for item, path in self._items(node, "prefixes"):
            found = self._fields(item, path, ("prefix", "psid_offset", "psid_length"), ("prefix",))
            if found is None or "prefix" not in found:
                continue
            network = self._value(found, "prefix", path, _ipv4_network)
            offset = self._value(found, "psid_offset", path, _integer(0, 15), 0)
            length = self._value(found, "psid_length", path, _integer(0, 16), 0)
            if network is None or offset is None or length is None:
                continue
            try:
                params = PortParams(offset, length)
            except ValueError as error:
                self._problem(item, path, str(error), "Lower one of them")
                continue
            if network.is_multicast or network.is_loopback or network.is_unspecified:
                self._problem(item, path, f"{network} is not unicast", "Use one you announce")
            for other, other_node in self._prefixes:
                if network.overlaps(other.network):
                    line = other_node.start_mark.line + 1
                    self._problem(
                        item,
                        f"{path}.prefix",
                        f"{network} overlaps {other.network} (line {line})",
                        "Cut one of them smaller, or remove it",
                    )
            self._prefixes.append((Prefix(network, params), item))
        if isinstance(node, yaml.SequenceNode) and not node.value:
            self._problem(node, "prefixes", "the list is empty", "Add an IPv4 prefix")

    # --- instances ---

    def _read_instances(
        self, node: yaml.Node | None, prefixes: tuple[Prefix, ...]
    ) -> list[Instance]:
        instances: list[Instance] = []
        if isinstance(node, yaml.SequenceNode) and not node.value:
            self._problem(node, "instances", "the list is empty", "Add an lwAFTR instance")
        for item, path in self._items(node, "instances"):
            instance = self._read_instance(item, path, prefixes)
            if instance is None:
                continue
            for other in instances:
                for what in ("name", "datapath_id"):
                    value = getattr(instance, what)
                    if value == getattr(other, what):
                        self._problem(
                            item,
                            f"{path}.{what}",
                            f"{value} is another instance's too",
                            "Give each its own",
                        )
            instances.append(instance)
        return instances

    def _read_instance(
        self, node: yaml.Node, path: str, prefixes: tuple[Prefix, ...]
    ) -> Instance | None:
        found = self._fields(
            node,
            path,
            [f.name for f in fields(Instance)],
            ("name", "datapath_id", "aftr_addresses", "ipv6", "ipv4"),
        )
        if found is None:
            return None
        before = len(self.problems)
        name = self._value(found, "name", path, _name)
        datapath_id = self._value(found, "datapath_id", path, _datapath_id)
        bridge = self._value(found, "bridge", path, _interface, "br-lwaftr")
        softwire = self._value(found, "softwire_port", path, _interface, "softwire0")
        datapath = self._value(found, "datapath", path, _datapath, Datapath.USERSPACE)
        hairpinning = self._value(found, "hairpinning", path, _boolean, True)
        addresses = self._read_aftr_addresses(found.get("aftr_addresses"), f"{path}.aftr_addresses")
        ipv6 = self._read_ipv6(found.get("ipv6"), f"{path}.ipv6")
        ipv4 = self._read_ipv4(found.get("ipv4"), f"{path}.ipv4", prefixes)
        icmp = self._read_icmp(found.get("icmp"), f"{path}.icmp")
        served = self._read_served(found.get("prefixes"), f"{path}.prefixes", prefixes)
        if ipv6 and ipv4:
            names = {
                "ipv6.port": ipv6.port,
                "ipv4.port": ipv4.port,
                "softwire_port": softwire,
                "bridge": bridge,
            }
            for key, value in names.items():
                if list(names.values()).count(value) > 1:
                    self._problem(
                        node,
                        f"{path}.{key}",
                        f"{value} is the name of another port as well",
                        "Both NICs, the softwire port and the bridge have names of their own",
                    )
        if len(self.problems) > before or ipv6 is None or ipv4 is None:
            return None
        return Instance(
            name,
            datapath_id,
            ipv6,
            ipv4,
            addresses,
            served,
            bridge,
            softwire,
            datapath,
            hairpinning,
            icmp,
        )

    def _read_aftr_addresses(self, node: yaml.Node | None, path: str) -> tuple[IPv6Address, ...]:
        addresses: list[IPv6Address] = []
        for item, where in self._items(node, path):
            address = self._scalar(item, where, lambda text: _check_unicast(_ipv6(text)))
            if address is None:
                continue
            if address in addresses:
                self._problem(item, where, f"{address} is there twice", "Remove one of them")
            elif any(br_tag(address) == br_tag(other) for other in addresses):
                self._problem(
                    item,
                    where,
                    f"{address} has the same CRC-32 as another AFTR address, which "
                    "the softwire port cannot tell apart",
                    "Use another address",
                )
            addresses.append(address)
        if isinstance(node, yaml.SequenceNode) and not node.value:
            self._problem(node, path, "the list is empty", "Add the anycast address")
        return tuple(addresses)

    def _read_ipv6(self, node: yaml.Node | None, path: str) -> Ipv6Side | None:
        keys = [f.name for f in fields(Ipv6Side)]
        found = node and self._fields(node, path, keys, ("port", "address"))
        if not found:
            return None
        port = self._value(found, "port", path, _interface)
        address = self._value(found, "address", path, _ipv6_interface)
        next_hop = self._value(found, "next_hop", path, _ipv6)
        mtu = self._value(found, "mtu", path, _integer(_MIN_IPV6_MTU, 65535), 1500)
        if next_hop and address and not (next_hop.is_link_local or next_hop in address.network):
            self._problem(
                found["next_hop"],
                f"{path}.next_hop",
                f"{next_hop} is not in {address.network}",
                "Use a link-local address or one of that subnet",
            )
        if next_hop and address and next_hop == address.ip:
            self._problem(
                found["next_hop"],
                f"{path}.next_hop",
                f"{next_hop} is the lwAFTR's own address",
                "Use the router's",
            )
        return Ipv6Side(port, address, next_hop, mtu) if port and address and mtu else None

    def _read_ipv4(
        self, node: yaml.Node | None, path: str, prefixes: tuple[Prefix, ...]
    ) -> Ipv4Side | None:
        keys = [f.name for f in fields(Ipv4Side)]
        found = node and self._fields(node, path, keys, ("port", "address", "next_hop"))
        if not found:
            return None
        port = self._value(found, "port", path, _interface)
        address = self._value(found, "address", path, _ipv4_interface)
        next_hop = self._value(found, "next_hop", path, _ipv4)
        mtu = self._value(found, "mtu", path, _integer(_MIN_IPV4_MTU, 65535), 1500)
        if address and next_hop and next_hop not in address.network:
            self._problem(
                found["next_hop"],
                f"{path}.next_hop",
                f"{next_hop} is not in {address.network}",
                "The next hop is a neighbour on the IPv4 side",
            )
        if address and next_hop == address.ip:
            self._problem(
                found["next_hop"],
                f"{path}.next_hop",
                f"{next_hop} is the lwAFTR's own address",
                "Use the router's",
            )
        for what, value in (("address", address and address.ip), ("next_hop", next_hop)):
            for prefix in prefixes:
                if value and value in prefix.network:
                    self._problem(
                        found[what],
                        f"{path}.{what}",
                        f"{value} lies in {prefix.network}, whose addresses belong to lwB4s",
                        "Take another address or shrink the prefix",
                    )
        return (
            Ipv4Side(port, address, next_hop, mtu)
            if port and address and next_hop and mtu
            else None
        )

    def _read_icmp(self, node: yaml.Node | None, path: str) -> IcmpPolicy:
        default = IcmpPolicy()
        found = self._fields(node, path, [f.name for f in fields(IcmpPolicy)]) if node else None
        if not found:
            return default
        values = {
            f.name: self._value(
                found,
                f.name,
                path,
                _integer(1, 1_000_000) if f.name == "rate" else _boolean,
                getattr(default, f.name),
            )
            for f in fields(IcmpPolicy)
        }
        return IcmpPolicy(**values)

    def _read_served(
        self, node: yaml.Node | None, path: str, prefixes: tuple[Prefix, ...]
    ) -> tuple[Prefix, ...]:
        if node is None:
            return prefixes
        by_network = {prefix.network: prefix for prefix in prefixes}
        served = []
        for item, where in self._items(node, path):
            network = self._scalar(item, where, _ipv4_network)
            if network is None:
                continue
            if network not in by_network:
                self._problem(
                    item,
                    where,
                    f"{network} is not among the top-level prefixes",
                    "List it under prefixes, with its PSID parameters",
                )
            elif by_network[network] in served:
                self._problem(item, where, f"{network} is there twice", "Remove one of them")
            else:
                served.append(by_network[network])
        return tuple(served)

    # --- bindings ---

    def _read_bindings(
        self, node: yaml.Node | None, br_addresses: Collection[IPv6Address]
    ) -> Iterator[Binding]:
        for item, path in self._items(node, "bindings"):
            found = self._fields(item, path, CSV_COLUMNS, ("lwb4", "ipv4"))
            if found is None or "lwb4" not in found or "ipv4" not in found:
                continue
            lwb4 = self._value(found, "lwb4", path, _lwb4)
            ipv4 = self._value(found, "ipv4", path, _ipv4)
            psid = self._value(found, "psid", path, _integer(0, 65535), 0)
            br_address = self._value(found, "br_address", path, _ipv6)
            if lwb4 is None or ipv4 is None or psid is None:
                continue
            line = item.start_mark.line + 1
            try:
                binding = self._binding(lwb4, ipv4, psid, br_address, br_addresses, f"line {line}")
            except _Bad as bad:
                self._problem(item, path, bad.reason, bad.suggestion)
                continue
            if binding is not None:
                yield binding

    def _binding(
        self,
        lwb4: IPv6Address,
        ipv4: IPv4Address,
        psid: int,
        br_address: IPv6Address | None,
        br_addresses: Collection[IPv6Address],
        place: str,
    ) -> Binding | None:
        params = next((p.params for p, _ in self._prefixes if ipv4 in p.network), None)
        if params is None:
            if not self._prefixes_known:
                return None
            raise _Bad(f"{ipv4} is in none of the prefixes", "Add its prefix, or correct it")
        try:
            params.check_psid(psid)
        except ValueError as error:
            raise _Bad(str(error), "Correct the PSID, or the prefix's psid_length") from None
        if br_address is not None and br_address not in br_addresses:
            raise _Bad(
                f"br_address {br_address} is no instance's",
                "Add it to its aftr_addresses",
            )
        if lwb4 in br_addresses:
            raise _Bad(f"lwB4 {lwb4} is an address of the lwAFTR", "Use the lwB4's own address")
        key = BindingKey(ipv4, psid)
        if key in self._seen:
            raise _Bad(
                f"{ipv4} PSID {psid} is bound already ({self._seen[key]})", "Remove one of the two"
            )
        self._seen[key] = place
        return Binding(lwb4, ipv4, psid, params, br_address, Origin.STATIC)

    def _read_csv(
        self, node: yaml.Node | None, br_addresses: Collection[IPv6Address]
    ) -> Iterator[Binding]:
        name = self._scalar(node, "bindings_csv", _text) if node else None
        if not name:
            return
        path = self._path.parent / name
        try:
            with path.open(encoding="utf-8", newline="") as file:
                yield from self._read_rows(csv.reader(file, strict=True), path, br_addresses)
        except OSError as error:
            self._problem(
                node, "bindings_csv", f"{path} cannot be read: {error.strerror}", "Check the path"
            )
        except UnicodeDecodeError:
            self._problem(node, "bindings_csv", f"{path} is not UTF-8", "Save it as UTF-8")
        except csv.Error as error:
            self._problem(node, "bindings_csv", f"{path}: {error}", "Check quotes and line ends")

    def _read_rows(
        self, rows: Any, path: Path, br_addresses: Collection[IPv6Address]
    ) -> Iterator[Binding]:
        def problem(line: int, column: str, reason: str, suggestion: str) -> None:
            self.problems.append(Problem(str(path), line, column, reason, suggestion))

        header = [column.strip() for column in next(rows, [])]
        unknown = [column for column in header if column not in CSV_COLUMNS]
        missing = [column for column in CSV_COLUMNS[:2] if column not in header]
        if unknown or missing or len(set(header)) != len(header):
            problem(
                1,
                "",
                f"the header is {','.join(header) or 'missing'}",
                f"The columns are {','.join(CSV_COLUMNS)}, the last two may be left out",
            )
            return
        # The same few br-addresses come in every row.
        known_br: dict[str, IPv6Address | None] = {"": None}
        psid_of = _integer(0, 65535)
        at = {column: header.index(column) for column in header}
        for row in rows:
            line = rows.line_num
            if not row:
                continue
            if len(row) != len(header):
                problem(line, "", f"{len(row)} columns", f"The header has {len(header)}")
                continue
            column = "lwb4"
            try:
                lwb4 = _lwb4(row[at["lwb4"]].strip())
                column = "ipv4"
                ipv4 = _ipv4(row[at["ipv4"]].strip())
                column = "psid"
                text = row[at["psid"]].strip() if "psid" in at else ""
                psid = psid_of(text) if text else 0
                column = "br_address"
                text = row[at["br_address"]].strip() if "br_address" in at else ""
                if text not in known_br:
                    known_br[text] = _ipv6(text)
                column = ""
                place = f"{path}:{line}"
                binding = self._binding(lwb4, ipv4, psid, known_br[text], br_addresses, place)
                if binding is not None:
                    yield binding
            except _Bad as bad:
                problem(line, column, bad.reason, bad.suggestion)
