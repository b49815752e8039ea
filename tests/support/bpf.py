"""Runs a loaded BPF program on one packet (BPF_PROG_TEST_RUN), without a wire in between."""

from __future__ import annotations

import ctypes
import os
import struct

from ryu_lw4o6.softwire.kernel_map import bpf

XDP_DROP, XDP_PASS = 1, 2
TC_OK, TC_STOLEN = 0, 4
_TEST_RUN, _GET_FD_BY_ID = 10, 13
_ROOM = 4096


class Program:
    """A loaded program, by the kernel's id; held open until ``close``."""

    def __init__(self, number: int) -> None:
        self._file, _ = bpf(_GET_FD_BY_ID, struct.pack("III", number, 0, 0))

    def run(self, frame: bytes, *, gso_size: int = 0) -> tuple[int, bytes]:
        """The program's verdict and what it made of the frame."""
        data, out = (ctypes.create_string_buffer(b, _ROOM) for b in (frame, b""))
        # struct __sk_buff: gso_segs at 164, gso_size at 176, 192 bytes in all
        context = struct.pack("164xI8xI12x", 2, gso_size) if gso_size else b""
        held = ctypes.create_string_buffer(context, max(1, len(context)))
        _, answer = bpf(
            _TEST_RUN,
            struct.pack(
                "=IIIIQQIIIIQ",
                self._file, 0, len(frame), _ROOM,
                ctypes.addressof(data), ctypes.addressof(out),
                1, 0, len(context), 0, ctypes.addressof(held) if context else 0,
            ),
        )  # fmt: skip
        _, verdict, _, length = struct.unpack_from("=IIII", answer)
        return verdict, out.raw[:length]

    def close(self) -> None:
        os.close(self._file)
