"""What the Ryu apps of one controller share: its configuration, its store, its service."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from ryu import cfg

from ryu_lw4o6.cli_support import described
from ryu_lw4o6.core.config import ConfigError, load
from ryu_lw4o6.service import Service
from ryu_lw4o6.store import Store, StoreError

LOG = logging.getLogger(__name__)

DEFAULT_CONFIG = "/etc/lw4o6/lw4o6.yaml"
CONFIG_VARIABLE = "LW4O6_CONFIG"
OPENFLOW_PORT = 6653
LOOPBACK = "127.0.0.1"

# Ryu listens on every address, and on the old port 6633 as well, unless told otherwise.
cfg.CONF.set_default("ofp_listen_host", LOOPBACK)
cfg.CONF.set_default("ofp_tcp_listen_port", OPENFLOW_PORT)


def stop(message: str, status: int = 1) -> NoReturn:
    """End ryu-manager with a message a person reads, and no traceback."""
    print(message, file=sys.stderr, flush=True)
    logging.shutdown()
    os._exit(status)  # Ryu turns an exception, SystemExit too, into a traceback


def config_path() -> Path:
    """The configuration file: --lw4o6-config, else $LW4O6_CONFIG, else the default."""
    option = getattr(cfg.CONF, "lw4o6_config", None)
    return Path(option or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


class LwaftrContext:
    """Made once by ryu-manager and handed to every app that asks for it in ``_CONTEXTS``."""

    def __init__(self) -> None:
        self._locks = [_claim("OpenFlow", cfg.CONF.ofp_listen_host, cfg.CONF.ofp_tcp_listen_port)]
        if "rest.app" in sys.modules:
            self._locks.append(_claim("REST", cfg.CONF.wsapi_host, cfg.CONF.wsapi_port))
        path = config_path()
        try:
            settings = load(path)
        except ConfigError as error:
            stop(described(path, error.problems))
        try:
            store = Store(settings.store_url)
            self.service = Service(settings, store)
        except StoreError as error:
            stop(str(error))
        LOG.info("configuration %s: %s", path, ", ".join(self.service.by_name))


def _claim(what: str, host: str, port: int) -> socket.socket:
    """Make sure that no other controller has this port, and keep it so.

    eventlet listens with SO_REUSEPORT, so two controllers would silently share a port and each
    see a part of the switches. A name in the abstract socket namespace belongs to one process of
    a network namespace, and goes when the process does, however it dies; trying the port itself
    finds anybody else who has it.
    """
    option = "--ofp-tcp-listen-port" if what == "OpenFlow" else "--wsapi-port"
    if not 1 <= port <= 65535:
        stop(f"{what}: {port} is no port. Use 1 to 65535 for {option}.")
    in_use = (
        f"{what}: port {port} is in use by another process, probably another controller. "
        f"Stop it, or choose another port with {option}."
    )
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(f"\0lw4o6-port-{port}")
    except OSError:
        stop(in_use)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
            attempt.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                stop(in_use)
            host_option = "--ofp-listen-host" if what == "OpenFlow" else "--wsapi-host"
            stop(
                f"{what}: cannot listen on {host} port {port}: {error.strerror}. "
                f"Check {host_option} and {option}."
            )
    return lock
