"""What Open vSwitch manages without us: the work of a restored subscriber, and nothing else.

``reflex.c`` takes the controller's place. It shows what is the switch's own share of a storm: a
packet shown, two flows in a bundle, a barrier, and the packet back to the pipeline, for each
subscriber; nobody is asked, nothing is kept, and all messages have been made beforehand.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
from collections.abc import Iterator, Sequence

from bench.rig import Rig
from bench.traffic import program
from openflow_rules import encode
from openflow_rules.tables import Table
from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.settings import Instance

_OUTER = 40  # the IPv6 header, which is gone from what the switch shows


@contextlib.contextmanager
def switch_alone(
    rig: Rig, subscribers: Sequence[Binding], frame: bytes, seconds: float
) -> Iterator[subprocess.Popen[bytes]]:
    """The switch of ``rig``, whose controller has been started and has left it as it is to be, with
    a reflex in the controller's place. It ends by itself when every one of ``subscribers`` has been
    restored or ``seconds`` are over; ``frame`` is as long as what each of them sends."""
    instance = load(rig.controller.config).instances[0]
    port = int(rig.ovs("ovs-vsctl", "get", "interface", instance.softwire_port, "ofport"))
    messages = rig.ovs.directory / "reflex"
    messages.write_bytes(_messages(instance, port, subscribers, len(frame) - _OUTER))
    rig.controller.kill()
    reflex = rig.ovs.popen(
        program("reflex"), "6653", str(seconds), str(messages), stdout=subprocess.PIPE
    )
    try:
        rig.ovs.reconnect("br0")
        assert reflex.stdout is not None
        assert reflex.stdout.readline() == b"ready\n"
        yield reflex
    finally:
        reflex.kill()
        reflex.wait()


def _messages(
    instance: Instance, port: int, subscribers: Sequence[Binding], frame_length: int
) -> bytes:
    encoder = encode.BindingEncoder(instance)
    controls = [
        encode.bundle_control(kind, 1) for kind in (encode.BUNDLE_OPEN, encode.BUNDLE_COMMIT)
    ]
    records, sizes = [], (0, 0)
    for binding in subscribers:
        tunnel = binding.lwb4.packed, instance.br_address_of(binding).packed
        flows = encoder.add_bundled(binding, 1)
        out = encode.send_on(bytes(frame_length), port, Table.UPSTREAM_PORT_SET, tunnel)
        out = out[:-frame_length]
        records += [flows, out]
        sizes = len(flows), len(out)
    first = int.from_bytes(subscribers[0].lwb4.packed[-4:], "big")
    head = struct.pack("!5I", len(subscribers), first, *sizes, len(controls[0]))
    return b"".join((head, *controls, *records))
