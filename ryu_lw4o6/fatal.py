"""What becomes of a fault that nobody foresaw."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

LOG = logging.getLogger(__name__)

EXIT_CRASH = 70


def fatal(function: Callable[..., None]) -> Callable[..., None]:
    """Such a fault ends the process, to be started again with the state it had stored.

    Ryu would log it and go on with half the work done.
    """

    @functools.wraps(function)
    def guarded(*args: Any) -> None:
        try:
            function(*args)
        except Exception:
            LOG.critical("unforeseen fault in %s; ending", function.__qualname__, exc_info=True)
            logging.shutdown()
            os._exit(EXIT_CRASH)

    return guarded
