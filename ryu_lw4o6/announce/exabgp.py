"""ExaBGP as the speaker of one instance: a process of its own, started and told what to say.

It outlives the controller, with its routes withdrawn or kept as configured, and a restarted
controller finds it again: the sessions with the routers stay up. See ``pipe`` for how.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import pwd
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eventlet.green import socket as green_socket
from ryu.lib import hub

from ryu_lw4o6.announce import pipe, steady
from ryu_lw4o6.core.settings import Announce

LOG = logging.getLogger(__name__)

HOLD_SECONDS = 3  # the least that RFC 4271 section 4.2 allows
HELLO_SECONDS = 3.0
"""How long one that runs already, or has just been started, may take to call."""
_RETRY_SECONDS = 10.0


class SpeakerError(Exception):
    """ExaBGP cannot be started."""


class ExaBgp:
    """Announces the routes it is given last. ``changed`` is called when a session changes."""

    def __init__(
        self, name: str, settings: Announce, directory: Path, changed: Callable[[], None]
    ) -> None:
        self._name = name
        self._settings = settings
        self._directory = directory
        self._changed = changed
        self._socket_name = f"lw4o6-announce-{name}"
        self._config, self._digest = _config(settings, self._socket_name)
        self._connection: Any = None
        self._pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted: Sequence[str] | None = None  # nothing has been said yet
        self.peers: dict[str, str] = {str(peer.address): "unknown" for peer in settings.peers}

    def announce(self, routes: Sequence[str]) -> None:
        """Announce exactly these routes, in ExaBGP's words. Must not wait."""
        self._wanted = routes
        self._send()

    def run(self) -> None:
        """Keep an ExaBGP running, and listen to it. For ever."""
        listener = green_socket.socket(socket.AF_UNIX)
        listener.bind("\0" + self._socket_name)
        listener.listen(4)
        hub.spawn(self._supervise)
        while True:
            connection, _ = listener.accept()
            hub.spawn(self._serve, connection)

    def stop(self) -> None:
        """End it; the routers see its sessions close."""
        pid = self._pid or (self._process.pid if self._process else None)
        if pid is not None:
            _signal(pid, signal.SIGTERM)

    @property
    def running(self) -> bool:
        return self._connection is not None

    # --- the process ------------------------------------------------------------------------------

    def _supervise(self) -> None:
        while True:
            # One that an earlier controller started may still be there, and call, even if its
            # number has been lost.
            if not self._wait_for_call(HELLO_SECONDS if self._old_one() else 3 * pipe.RETRY):
                self._end_old_one()
                try:
                    self._start()
                except (OSError, SpeakerError) as error:
                    LOG.error("%s: cannot start ExaBGP: %s", self._name, error)
                    hub.sleep(_RETRY_SECONDS)
                    continue
                if not self._wait_for_call():
                    LOG.error("%s: ExaBGP does not answer; see %s", self._name, self._path("log"))
                    continue
            while self._connection is not None:
                hub.sleep(pipe.REPEAT)
                self._send()
            if self._process is not None:
                self._process.poll()
            LOG.error("%s: ExaBGP has gone; it is started again", self._name)

    def _wait_for_call(self, seconds: float = HELLO_SECONDS) -> bool:
        deadline = time.monotonic() + seconds
        while self._connection is None and time.monotonic() < deadline:
            hub.sleep(0.05)
        return self._connection is not None

    def _start(self) -> None:
        if importlib.util.find_spec("exabgp") is None:
            raise SpeakerError("it is not installed; pip install 'ryu-lw4o6[bgp]'")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._path("conf").write_text(self._config)
        environment = {
            **os.environ,
            "exabgp.api.ack": "false",
            "exabgp.api.cli": "false",
            "exabgp.daemon.drop": "false",
            "exabgp.daemon.user": pwd.getpwuid(os.geteuid()).pw_name,
            "exabgp.log.destination": "stdout",
        }
        with self._path("log").open("ab") as log:
            self._process = subprocess.Popen(
                # -P: another exabgp than this module.
                [sys.executable, "-P", steady.__file__, "server", str(self._path("conf"))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment, start_new_session=True,
            )  # fmt: skip
        self._path("pid").write_text(f"{self._process.pid}\n")
        LOG.info("%s: ExaBGP runs as process %d", self._name, self._process.pid)

    def _old_one(self) -> int | None:
        """The process id of an ExaBGP that was once started for this instance and still runs."""
        try:
            pid = int(self._path("pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self._path("conf")).encode() in words else None

    def _end_old_one(self) -> None:
        """One that was started once but does not call is of no use, and must not speak for us."""
        pid = self._old_one()
        if pid is not None:
            LOG.warning("%s: ending an ExaBGP of an earlier controller", self._name)
            _signal(pid, signal.SIGKILL)

    def _path(self, suffix: str) -> Path:
        return self._directory / f"exabgp-{self._name}.{suffix}"

    # --- its end of the socket --------------------------------------------------------------------

    def _serve(self, connection: Any) -> None:
        try:
            if _uid_of(connection) not in (0, os.geteuid()):
                LOG.error("%s: a stranger on the socket of ExaBGP", self._name)
                return
            lines = connection.makefile("rb")
            hello = json.loads(lines.readline())
            if hello["digest"] != self._digest:
                LOG.info("%s: ExaBGP has an older configuration; it is replaced", self._name)
                _signal(hello["pid"], signal.SIGTERM)
                return
            self._pid, self._connection = hello["pid"], connection
            self._send()
            self._changed()
            for line in lines:
                self._read(line)
        except (OSError, ValueError, KeyError) as error:
            LOG.debug("%s: ExaBGP: %s", self._name, error)
        finally:
            connection.close()
            if self._connection is connection:
                self._connection = None
                self.peers = dict.fromkeys(self.peers, "unknown")
                self._changed()

    def _read(self, line: bytes) -> None:
        """A message of ExaBGP's: of interest is the state of a session."""
        message = json.loads(line)
        if message.get("type") == "state":
            neighbor = message["neighbor"]
            peer, state = neighbor["address"]["peer"], neighbor["state"]
            if self.peers.get(peer) != state:
                self.peers[peer] = state
                LOG.info("%s: BGP session with %s: %s", self._name, peer, state)
                self._changed()

    def _send(self) -> None:
        if self._connection is None or self._wanted is None:
            return
        try:
            # Not eventlet's, which would wait until there is room.
            self._connection.fd.send(json.dumps(list(self._wanted)).encode() + b"\n")
        except BlockingIOError:
            LOG.error("%s: ExaBGP does not listen; it is replaced", self._name)
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            LOG.debug("%s: ExaBGP: %s", self._name, error)


def _config(settings: Announce, socket_name: str) -> tuple[str, str]:
    """ExaBGP's configuration file, and a digest by which one that runs is recognised."""
    end = "keep" if settings.keep_without_controller else "withdraw"
    command = f"{sys.executable} {Path(pipe.__file__)} {socket_name} %DIGEST% {end}"
    neighbors = "".join(
        f"""
neighbor {peer.address} {{
    router-id {settings.router_id};
    local-address {peer.local_address};
    local-as {settings.local_as};
    peer-as {peer.asn};
    hold-time {HOLD_SECONDS};
    family {{ ipv4 unicast; ipv6 unicast; }}
    capability {{ graceful-restart disable; }}
    api {{ processes [ controller ]; neighbor-changes; }}
}}
"""
        for peer in settings.peers
    )
    text = f"process controller {{\n    run {command};\n    encoder json;\n}}\n{neighbors}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return text.replace("%DIGEST%", digest), digest


def _uid_of(connection: Any) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError as error:
        LOG.debug("process %d: %s", pid, error)
