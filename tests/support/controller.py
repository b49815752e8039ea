"""A real ryu-manager beside a real Open vSwitch, for tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.netns import inside
from tests.support.ovs import Ovs, wait_for

BIN = Path(sys.executable).parent

CONFIG = """\
store: sqlite:///{directory}/bindings.sqlite
prefixes:
  - {{prefix: 192.0.2.0/24, psid_offset: 6, psid_length: 6}}
  - {{prefix: 203.0.113.0/29}}
bindings:
  - {{lwb4: "2001:db8:b4::1", ipv4: 192.0.2.1, psid: 3}}
instances:
  - name: lwaftr1
    datapath_id: 1
    bridge: br0
    aftr_addresses: ["2001:db8:ffff::1"]
    ipv6: {{port: eth6, address: "2001:db8:1::1/64"}}
    ipv4: {{port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}}
"""


class Controller:
    """ryu-manager in the namespace of ``ovs``, and a REST client there."""

    def __init__(self, ovs: Ovs, config: str = CONFIG) -> None:
        self.ovs = ovs
        self.config = ovs.directory / "lw4o6.yaml"
        self.config.write_text(config.format(directory=ovs.directory))
        self.log = ovs.directory / "ryu.log"
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a ryu-manager, without waiting for anything."""
        with self.log.open("ab") as log:
            return self.ovs.popen(
                str(BIN / "ryu-manager"), "ryu_lw4o6.app", "rest.app",
                "--lw4o6-config", str(self.config), *options,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def launch(self, *options: str) -> None:
        """Start it, without waiting for anything."""
        self._process = self.spawn(*options)

    def start(self, *options: str) -> None:
        """Start it and wait until its switch is ready."""
        self.launch(*options)
        self.wait()

    def wait(self) -> None:
        """Wait until its switch is ready."""
        wait_for("it listens", self._listens, 30)
        self.ovs.reconnect("br0")
        wait_for("the switch is ready", self.ready, 30)

    def _listens(self) -> bool:
        """Whether somebody listens on port 6653 = 0x19fd (state 0a)."""
        with inside(self.ovs.name):
            return ":19FD 00000000:0000 0A" in Path("/proc/thread-self/net/tcp").read_text()

    def ready(self) -> bool:
        with contextlib.suppress(AssertionError, ValueError):
            status, body = self.rest("GET", "/v1/switches")
            return status == 200 and body["switches"][0]["state"] == "ready"
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def terminate(self) -> None:
        """Tell it to end, and wait until it has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
            self._process = None

    def rest(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON. Not by curl: thousands of requests would be thousands of processes."""
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=20)
        try:
            with inside(self.ovs.name):
                connection.connect()
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise AssertionError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()
        return response.status, json.loads(text) if text.strip() else None

    def switch(self) -> dict[str, Any]:
        found: dict[str, Any] = self.rest("GET", "/v1/switches/lwaftr1")[1]
        return found
