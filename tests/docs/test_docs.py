"""Documentation that can drift does not: it is held against what it is about."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from openflow_rules.tables import Count, Drop, Table
from rest.routes import ROUTES
from ryu_lw4o6 import cli
from ryu_lw4o6.core import dhcp_relay
from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.settings import (
    DhcpRelay,
    IcmpPolicy,
    Instance,
    Ipv4Side,
    Ipv6Side,
    Pcp,
    SupportingSystem,
)
from ryu_lw4o6.softwire.maps import COUNTERS
from tests.support import evidence
from topo.lwb4.refusal import Verdict

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLE = ROOT / "docs/examples/lw4o6.yaml"
DHCP_EXAMPLE = ROOT / "docs/examples/dhcp.yaml"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_the_example_is_right() -> None:
    settings = load(EXAMPLE)
    assert len(settings.bindings) == 4
    assert settings.instances[0].name == "lwaftr1"


def test_check_config_tells_what_a_failover_example_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["check-config", str(EXAMPLE.with_name("failover-lwaftr1.yaml"))]) == 0
    said = capsys.readouterr().out
    assert "packets without a binding: data-packet\n" in said
    assert "announces its routes as AS 64512 to 2001:db8:c:1::fe, 2001:db8:d:1::fe\n" in said
    store = "postgresql+psycopg://lw4o6:***@db.example.net/lw4o6"
    assert f"supporting system {store}\n" in said


def test_the_failover_examples_are_a_pair() -> None:
    one, two = (load(EXAMPLE.with_name(f"failover-lwaftr{n}.yaml")) for n in (1, 2))
    (first,), (second,) = one.instances, two.instances
    assert first.aftr_addresses == second.aftr_addresses
    assert one.prefixes == two.prefixes
    assert one.supporting_system == two.supporting_system
    assert first.announce is not None
    assert second.announce is not None
    assert first.announce.local_preference > second.announce.local_preference
    bird = ["/usr/sbin/bird", "-p", "-c", str(EXAMPLE.with_name("bird-access.conf"))]
    assert subprocess.run(bird, capture_output=True).returncode == 0


def test_the_pipeline_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pipeline"]) == 0
    assert capsys.readouterr().out == page("pipeline.md"), "run make docs"
    for name in (*(t.name for t in Table), *(c.name.lower() for c in Count)):
        assert name in page("pipeline.md")
    for drop in Drop:
        assert f"drop_{drop.name.lower()}" in page("pipeline.md")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize(
    "kind", [Instance, Ipv6Side, Ipv4Side, IcmpPolicy, DhcpRelay, Pcp, SupportingSystem]
)
def test_every_key_of_the_configuration_is_described(kind: type) -> None:
    for field in fields(kind):
        if not field.name.startswith("_") and field.name != "source":  # written as store or file
            assert f"| `{field.name}` |" in page("configuration.md"), field.name


def test_every_drop_of_the_dhcp_relay_is_described() -> None:
    for drop in dhcp_relay.Drop:
        assert f"| `{drop}` |" in page("rest.md"), drop


def test_every_route_is_described() -> None:
    text = page("rest.md").replace("192.0.2.1/3", "{ipv4}/{psid}").replace("lwaftr1", "{name}")
    for route in ROUTES:
        assert route.path in text, route.path


def test_every_decision_is_listed() -> None:
    listed = re.findall(r"\]\((\d{4}-[^)]+)\)", page("adr/README.md"))
    assert listed == sorted(p.name for p in (ROOT / "docs/adr").glob("0*.md"))


@pytest.mark.parametrize("name", COUNTERS)
def test_every_counter_of_the_shim_is_described(name: str) -> None:
    assert f"`{name}`" in page("rest.md")


def test_counters_that_operators_are_pointed_to_exist() -> None:
    known = {f"drop_{drop.name.lower()}" for drop in Drop} | set(COUNTERS)
    for name in re.findall(r"`((?:drop|refused)_\w+)`", page("operating.md")):
        assert name in known or name == "refused_", name


def test_every_target_has_a_word_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (\S+)", makefile, re.M)
    assert len(targets) > 10
    for target in targets:
        assert re.search(rf"^{target}:.*## \w", makefile, re.M), target


def test_every_verdict_about_an_icmpv6_error_is_described() -> None:
    for verdict in Verdict:
        assert f"`{verdict}`" in page("lwb4.md")


def test_the_compliance_page_names_tests_and_code_that_exist() -> None:
    """That they pass is seen at the end of a full run (tests/support/evidence.py)."""
    for name in evidence.named_tests():
        path, _, function = name.partition("::")
        assert f"\ndef {function}(" in (ROOT / path).read_text(), name
    rows = [line.split("|") for line in page("rfc7596.md").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[1].strip() != "section"]
    assert len(rows) > 30
    for _, _, requirement, status, code, shown, _ in rows:
        assert status.strip() in {"met", "partly", "not yet", "outside"}, requirement
        assert status.strip() != "met" or "::test_" in shown, requirement
        for path in re.findall(r"`([\w./]+)`", code):
            assert (ROOT / path).exists(), path


def test_a_full_run_misses_what_it_has_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests/conftest.py asks at the end of one."""
    everything = {f"drop_{drop.name.lower()}" for drop in Drop} | set(COUNTERS)
    monkeypatch.setattr(evidence, "_moved", set(everything))
    monkeypatch.setattr(evidence, "_passed", set(evidence.named_tests()))
    assert evidence.missing() == []
    evidence._moved.remove("refused_ecn")
    evidence._passed.remove(evidence.named_tests()[0])
    assert len(evidence.missing()) == 2


