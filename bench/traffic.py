"""Traffic that Python is too slow for: sent by ``flood.c``, noted by ``collect.c``."""

from __future__ import annotations

import array
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rig import OUTPUT, Loss, Rig, bindings, downstream, upstream
from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.core.ethernet import checksum
from tests.support.ovs import run

_INNER = 14 + 40  # where the IPv4 header of a softwire packet begins
_PAYLOAD = 20 + 8  # and from there, the payload of UDP


def flood(
    namespace: str,
    device: str,
    frames: Iterable[bytes],
    seconds: float,
    per_second: int = 0,
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Send these frames in turn, as fast as it goes if ``per_second`` is 0. ``prefix`` is put in
    front of the command."""
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{namespace}", *prefix, program("flood"), device,
         str(seconds), str(per_second)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames))
    process.stdin.close()
    return process


def sent(process: subprocess.Popen[bytes]) -> int:
    """How many frames a flood has sent, once it is over."""
    assert process.stdout is not None
    with process.stdout:
        text = process.stdout.read()
    process.wait()
    return int(text)


@dataclass(frozen=True)
class Collected:
    """By key: the time (time.monotonic) of the first frame, 0 for none; how many there were; the
    longest pause between two, in microseconds. ``missed`` frames were not seen in time."""

    first: Sequence[float]
    count: Sequence[int]
    pause: Sequence[int]
    missed: int
    samples: Sequence[bytes]

    @property
    def keys(self) -> int:
        """How many keys have been seen."""
        return sum(1 for count in self.count if count)

    def seconds(self, since: float = 0.0) -> list[float]:
        """When each key was seen first, sorted, by a clock that starts at ``since``."""
        return sorted(time - since for time in self.first if time)


class Collector:
    """Notes the frames that come in by a wire and have ``pattern`` at ``at``, by the four bytes at
    ``key_at``; keeps every ``every``th whole."""

    def __init__(
        self, namespace: str, device: str, at: int, pattern: bytes, key_at: int, keys: int,
        every: int = 0,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{namespace}", program("collect"), device, str(at),
             pattern.hex(), str(key_at), str(keys), str(every)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def stop(self) -> Collected:
        out, _ = self._process.communicate()
        first, count, pause = array.array("d"), array.array("I"), array.array("I")
        at = 0
        for column in (first, count, pause):
            size = self._keys * column.itemsize
            column.frombytes(out[at : at + size])
            at += size
        (missed,) = struct.unpack_from("=I", out, at)
        return Collected(first, count, pause, missed, list(_samples(out[at + 4 :])))


def _samples(data: bytes) -> Iterator[bytes]:
    while data:
        (size,) = struct.unpack_from("=H", data)
        yield data[2 : 2 + size]
        data = data[2 + size :]


def from_each(sample: bytes, subscribers: Sequence[Binding], first: int = 0) -> list[bytes]:
    """A softwire packet of each subscriber, like ``sample``, whose last four bytes become the
    numbers from ``first`` on. Made by hand: Scapy would take minutes."""
    frames = []
    for number, binding in enumerate(subscribers, first):
        frame = bytearray(sample)
        frame[22:38] = binding.lwb4.packed
        inner = memoryview(frame)[_INNER:]
        inner[10:12] = bytes(2)
        inner[12:16] = binding.ipv4.packed
        inner[10:12] = checksum(bytes(inner[:20])).to_bytes(2, "big")
        port = next(iter(binding.params.port_ranges(binding.psid)))[0]
        inner[20:22] = port.to_bytes(2, "big")
        frame[-4:] = number.to_bytes(4, "big")
        frames.append(bytes(frame))
    return frames


def sample(tag: bytes) -> bytes:
    """A packet of some subscriber, for ``from_each``."""
    return upstream(bindings(1)[0], tag + bytes(4))


class Known:
    """Numbered packets of subscribers that have bindings, both ways; for use as a context. ``loss``
    is known afterwards."""

    loss: Loss
    _SUBSCRIBERS = 100
    _TAG = b"known sub "

    def __init__(self, rig: Rig, seconds: float, per_second: int = 1000) -> None:
        self._rig = rig
        self._count = int(seconds * per_second)
        self._per_second = per_second
        self._seconds = seconds

    def __enter__(self) -> Known:
        outside, count = self._rig.outside, self._count
        subscribers = bindings(self._SUBSCRIBERS)
        ways = (
            ("wire6", "wire4", 14, from_each(sample(self._TAG), subscribers)),
            ("wire4", "wire6", 54, [downstream(b, self._TAG + bytes(4)) for b in subscribers]),
        )
        self._collectors, self._floods = [], []
        for into, out, inner, frames_of in ways:
            frames = [
                frames_of[n % len(frames_of)][:-4] + n.to_bytes(4, "big") for n in range(count)
            ]
            at = inner + _PAYLOAD
            self._collectors.append(
                Collector(outside, out, at, self._TAG, at + len(self._TAG), count)
            )
            # It must not begin anew.
            seconds = self._seconds - 2 / self._per_second
            self._floods.append(flood(outside, into, frames, seconds, self._per_second))
        return self

    def __exit__(self, *_: object) -> None:
        number = sum(map(sent, self._floods))
        time.sleep(1)
        arrived = sum(collector.stop().keys for collector in self._collectors)
        self.loss = Loss(number, number - arrived, 2 * self._per_second)


def program(name: str) -> str:
    """The path of a program in C, compiled if it has not been."""
    source, program = Path(__file__).with_name(f"{name}.c"), (OUTPUT / name).absolute()
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        run("clang", "-O2", "-Wall", "-o", str(program), str(source))
    return str(program)
