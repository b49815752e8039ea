"""Runs ExaBGP by a clock that nobody sets.

    steady.py ARGUMENTS OF EXABGP

ExaBGP measures hold times, and pauses between attempts to connect, by the wall clock: when that is
set it would end its sessions, and wait for an hour if that is how far the clock went back.
"""

import sys
import time


def main() -> int:
    ahead = time.time() - time.monotonic()
    vars(time)["time"] = lambda: time.monotonic() + ahead
    from exabgp.application.main import main as exabgp  # an extra of the package

    result: int = exabgp()
    return result


if __name__ == "__main__":
    sys.exit(main())
