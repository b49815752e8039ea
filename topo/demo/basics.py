"""One lwAFTR: bindings, spoofing, restarts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from functools import partial

from topo.build import Builder
from topo.demo.checks import Chapter, Checks, yes
from topo.nodes import LabError, wait_for
from topo.plan import SERVER, Subscriber

_IPERF_SECONDS = 3
_IPERF_RATE = "20M"
_PAGE_RATE = "4M"
"""Each stream is held below what two cores forward (``make bench`` measures that)."""
_PINGS = 20
_PINGS_PER_SECOND = 50


class Basics:
    """Chapters on a lab with one lwAFTR."""

    def __init__(self, builder: Builder, checks: Checks) -> None:
        self.lab = builder
        self.lwaftr = builder.lwaftr
        self.check = checks.add
        self.subs = builder.lab.subscribers

    @property
    def chapters(self) -> tuple[Chapter, ...]:
        return (
            ("A binding makes the difference", self.binding_is_made),
            ("Three subscribers at once: pages, ping, iperf3", self.everybody_at_once),
            ("Spoofing", self.spoofing_is_dropped),
            ("A binding is removed and made again", self.binding_is_removed),
            ("The controller dies", self.controller_is_killed),
            ("Open vSwitch dies", self.switch_is_killed),
        )

    # --- chapters ---

    def binding_is_made(self) -> None:
        sub = self.subs[0]
        before = self._fetches(sub)
        started = time.monotonic()
        status, body = self.lwaftr.rest("POST", "/v1/bindings?wait=applied", self._json(sub))
        seconds = time.monotonic() - started
        state = body.get("state", {}).get(self.lwaftr.name, {}).get("state", body.get("detail"))
        self.check(
            f"binding {sub.ipv4} PSID {sub.psid} made over REST",
            f"HTTP {status}, {state} in {seconds * 1000:.0f} ms", status == 201,
        )  # fmt: skip
        after = self._fetches(sub)
        self.check(
            "subscriber 1 reaches the Internet only with it",
            f"page before: {yes(before)}, after: {yes(after)}", after and not before,
        )  # fmt: skip

    def everybody_at_once(self) -> None:
        lab = self.lab
        capture = lab.start(
            "inet", "capture", "timeout", "30", sys.executable, "-m", "topo.sources",
            str(lab.directory / "sources.json"),
        )  # fmt: skip
        wait_for("the capture runs", (lab.directory / "sources.json").exists)
        loads = []
        for number, sub in enumerate(self.subs):
            port = 5201 + number
            lab.start("inet", f"iperf3-{port}", "iperf3", "-s", "-1", "-B", str(SERVER),
                      "-p", str(port))  # fmt: skip
            wait_for("iperf3 listens", partial(lab.listening, "inet", port))
            iperf = ["iperf3", "-J", "-c", str(SERVER), "-p", str(port)]
            loads.append(self._popen(sub, *iperf, "-t", str(_IPERF_SECONDS), "-b", _IPERF_RATE))
        pings = [self._popen(sub, "ping", "-c", str(_PINGS), "-i", "0.1", "-W", "2", str(SERVER))
                 for sub in self.subs]  # fmt: skip
        fetched = [sum(self._fetches(sub, "/large") for _ in range(3)) for sub in self.subs]
        rates = [_rate(load) for load in loads]
        lost = [_loss(ping) for ping in pings]
        capture.terminate()
        capture.wait(10)
        sources = json.loads((lab.directory / "sources.json").read_text())
        for sub, pages, rate, loss in zip(self.subs, fetched, rates, lost, strict=True):
            kind = f"PSID {sub.psid}" if sub.params.shared else "full address"
            self.check(
                f"subscriber {sub.number} ({sub.ipv4}, {kind})",
                f"{pages}/3 pages of 4 MiB, {rate:.0f} Mbit/s, {loss} of {_PINGS} pings lost",
                pages == 3 and rate > 0 and loss == 0,
            )  # fmt: skip
        self._check_ports(sources)
        self._check_datapath()

    def _check_datapath(self) -> None:
        """Which of Open vSwitch's datapaths has flows for what has just passed."""
        shown = self.lab.run(self.lwaftr.name, "ovs-appctl", "dpctl/show").stdout
        name = shown.partition(":")[0]
        found = re.search(r"flows: (\d+)", shown)
        flows = int(found.group(1)) if found else 0
        self.check(
            "Open vSwitch forwards it without the controller", f"{flows} flows in {name}",
            name.startswith(self.lab.lab.datapath) and flows > 0,
        )  # fmt: skip

    def _check_ports(self, sources: dict[str, list[int]]) -> None:
        """The Internet host saw public addresses only, and ports of the right sets only."""
        expected = {str(sub.ipv4) for sub in self.subs}
        ports = sources.get(str(self.subs[0].ipv4), [])
        of = [[p for p in ports if sub.owns(p)] for sub in self.subs[:2]]
        stray = [p for p in ports if not any(sub.owns(p) for sub in self.subs[:2])]
        self.check(
            "the Internet sees public addresses only", ", ".join(sorted(sources)),
            set(sources) == expected,
        )  # fmt: skip
        self.check(
            f"{self.subs[0].ipv4} is shared by port set",
            f"{len(of[0])} ports of PSID {self.subs[0].psid}, {len(of[1])} of PSID "
            f"{self.subs[1].psid}, {len(stray)} of neither", bool(of[0] and of[1]) and not stray,
        )  # fmt: skip

    def spoofing_is_dropped(self) -> None:
        """Subscriber 2's lwB4 sends from a port of subscriber 1's."""
        lwaftr, (victim, spoofer) = self.lwaftr, self.subs[:2]
        before = lwaftr.counters()["drop_upstream_no_binding"]
        port = victim.ports[0][0]
        self.lab.run(
            spoofer.tun, sys.executable, "-m", "topo.spoof", str(spoofer.lwb4), str(victim.ipv4),
            str(port), "10",
        )  # fmt: skip
        wait_for(
            "the drops are counted",
            lambda: lwaftr.counters()["drop_upstream_no_binding"] - before >= 10,
        )
        dropped = lwaftr.counters()["drop_upstream_no_binding"] - before
        self.check(
            f"10 packets spoofed from {victim.ipv4}:{port} by lwB4 {spoofer.number}",
            f"drop_upstream_no_binding counted {dropped}", dropped == 10,
        )  # fmt: skip

    def binding_is_removed(self) -> None:
        sub, other = self.subs[:2]
        status, _ = self.lwaftr.rest("DELETE", f"/v1/bindings/{sub.ipv4}/{sub.psid}?wait=applied")
        gone, kept = self._fetches(sub), self._fetches(other)
        self.check(
            "binding removed over REST",
            f"HTTP {status}; page for subscriber 1: {yes(gone)}, for subscriber 2: {yes(kept)}",
            status == 204 and kept and not gone,
        )  # fmt: skip
        status, _ = self.lwaftr.rest("POST", "/v1/bindings?wait=applied", self._json(sub))
        back = self._fetches(sub)
        self.check("and made again", f"HTTP {status}; page: {yes(back)}", status == 201 and back)

    def controller_is_killed(self) -> None:
        """kill -9 under traffic: the switch forwards on, the binding made over REST survives."""
        lwaftr, count = self.lwaftr, 5 * _PINGS_PER_SECOND
        ping = self._popen(
            self.subs[0], "ping", "-c", str(count), "-i", str(1 / _PINGS_PER_SECOND), "-W", "2",
            str(SERVER),
        )  # fmt: skip
        lwaftr.kill("ryu-manager")
        lwaftr.start_controller()
        wait_for("the switch is reconciled", lwaftr.ready, 30)
        lost = _loss(ping)
        _, body = lwaftr.rest("GET", "/v1/switches")
        reconcile = body["switches"][0]["last_reconcile"]
        self.check(
            "controller killed (kill -9) and restarted under traffic",
            f"{lost} of {count} packets lost; reconciled in {reconcile['seconds'] * 1000:.0f} ms, "
            f"{reconcile['changed_bindings']} bindings rewritten",
            lost == 0 and reconcile["changed_bindings"] == 0,
        )  # fmt: skip

    def switch_is_killed(self) -> None:
        lwaftr = self.lwaftr
        lwaftr.kill("ovs-vswitchd")
        lwaftr.start_switch()
        wait_for("the switch is reconciled", lwaftr.ready, 30)
        back = all(self._fetches(sub) for sub in self.subs)
        self.check("Open vSwitch killed (kill -9) and restarted",
                   f"page for every subscriber: {yes(back)}", back)  # fmt: skip

    # --- helpers ---

    def _json(self, sub: Subscriber) -> dict[str, object]:
        return {"lwb4": str(sub.lwb4), "ipv4": str(sub.ipv4), "psid": sub.psid}

    def _fetches(self, sub: Subscriber, path: str = "/") -> bool:
        done = self.lab.run(
            sub.host, "curl", "-sSf", "-o", "/dev/null", "--connect-timeout", "3", "-m", "15",
            "--limit-rate", _PAGE_RATE, f"http://{SERVER}{path}", check=False,
        )  # fmt: skip
        return done.returncode == 0

    def _popen(self, sub: Subscriber, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.lab.command(sub.host, *command), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def _rate(process: subprocess.Popen[str]) -> float:
    """Mbit/s that an iperf3 client reports, 0 when it failed."""
    text, _ = process.communicate(timeout=60)
    try:
        return float(json.loads(text)["end"]["sum_received"]["bits_per_second"]) / 1e6
    except (ValueError, KeyError):
        return 0.0


def _loss(process: subprocess.Popen[str]) -> int:
    """How many pings were lost."""
    text, _ = process.communicate(timeout=60)
    found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    if found is None:
        raise LabError(f"ping: {text.strip()[-200:]}")
    return int(found.group(1)) - int(found.group(2))
