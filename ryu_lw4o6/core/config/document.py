"""A YAML file as a tree of entries that know their lines.

YAML is read as nodes, not as Python values: every problem knows its line, and nothing is mistaken
for a number, a date or a base-60 integer on the way. The whole file is read in one go, and the
parser is the one in Python: the one in C overflows its stack when a file is nested deeply.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ryu_lw4o6.core.config.problems import Bad, Problem, did_you_mean, shorten

T = TypeVar("T")


def read_text(path: Path, limit: int) -> str:
    """The text of a file that has at most ``limit`` bytes. Raises Bad."""
    try:
        # Reading a pipe or a terminal might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Bad("not a regular file", "Give the path of a file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Bad(
            f"cannot be read: {error.strerror}", "Check the path and its permissions"
        ) from None
    except ValueError as error:  # a zero byte in the path
        raise Bad(f"cannot be read: {error}", "Check the path") from None
    if len(data) > limit:
        raise Bad(f"larger than {limit >> 10} KiB", "Many bindings belong into a CSV file")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Bad(
            f"byte 0x{data[error.start]:02x} is not UTF-8", "Save the file as UTF-8", line
        ) from None


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # An alias can make a small file mean billions of entries, or one that contains itself.
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"alias *{shorten(event.anchor)}, which is not supported",
                event.start_mark,
            )  # fmt: skip
        return super().compose_node(parent, index)


def parse(text: str) -> yaml.Node:
    """The root node of a YAML document. Raises Bad."""
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        hint = "Check indentation and quotes around here"
        if isinstance(error, yaml.composer.ComposerError):
            hint = "Write out what you mean, in one document"
        raise Bad(f"not YAML: {error.problem}", hint, line) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise Bad(f"not YAML: {reason}", "Remove what is not printable text") from None
    except RecursionError:
        raise Bad("not YAML: nested too deeply", "Remove the nesting") from None
    if root is None:
        raise Bad("the file is empty", "See docs/configuration.md for an example")
    return root


@dataclass(frozen=True, slots=True)
class Entry:
    """A part of the file. ``path`` says which, like ``instances[0].ipv4.next_hop``.

    Whatever is wrong goes into ``problems``, and reading goes on.
    """

    node: yaml.Node
    path: str
    file: str
    problems: list[Problem]

    @property
    def line(self) -> int:
        return int(self.node.start_mark.line) + 1

    def problem(self, reason: str, suggestion: str) -> None:
        self.problems.append(Problem(self.file, self.line, self.path, reason, suggestion))

    def at(self, key: str, node: yaml.Node | None = None) -> Entry:
        """The entry of a key, at its node or, if there is none, at this one's."""
        path = f"{self.path}.{key}" if self.path else key
        return Entry(node or self.node, path, self.file, self.problems)

    def fields(
        self, known: Collection[str], required: Collection[str] = ()
    ) -> Mapping[str, Entry] | None:
        """The values of a mapping by their keys; None if this is no mapping."""
        if not isinstance(self.node, yaml.MappingNode):
            self._wrong_kind("a mapping", f"Give it keys: {', '.join(known)}")
            return None
        found: dict[str, Entry] = {}
        for key_node, node in self.node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.at("?", key_node).problem("a key is not a single word", "Remove it")
                continue
            key = key_node.value
            entry = self.at(shorten(key), key_node)
            if key not in known:
                entry.problem("unknown key", did_you_mean(key, known))
            elif key in found:
                entry.problem(f"also on line {found[key].line}", "Remove one of them")
            else:
                found[key] = self.at(key, node)
        for key in required:
            if key not in found:
                self.at(key).problem("missing", f"Add {key}")
        return found

    def items(self, *, may_be_empty: bool = False) -> list[Entry]:
        """The entries of a list; none if this is no list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self._wrong_kind("a list", "Write each of its entries after '- '")
            return []
        if not self.node.value and not may_be_empty:
            self.problem("the list is empty", "Add an entry")
        return [
            Entry(node, f"{self.path}[{index}]", self.file, self.problems)
            for index, node in enumerate(self.node.value)
        ]

    def value(self, convert: Callable[[str], T]) -> T | None:
        """A single value; None if it is wrong. ``convert`` may raise Bad."""
        if not isinstance(self.node, yaml.ScalarNode) or not self.node.value:
            self._wrong_kind("a single value", "Give one value")
            return None
        try:
            return convert(self.node.value)
        except Bad as bad:
            self.problem(bad.reason, bad.suggestion)
            return None

    def claim(self, taken: dict[Hashable, Entry], value: Hashable, suggestion: str) -> None:
        """Report a value that an earlier entry has taken; None is nobody's."""
        if value is not None and taken.setdefault(value, self) is not self:
            other = taken[value]
            self.problem(f"{value} is also {other.path} (line {other.line})", suggestion)

    def _wrong_kind(self, wanted: str, suggestion: str) -> None:
        if isinstance(self.node, yaml.ScalarNode) and not self.node.value:
            self.problem("empty", "Give it a value, or remove the key")
        else:
            self.problem(f"not {wanted}", suggestion)


def value_of(
    found: Mapping[str, Entry], key: str, convert: Callable[[str], Any], default: Any = None
) -> Any:
    """The value of a key: the default if the key is not there, None if the value is wrong."""
    return found[key].value(convert) if key in found else default
