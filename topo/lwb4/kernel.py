"""The kernel's part of an lwB4: translator and tunnel, each in its network namespace."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass

from topo.lwb4 import napt, softwire
from topo.lwb4.lease import Lease
from topo.lwb4.refusal import Flow
from topo.lwb4.softwire import Softwire

_SECONDS = 10
_ALREADY_SO = re.compile(
    "File exists|No such (file|process)|Address not found|FIB table does not exist|Command failed"
)
"""What ``ip`` says of what is there already, or is not there any more."""
_PROTOCOLS = {6: "tcp", 17: "udp"}


class KernelError(Exception):
    """A command for the kernel failed; the message has the command and what it said."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Namespaces by name; None is the one this process lives in."""

    softwire: Softwire
    tunnel: str | None = None
    translator: str | None = None
    forward: napt.Forward | None = None

    def prepare(self) -> None:
        """Make the softwire, or what there is not yet of it. What is there goes on working."""
        self._nft(self.tunnel, softwire.tunnel_rules(self.softwire))
        for command in softwire.tunnel_commands(self.softwire):
            _check(self._popen(self.tunnel, ("ip", *command), None))

    def hardware_address(self) -> bytes:
        """Of the interface to the access network."""
        shown = self._run(self.tunnel, "ip", "-json", "link", "show", "wan")
        return bytes.fromhex(json.loads(shown)[0]["address"].replace(":", ""))

    def apply(self, old: Lease | None, new: Lease | None) -> None:
        """Translate and route by ``new`` instead of ``old``. Connections of an old lease that
        differs are forgotten: their next packets are translated anew, and hosts learn from the
        other end's reset that they are over."""
        before, after = (None if lease is None else lease.ipv4 for lease in (old, new))
        self._ipv4(self.tunnel, softwire.tunnel_address(before, after))
        self._ipv4(self.translator, softwire.translator_address(before, after))
        self._nft(self.translator, napt.ruleset(new, self.forward))
        if old is not None and old != new:
            self._forget(old)

    def _forget(self, lease: Lease) -> None:
        # Status 1 if there was no such connection.
        self._run(self.translator, "conntrack", "-D", "--reply-dst", str(lease.ipv4), may_fail=True)

    def recently_sent(self, flow: Flow) -> bool:
        """Whether the flow has sent a packet into the softwire in the last seconds."""
        protocol = _PROTOCOLS.get(flow.protocol)
        if protocol is None:
            name, element = "echoes", f"{flow.ipv4} . {flow.port} . {flow.peer}"
        else:
            name = "sent"
            element = f"{flow.ipv4} . {protocol} . {flow.port} . {flow.peer} . {flow.peer_port}"
        command = ("nft", "get", "element", "ip", softwire.TABLE, name, f"{{ {element} }}")
        return self._popen(self.tunnel, command, None).returncode == 0

    def _ipv4(self, namespace: str | None, commands: list[list[str]]) -> None:
        """Give all commands to one ``ip``: this is what hosts wait for when the address changes."""
        text = "".join(f"{' '.join(command)}\n" for command in commands)
        _check(self._popen(namespace, ("ip", "-force", "-batch", "-"), text))

    def _nft(self, namespace: str | None, rules: str) -> None:
        self._run(namespace, "nft", "-f", "-", text=rules)

    def _run(
        self, namespace: str | None, *command: str, text: str | None = None, may_fail: bool = False
    ) -> str:
        done = self._popen(namespace, command, text)
        if done.returncode and not may_fail:
            said = done.stderr.strip() or f"status {done.returncode}"
            raise KernelError(f"{' '.join(command)}: {said}")
        return done.stdout

    def _popen(
        self, namespace: str | None, command: tuple[str, ...], text: str | None
    ) -> subprocess.CompletedProcess[str]:
        enter = [] if namespace is None else ["nsenter", f"--net=/run/netns/{namespace}"]
        try:
            return subprocess.run(
                [*enter, *command], input=text, capture_output=True, text=True, timeout=_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelError(str(error)) from None


def _check(done: subprocess.CompletedProcess[str]) -> None:
    """Raise KernelError unless ``ip`` has done everything, or had no need to."""
    said = [line for line in done.stderr.splitlines() if not _ALREADY_SO.search(line)]
    if done.returncode and said:
        raise KernelError(f"ip: {' '.join(said)}")
