"""The comparison as a plot and as one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from topo.compare.measure import AFTER, AWAY, BEFORE, Measured
from topo.compare.statistics import percentile, rates, shown
from topo.compare.table import ON_THE_SLIDES, ROWS
from topo.compare.traffic import INTERVAL

NAME = "failover"
_WIDTH = 0.1
_COLOURS = {"up": "#1769aa", "down": "#d9822b"}
_LINES = {"up": 2.6, "down": 1.2}  # one upon the other
_WAYS = {"up": "from the subscribers", "down": "to the subscribers"}


def write(found: Sequence[Measured], directory: Path) -> list[Path]:
    """Write plot, report and figures; their paths, the report first. Needs matplotlib."""
    directory.mkdir(parents=True, exist_ok=True)
    page, plot, figures = (directory / f"{NAME}.{kind}" for kind in ("html", "png", "json"))
    _plot(found, plot)
    page.write_text(_page(found, plot.read_bytes()))
    figures.write_text(json.dumps([_figures(measured) for measured in found], indent=1) + "\n")
    return [page, plot, figures]


def _figures(measured: Measured) -> dict[str, Any]:
    found = asdict(measured)
    del found["arrivals"]
    found["run"] = measured.run.title
    return found


def _plot(found: Sequence[Measured], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    until = max(measured.end for measured in found)
    figure, axes = pyplot.subplots(
        len(found), 1, sharex=True, squeeze=False, figsize=(10, 0.8 + 2.2 * len(found)),
        layout="constrained",
    )  # fmt: skip
    for measured, axis in zip(found, axes[:, 0], strict=True):
        for way, arrivals in measured.arrivals.items():
            # The last interval may have been cut short.
            times, counts = rates(arrivals, -BEFORE, measured.end - _WIDTH, _WIDTH)
            per_second = [count / _WIDTH for count in counts]
            axis.step(times, per_second, where="post", color=_COLOURS[way], linewidth=_LINES[way],
                      label=_WAYS[way])  # fmt: skip
        back = measured.returned[1]
        axis.axvspan(0, back, color="#c62828", alpha=0.08, linewidth=0)
        for when, text in ((0.0, "primary killed"), (back, "primary back")):
            axis.axvline(when, color="#c62828", linewidth=1, linestyle="--")
            axis.annotate(text, (when, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -11),
                          textcoords="offset points", fontsize=8, color="#c62828")  # fmt: skip
        p50 = percentile(measured.failover.outages, 50)
        axis.set_title(f"{measured.run.title}: outage {shown(p50)} (p50)", loc="left",
                       fontsize=10, fontweight="bold")  # fmt: skip
        axis.set_ylim(0, measured.busy / INTERVAL * 1.45)
        axis.set_ylabel("packets/s", fontsize=9)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", fontsize=9,
                  frameon=False, ncols=2)  # fmt: skip
    axes[-1, 0].set_xlim(-BEFORE, until)
    axes[-1, 0].set_xlabel("seconds since the primary was killed", fontsize=9)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _page(found: Sequence[Measured], plot: bytes) -> str:
    image = base64.b64encode(plot).decode()
    busy = found[0].busy
    runs = "".join(
        f"<li><b>{_text(m.run.title)}.</b> {_text(m.run.how)}</li>" for m in found
    )  # fmt: skip
    return _PAGE.format(
        table="\n".join(_table(found)), image=image, runs=runs, busy=busy,
        pps=f"{1 / INTERVAL:.0f}", before=f"{BEFORE:g}", away=f"{AWAY:g}", after=f"{AFTER:g}",
        environment=_text(_environment()),
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )  # fmt: skip


def _table(found: Sequence[Measured]) -> Iterator[str]:
    titles = "".join(f"<th>{_text(m.run.title)}</th>" for m in found)
    yield f"<thead><tr><th></th>{titles}</tr></thead><tbody>"
    group = ""
    for row in ROWS:
        if row.group != group:
            group = row.group
            yield f'<tr class="group"><th colspan="{len(found) + 1}">{_text(group)}</th></tr>'
        cells = "".join(f"<td>{_text(row.cell(m))}</td>" for m in found)
        kind = ' class="slides"' if row.label == ON_THE_SLIDES else ""
        yield f"<tr{kind}><th>{_text(row.label)}</th>{cells}</tr>"
    yield "</tbody>"


def _environment() -> str:
    version = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True)
    switch = version.stdout.split("\n")[0].replace("ovs-vswitchd (Open vSwitch)", "Open vSwitch")
    return (
        f"Linux {platform.release()}, {os.cpu_count()} processors, {switch}, "
        f"Python {platform.python_version()}"
    )


def _text(value: str) -> str:
    return html.escape(value)


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>lw4over6 failover, measured</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 72rem;
   padding: 0 1rem; }}
 h1 {{ font-size: 1.6rem; margin-bottom: 0; }}
 h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
 table {{ border-collapse: collapse; width: 100%; }}
 th, td {{ text-align: left; vertical-align: top; padding: .35rem .7rem;
   border-bottom: 1px solid #ddd; }}
 thead th {{ border-bottom: 2px solid #222; }}
 tbody th {{ font-weight: normal; color: #555; width: 24%; }}
 tr.group th {{ font-weight: bold; color: #222; padding-top: 1.1rem; border-bottom-color: #999; }}
 tr.slides td {{ color: #555; font-style: italic; }}
 img {{ max-width: 100%; }}
 .note {{ color: #666; }}
</style>
</head>
<body>
<h1>lw4over6 failover, measured</h1>
<p class="note">{when}. {environment}.</p>
<p>Two lwAFTRs behind one anycast address, active and backup. The primary is killed: controller,
Open vSwitch and BGP speaker at once. The rows are those of the slides on
draft-lee-softwire-lw4over6-failover; every figure was measured in this run.</p>
<table>
{table}
</table>
<h2>Packets that arrived</h2>
<img alt="Packets per second over time, one diagram for each mechanism"
 src="data:image/png;base64,{image}">
<h2>The mechanisms</h2>
<ul>{runs}</ul>
<h2>How it was measured</h2>
<p>{busy} subscribers, with shared and with full addresses, each behind an lwB4 of its own. Each
sends {pps} numbered UDP packets a second to an Internet host and gets as many; on an outbound and
on an inbound TCP connection words go out, 50 a second, each of which has to come back. One more
subscriber sends nothing. {before} s later the primary is killed; it is mended after {away} s, and
traffic is watched for {after} s after its return. Routers (BIRD) learn of a dead lwAFTR by BGP.</p>
<p>An outage is the longest time for which a stream brought no packet, less the {pps}th of a second
between two; p50 and p99 are over all streams, both ways. A connection has survived if it did not
break and its words came back within the last second. Packets that an lwAFTR holds while it asks are
late, not lost. Figures depend on the machine; what they are to each other does not.</p>
</body>
</html>
"""
