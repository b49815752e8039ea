"""bpf(2) itself, for a map that is written many times a second, which bpftool is too slow for."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_CALL = {"x86_64": 321, "aarch64": 280}
_UPDATE_ELEM, _GET_FD_BY_ID = 2, 14
_ATTRIBUTES = 128
_LIBC = ctypes.CDLL(None, use_errno=True)


class KernelMap:
    """An array map, by the kernel's number of it. Raises OSError where it is not to be had."""

    def __init__(self, number: int) -> None:
        self._descriptor, _ = bpf(_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))

    def write(self, index: int, value: bytes) -> None:
        """Replace an entry. Raises OSError."""
        key = ctypes.create_string_buffer(struct.pack("=I", index), 4)
        entry = ctypes.create_string_buffer(value, len(value))
        bpf(
            _UPDATE_ELEM,
            struct.pack("=I4xQQQ", self._descriptor, ctypes.addressof(key),
                        ctypes.addressof(entry), 0),
        )  # fmt: skip

    def close(self) -> None:
        os.close(self._descriptor)


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """What the kernel returns, and what it has made of the attributes. Raises OSError."""
    number = _CALL.get(platform.machine())
    if number is None:
        raise OSError(f"the number of bpf(2) on {platform.machine()} is not known")
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES)
    result: int = _LIBC.syscall(number, command, buffer, _ATTRIBUTES)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, buffer.raw
