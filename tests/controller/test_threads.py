"""What real threads share with the controller's greenlets."""

from __future__ import annotations

import subprocess
import sys
import textwrap

LOGS = """
    from ryu.cmd import manager  # which sets up the log, and then replaces locks, in this order
    from ryu import cfg, log
    cfg.CONF(args=[], project="ryu")
    log.init_log()
    manager.hub.patch(thread=True)

    import ryu_lw4o6.threads
    import logging
    import os

    import eventlet
    import eventlet.tpool
    from eventlet.patcher import original

    sleep = original("time").sleep

    class Slow:
        def write(self, text):
            sleep(0.002)

        def flush(self):
            pass

    for handler in logging.getLogger().handlers:
        handler.stream = Slow()

    def write(sleep):
        for number in range(50):
            logging.getLogger().info("line %d", number)
            sleep(0.001)

    thread = eventlet.spawn(eventlet.tpool.execute, write, sleep)
    write(eventlet.sleep)
    thread.wait()
    print("all written", flush=True)
    os._exit(0)
"""


def test_a_thread_may_write_to_the_log_at_the_same_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOGS)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "all written\n", done.stderr