@pytest.mark.parametrize("service", ["dhcp4", "dhcp6"])
def test_the_example_for_kea_is_what_the_command_prints(
    service: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And Kea takes it."""
    example = ROOT / f"docs/examples/kea-{service}.json"
    options = ["--relay", "2001:db8:2::1"]
    if service == "dhcp6":
        options += ["--softwire", "00:03:00:01:02:00:00:00:00:b4=192.0.2.1/3"]
    assert cli.main(["kea-config", str(DHCP_EXAMPLE), service, *options]) == 0
    printed = capsys.readouterr().out
    assert printed == example.read_text()
    here = tmp_path / "kea.json"
    there = {"/var/lib/kea": str(tmp_path), "eth0/2001:db8:9::67": "lo/::1", "eth0": "lo"}
    for theirs, ours in there.items():
        printed = printed.replace(theirs, ours)
    here.write_text(printed)
    environment = {
        **os.environ,
        "KEA_LOCKFILE_DIR": str(tmp_path),
        "KEA_PIDFILE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [f"/usr/sbin/kea-{service}", "-t", str(here)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--softwire", "b4"], "--softwire: 'b4' is not DUID=IPV4/PSID"),
        (["--softwire", "00:01=192.0.2.1/4"], "192.0.2.1/4 is no static binding"),
    ],
)
def test_kea_config_says_what_is_wrong(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["kea-config", str(DHCP_EXAMPLE), "dhcp6", *options]) == 1
    assert said in capsys.readouterr().err
    assert cli.main(["kea-config", str(EXAMPLE), "dhcp4"]) == 1
    assert "no instance has dhcp" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "4294967296", "1h"])
def test_kea_config_takes_no_such_lease_time(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["kea-config", str(DHCP_EXAMPLE), "dhcp4", f"--lease-seconds={seconds}"])
    assert "use 1 to 4294967295" in capsys.readouterr().err


def test_kea_config_tells_no_softwire_to_dhcp4(capsys: pytest.CaptureFixture[str]) -> None:
    softwire = "--softwire=00:03:00:01:02:00:00:00:00:b4=192.0.2.1/3"
    assert cli.main(["kea-config", str(DHCP_EXAMPLE), "dhcp4", softwire]) == 1
    assert "goes with dhcp6, not with dhcp4" in capsys.readouterr().err
