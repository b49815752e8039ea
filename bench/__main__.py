"""``python -m bench [names...]``, as root: measure, compare with the targets, clean up."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable

from bench import (
    changes,
    database,
    dataplane,
    failover,
    features,
    programming,
    provisioning,
    restart,
    storm,
    subscribers,
)
from bench.rig import OUTPUT, Result

BENCHMARKS: dict[str, Callable[[], Result]] = {
    "dataplane": dataplane.measure,
    "features": features.measure,
    "programming": programming.measure,
    "changes": changes.measure,
    "restart": restart.measure,
    "provisioning": provisioning.measure,
    "storm": storm.measure,
    "database": database.measure,
    "failover": failover.measure,
    "subscribers": subscribers.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if os.geteuid() != 0:
        parser.error("benchmarks build networks and need root: sudo make bench")
    # Being told to end takes the same way out as Ctrl-C, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in names:
            print(name, flush=True)
            result = BENCHMARKS[name]()
            result.show()
            result.save(name)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"Figures: {OUTPUT}/*.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
