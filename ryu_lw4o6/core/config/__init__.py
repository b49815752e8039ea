"""Reads a configuration file into ``Settings``, or says everything that is wrong with it."""

from __future__ import annotations

import stat
from pathlib import Path

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin
from ryu_lw4o6.core.config import values
from ryu_lw4o6.core.config.bindings import MAX_CSV, BindingReader
from ryu_lw4o6.core.config.document import Entry, parse, read_text, value_of
from ryu_lw4o6.core.config.instances import (
    Instances,
    Prefixes,
    read_instances,
    read_prefixes,
)
from ryu_lw4o6.core.config.problems import Bad, ConfigError, Problem
from ryu_lw4o6.core.settings import (
    DEFAULT_RUN_DIRECTORY,
    DEFAULT_STORE_URL,
    KEA,
    RestSettings,
    Settings,
    SupportingSystem,
)

__all__ = ["ConfigError", "Problem", "bindings_of", "load"]

_MAX_FILE = 4 << 20
_MAX_TOKEN_FILE = 4096
_KEYS = (
    "store",
    "supporting_system",
    "run_directory",
    "rest",
    "prefixes",
    "bindings",
    "bindings_csv",
    "instances",
)


def load(path: Path) -> Settings:
    """Read and check a configuration file. Raises ConfigError with every problem found."""
    problems: list[Problem] = []
    settings = None
    try:
        root = Entry(parse(read_text(path, _MAX_FILE)), "", str(path), problems)
        settings = _read(root, path.parent)
    except Bad as bad:
        problems.append(Problem(str(path), bad.line, "", bad.reason, bad.suggestion))
    if problems or settings is None:
        raise ConfigError(sorted(problems, key=lambda p: (p.file != str(path), p.line or 0)))
    return settings


def bindings_of(path: Path, settings: Settings) -> dict[BindingKey, Binding]:
    """The bindings of a supporting system's CSV or JSON file, all of them right for ``settings``.

    Raises ConfigError with every problem found.
    """
    problems: list[Problem] = []
    aftr = {address for instance in settings.instances for address in instance.aftr_addresses}
    own = aftr | {instance.ipv6.address.ip for instance in settings.instances}
    reader = BindingReader(
        Prefixes(list(settings.prefixes), complete=True),
        Instances(list(settings.instances), True, aftr, True, own),
        Origin.VALIDATED,
        may_expire=True,
    )
    found: dict[BindingKey, Binding] = {}
    try:
        text = read_text(path, MAX_CSV)
        read = reader.json_text if path.suffix == ".json" else reader.csv_text
        found = {binding.key: binding for binding in read(text, str(path), problems)}
    except Bad as bad:
        problems.append(Problem(str(path), bad.line, "", bad.reason, bad.suggestion))
    if problems:
        raise ConfigError(problems)
    return found


def _read(root: Entry, directory: Path) -> Settings | None:
    top = root.fields(_KEYS, ("prefixes", "instances"))
    if top is None:
        return None
    prefixes = read_prefixes(top.get("prefixes"))
    instances = read_instances(top.get("instances"), prefixes)
    reader = BindingReader(prefixes, instances)
    bindings = [
        *(reader.inline(top["bindings"]) if "bindings" in top else ()),
        *(reader.csv(top["bindings_csv"], directory) if "bindings_csv" in top else ()),
    ]
    store_url = value_of(top, "store", values.store_url, DEFAULT_STORE_URL)
    return Settings(
        tuple(instances.instances),
        tuple(prefixes.prefixes),
        tuple(bindings),
        store_url,
        _read_supporting_system(top.get("supporting_system"), directory, store_url),
        str(directory / value_of(top, "run_directory", values.text, DEFAULT_RUN_DIRECTORY)),
        _read_rest(top.get("rest"), directory),
    )


_SOURCES = ("store", "file", "kea")


def _read_supporting_system(
    entry: Entry | None, directory: Path, own_store: str
) -> SupportingSystem:
    default = SupportingSystem()
    known = (*_SOURCES, "deadline", "remember_no", "recheck", "refresh", "warm", "read_ahead")
    found = entry.fields(known) if entry else None
    if not found or entry is None:
        return default
    several = [key for key in _SOURCES if key in found]
    if len(several) > 1:
        entry.problem(f"has both {' and '.join(several)}", "Keep the one that is to be asked")
    source = value_of(found, "store", values.store_url)
    if source == own_store:
        source = None
    if "file" in found:
        file = value_of(found, "file", values.bindings_file)
        source = str((directory / file).absolute()) if file else None
    if "kea" in found:
        source = KEA + (value_of(found, "kea", values.kea_endpoint) or "")
    return SupportingSystem(
        source,
        value_of(found, "deadline", values.seconds(0.05, 30), default.deadline),
        value_of(found, "remember_no", values.integer(1, 3600), default.remember_no),
        value_of(found, "recheck", values.integer(10, 30 * 86400), default.recheck),
        value_of(found, "refresh", values.integer(1, 86400), default.refresh),
        value_of(found, "warm", values.boolean, default.warm),
        value_of(found, "read_ahead", values.integer(0, 1_000_000), default.read_ahead),
    )


def _read_rest(entry: Entry | None, directory: Path) -> RestSettings:
    default = RestSettings()
    found = entry.fields(("token_file", "max_body")) if entry else None
    if not found:
        return default
    max_body = value_of(found, "max_body", values.integer(1024, 1 << 30), default.max_body)
    token = value_of(found, "token_file", lambda name: _read_token(directory / name))
    return RestSettings(token, max_body)


def _read_token(path: Path) -> str:
    try:
        text = read_text(path, _MAX_TOKEN_FILE)
        if path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise Bad("can be read or changed by others", f"Run chmod o=,g-w {path}")
        return values.token(text)
    except Bad as bad:
        raise Bad(f"{path}: {bad.reason}", bad.suggestion) from None
