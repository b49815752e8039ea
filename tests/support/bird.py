"""BIRD as a router: which routes does it have, and to whom?"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

from tests.support.ovs import wait_for

BIRD, BIRDC = "/usr/sbin/bird", "/usr/sbin/birdc"

CONFIG = """\
log "{directory}/log" all;
router id 10.0.0.254;
protocol device {{ scan time 10; }}
template bgp lwaftr {{
  local as {asn};
  hold time 3; keepalive time 1; connect delay time 1; connect retry time 1;
  error wait time 1, 2; startup hold time 10;
  graceful restart off; long lived graceful restart off;
  ipv4 {{ import all; export none; next hop keep; }};
  ipv6 {{ import all; export none; }};
}}
{peers}
"""


class Bird:
    """A router with AS number ``asn`` in a namespace, and its neighbours (address, AS number)."""

    def __init__(self, namespace: str, asn: int, peers: Sequence[tuple[str, int]]) -> None:
        self._namespace = namespace
        self._directory = Path(tempfile.mkdtemp(prefix="lw4o6-bird-"))
        lines = "".join(
            f"protocol bgp p{n} from lwaftr {{ neighbor {address} as {peer}; }}\n"
            for n, (address, peer) in enumerate(peers)
        )
        config = self._directory / "bird.conf"
        config.write_text(CONFIG.format(directory=self._directory, asn=asn, peers=lines))
        self._socket = self._directory / "ctl"
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, BIRD, "-f", "-c", str(config),
             "-s", str(self._socket)]
        )  # fmt: skip
        wait_for("BIRD runs", self._socket.exists)

    def ask(self, *command: str) -> str:
        done = subprocess.run(
            [BIRDC, "-s", str(self._socket), *command], capture_output=True, text=True, check=True
        )
        return done.stdout

    def routes(self) -> dict[str, dict[str, str]]:
        """What was learnt, with its attributes, and ``since`` when."""
        found: dict[str, dict[str, str]] = {}
        prefix = ""
        for line in self.ask("show", "route", "all").splitlines():
            start = re.match(r"([0-9a-f.:]+/\d+)\s", line)
            if start:
                prefix = str(ip_network(start[1]))
                found[prefix] = {"since": line.partition("[")[2].partition("]")[0]}
            attribute = re.match(r"\s+BGP\.(\w+): (.*)", line)
            if attribute and prefix:
                found[prefix][attribute[1]] = attribute[2].strip()
        return found

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        shutil.rmtree(self._directory)
