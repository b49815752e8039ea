"""The lab's DHCP server: kea-dhcp6, which takes what lwAFTRs relay, and kea-dhcp4 beside it."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.provisioning import kea_config
from ryu_lw4o6.provisioning.kea_config import KeaServer
from topo.nodes import Nodes, wait_for
from topo.plan import Lab
from topo.provisioning import KEA, LEASE_SECONDS


class Kea:
    """The servers in node ``kea``."""

    def __init__(self, nodes: Nodes, lab: Lab) -> None:
        self._nodes = nodes
        self._lab = lab
        self._directory = nodes.directory / KEA

    def start(self) -> None:
        """Start both servers, with configurations that fit those of the lab's lwAFTRs. Raises
        LabError."""
        self._directory.mkdir(exist_ok=True)
        place = str(self._directory)
        server = KeaServer(
            "eth0", run=place, state=place, log=f"{place}/kea.log", lease_seconds=LEASE_SECONDS
        )
        settings = kea_settings(self._lab, self._directory)
        for service, made in ((4, kea_config.dhcp4), (6, kea_config.dhcp6)):
            path = self._directory / f"kea-dhcp{service}.conf"
            path.write_text(json.dumps(made(settings, server), indent=1))
            self._nodes.start(
                KEA, f"{KEA}/kea-dhcp{service}", f"kea-dhcp{service}", "-c", str(path)
            )
        for service in (4, 6):
            wait_for(
                f"kea-dhcp{service} works",
                partial(_answers, Path(server.socket(service))),
            )


def kea_settings(lab: Lab, directory: Path) -> Settings:
    """Those of all lwAFTRs of a lab together; their files are left in ``directory``."""
    found = []
    for site in lab.sites:
        path = directory / f"{site.name}.yaml"
        path.write_text(lab.config(site, str(directory)))
        found.append(load(path))
    prefixes = dict.fromkeys(prefix for settings in found for prefix in settings.prefixes)
    instances = tuple(instance for settings in found for instance in settings.instances)
    return replace(found[0], prefixes=tuple(prefixes), instances=instances)


def _answers(path: Path) -> bool:
    """Whether a Kea server answers at its control socket."""
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(b'{"command": "status-get"}')
        answer: dict[str, Any] = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
        return bool(answer["result"] == 0)
    return False
