"""The shim's source in C, and what becomes of it."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from importlib import resources
from pathlib import Path

from ryu_lw4o6.softwire.commands import run

CACHE = Path("/var/cache/lw4o6")
_MAIN = "softwire.bpf.c"
_HEADERS = ("shim.h", "mark.h", "crowd.h", "answer.h", "decapsulate.h", "encapsulate.h")
_FLAGS = ("-O2", "-g", "-Wall", "-Werror", "-target", "bpf")

Source = dict[str, bytes]
"""The text of each file."""


def source() -> Source:
    files = resources.files("ryu_lw4o6.softwire")
    return {name: files.joinpath(name).read_bytes() for name in (*_HEADERS, _MAIN)}


def digest(text: Source) -> bytes:
    """Tells one version of the shim from another, in 8 bytes."""
    return hashlib.sha256(b"".join(text.values()) + " ".join(_FLAGS).encode()).digest()[:8]


def compiled(text: Source) -> Path:
    """The compiled programs, from the cache if they have been compiled before. Raises ShimError."""
    target = CACHE / f"softwire-{digest(text).hex()}.o"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o700)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        c_file, o_file = Path(directory, _MAIN), Path(directory, "softwire.o")
        for name, content in text.items():
            Path(directory, name).write_bytes(content)
        include = f"/usr/include/{platform.machine()}-linux-gnu"
        run(
            "clang", *_FLAGS, f"-I{include}", "-c", str(c_file), "-o", str(o_file),
            failure="the shim could not be compiled",
            suggestion="Install the headers it needs: apt-get install libbpf-dev linux-libc-dev",
        )  # fmt: skip
        o_file.replace(target)
    return target
