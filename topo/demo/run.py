"""The demo from its first lab to its last."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial

from topo.build import Builder
from topo.demo import failover as two
from topo.demo.basics import Basics
from topo.demo.checks import Chapter, Checks
from topo.nodes import LabError

Part = tuple[Builder | None, tuple[Chapter, ...]]
"""Chapters, and the lab that is built for them; None if they build their own."""


def run_demo(first: Builder, *, failover: bool) -> int:
    """Build labs, show everything, take them down. ``first`` is the lab with one lwAFTR. Returns 0
    when every check was met."""
    checks = Checks()
    parts = list(_parts(first, checks, failover=failover))
    total = sum(len(chapters) for _, chapters in parts)
    number, failure = 0, ""
    for lab, chapters in parts:
        try:
            if lab is not None:
                print(f"== Building the lab ({lab.name})", flush=True)
                lab.down()
                lab.up(_say)
            for title, show in chapters:
                number += 1
                print(f"== {number}/{total} {title}", flush=True)
                show()
        except (LabError, subprocess.SubprocessError) as error:
            failure = str(error)
        except KeyboardInterrupt:
            failure = "interrupted"
        finally:
            if lab is not None:
                lab.down(keep_logs=bool(failure) or not checks.ok)
        if failure:
            break
    if not failover:
        print("== Two lwAFTRs and failover are left out (--without-failover)")
    checks.show()
    if checks.ok and not failure:
        return 0
    print(f"\nIt does NOT work{': ' + failure if failure else ''}. Logs are in {first.directory}*.")
    return 1


def _parts(first: Builder, checks: Checks, *, failover: bool) -> Iterator[Part]:
    yield first, Basics(first, checks).chapters
    if not failover:
        return
    pair = two.active_backup(f"{first.name}-pair")
    yield pair, (
        ("Two lwAFTRs: the primary fails in five ways, and comes back",
         partial(two.every_way_to_fail, pair, checks)),
    )  # fmt: skip
    ecmp = two.active_active(f"{first.name}-ecmp")
    yield ecmp, (
        ("Two lwAFTRs share the load and a store", partial(two.load_is_shared, ecmp, checks)),
    )  # fmt: skip
    yield None, (
        ("The failover mechanisms compared",
         partial(two.comparison, f"{first.name}-compare", checks)),
    )  # fmt: skip


def _say(text: str) -> None:
    print(f"   {text}", flush=True)
