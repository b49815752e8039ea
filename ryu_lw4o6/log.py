"""What a line of the controller's log looks like.

Ryu writes the bare message. Time and level are added, unless whoever reads the log adds them:
systemd's journal is told the level its own way (sd-daemon(3)), syslog has both.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys

import ryu.log  # noqa: F401 (it has the option)
from ryu import cfg

from ryu_lw4o6.core.times import rfc3339

_JOURNAL_LEVELS = (
    (logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6),
)  # fmt: skip
_DEBUG = 7


class _Prefixed(logging.Formatter):
    """Every line has the prefix, since a message may have several: one for each event."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = self.prefix(record)
        return prefix + super().format(record).replace("\n", "\n" + prefix)

    def prefix(self, record: logging.LogRecord) -> str:
        return f"{rfc3339(record.created)} {record.levelname} "


class _ForJournal(_Prefixed):
    def prefix(self, record: logging.LogRecord) -> str:
        levels = (number for level, number in _JOURNAL_LEVELS if record.levelno >= level)
        return f"<{next(levels, _DEBUG)}>"


def install() -> None:
    """Format what Ryu's handlers write. Whoever has given Ryu a --log-config-file has chosen."""
    if cfg.CONF.log_config_file:
        return
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.handlers.SysLogHandler) or handler.formatter is not None:
            continue
        handler.setFormatter(_ForJournal() if _is_journal(handler) else _Prefixed())


def _is_journal(handler: logging.Handler) -> bool:
    """Whether what is written goes to the journal, which $JOURNAL_STREAM names by its inode."""
    if getattr(handler, "stream", None) is not sys.stderr:
        return False
    try:
        stat = os.fstat(handler.stream.fileno())  # type: ignore[attr-defined]
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
