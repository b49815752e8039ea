"""What every supporting system raises when it cannot answer."""

from __future__ import annotations

from ryu_lw4o6.core.errors import AdvisedError


class SystemUnavailable(AdvisedError):
    """The supporting system cannot be asked now."""
