"""``lw4o6 switch up`` on a machine that is not as it should be: it says so, and leaves it alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ryu_lw4o6 import cli, vswitchd
from ryu_lw4o6.core.config import load
from ryu_lw4o6.switch import SwitchSetupError, require_local
from tests.support.ovs import Ovs, wait_for

CONFIG = """
prefixes:
  - {prefix: 192.0.2.0/28, psid_offset: 6, psid_length: 6}
instances:
  - name: lwaftr1
    datapath_id: 1
    aftr_addresses: ["2001:db8:ffff::1"]
    ipv6: {port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe"}
    ipv4: {port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}
"""
OF13 = ("-O", "OpenFlow13")


@pytest.fixture
def ovs() -> Iterator[Ovs]:
    found = Ovs()
    try:
        for port in ("eth6", "eth4", "mgmt"):
            found("ip", "link", "add", port, "type", "veth", "peer", "name", f"p-{port}")
            for end in (port, f"p-{port}"):
                found("ip", "link", "set", end, "up")
        yield found
    finally:
        found.stop()


def switch(ovs: Ovs, action: str) -> subprocess.CompletedProcess[str]:
    config = ovs.directory / "lw4o6.yaml"
    config.write_text(CONFIG)
    lw4o6 = Path(sys.executable).with_name("lw4o6")
    process = ovs.popen(
        str(lw4o6), "switch", action, str(config),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, error = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, str(out), str(error))


def received(ovs: Ovs) -> bool:
    """Whether Open vSwitch has a frame that somebody sends to eth4."""
    ovs("sh", "-c", "ping -c 1 -W 0.1 -I p-eth4 198.51.100.9 || true")  # an ARP request
    return "n_packets=0" not in ovs("ovs-ofctl", *OF13, "dump-flows", "br-lwaftr", "in_port=eth4")


def default_routes(ovs: Ovs) -> list[str]:
    lines = ovs("ip", "-6", "route", "show", "default").splitlines()
    return [line.split(" metric")[0] for line in lines]


def test_a_default_route_of_somebody_else_is_left_alone(ovs: Ovs) -> None:
    ovs("ip", "addr", "add", "2001:db8:9::2/64", "dev", "mgmt", "nodad")
    ovs("ip", "-6", "route", "add", "default", "via", "2001:db8:9::1", "dev", "mgmt")
    done = switch(ovs, "up")
    assert done.returncode == 1
    assert "the machine's IPv6 default route is by mgmt" in done.stderr
    assert "ip -6 route del default dev mgmt" in done.stderr
    assert ovs("ovs-vsctl", "list-br") == ""
    assert default_routes(ovs) == ["default via 2001:db8:9::1 dev mgmt"]

    ovs("ip", "-6", "route", "del", "default", "dev", "mgmt")
    # That of a NIC it takes for itself ends with the NIC's own IPv6.
    ovs("ip", "addr", "add", "2001:db8:1::2/64", "dev", "eth6", "nodad")
    ovs("ip", "-6", "route", "add", "default", "via", "2001:db8:1::fe", "dev", "eth6")
    for _ in range(2):  # the second time there is its own
        done = switch(ovs, "up")
        assert (done.returncode, done.stderr) == (0, "")
        assert default_routes(ovs) == ["default via 2001:db8:1::fe dev br-lwaftr"]
    assert switch(ovs, "down").returncode == 0
    assert default_routes(ovs) == []


def test_a_command_that_fails_is_shown_with_its_reason(ovs: Ovs) -> None:
    # The next hop is an address of this machine.
    ovs("ip", "addr", "add", "2001:db8:1::fe/64", "dev", "p-eth6", "nodad")
    done = switch(ovs, "up")
    assert done.returncode == 1
    assert done.stderr == (
        "lw4o6 switch: lwaftr1: ip -6 route replace default via 2001:db8:1::fe dev br-lwaftr: "
        "Error: Gateway can not be a local address. Try that command by itself\n"
    )


def test_a_nic_that_was_away_is_taken_anew(ovs: Ovs) -> None:
    assert switch(ovs, "up").returncode == 0
    ovs("ip", "link", "del", "eth4")
    ovs("ip", "link", "add", "eth4", "type", "veth", "peer", "name", "p-eth4")
    for end in ("eth4", "p-eth4"):
        ovs("ip", "link", "set", end, "up")
    ovs("ip", "addr", "add", "198.51.100.254/24", "dev", "p-eth4")
    done = switch(ovs, "status")
    assert done.returncode == 1
    assert "port eth4        NOT READ by ovs-vswitchd" in done.stdout
    assert switch(ovs, "up").returncode == 0
    ovs("ovs-ofctl", *OF13, "add-flow", "br-lwaftr", "in_port=eth4,actions=drop")
    wait_for("a frame is received", lambda: received(ovs))


def test_a_bridge_whose_own_port_is_gone_is_made_anew(ovs: Ovs) -> None:
    assert switch(ovs, "up").returncode == 0
    ovs("ip", "link", "del", "br-lwaftr")
    lost = "2001:db8:1::1, 2001:db8:ffff::1, the default route"
    assert f"addresses        MISSING: {lost}\n" in switch(ovs, "status").stdout
    assert switch(ovs, "up").returncode == 0
    assert "2001:db8:ffff::1/128" in ovs("ip", "-6", "addr", "show", "dev", "br-lwaftr")


def test_an_open_vswitch_that_does_not_run(ovs: Ovs) -> None:
    assert switch(ovs, "up").returncode == 0
    ovs("ip", "-6", "addr", "del", "2001:db8:ffff::1/128", "dev", "br-lwaftr")
    ovs.kill("ovs-vswitchd")
    done = switch(ovs, "status")
    assert done.returncode == 1
    assert "ovs-vswitchd     DOES NOT ANSWER" in done.stdout
    assert "addresses        MISSING: 2001:db8:ffff::1\n" in done.stdout
    done = switch(ovs, "up")
    assert done.returncode == 1
    assert "ovs-vswitchd does not answer. Start it" in done.stderr


def test_a_kernel_without_the_modules(tmp_path: Path) -> None:
    """Open vSwitch says nothing of it: the bridge is in its database, and its port is nowhere."""
    config = tmp_path / "lw4o6.yaml"
    config.write_text(CONFIG + "    datapath: system\n    bridge: br-nowhere\n")
    with pytest.raises(SwitchSetupError, match="Load the modules openvswitch, vport-gre"):
        require_local(load(config).instances[0])


@pytest.mark.parametrize("target", ["nonsense", "tcp:192.0.2.1", "tcp::6653", "ptcp:6653"])
def test_a_controller_that_nobody_reaches(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["switch", "up", "lw4o6.yaml", "--controller", target])
    assert f"{target!r} is no address of a controller; write it like" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["tcp:[2001:db8::1]:6653", "ssl:c.example:6653", "unix:/run/c"])
def test_a_controller_that_somebody_may_reach(
    target: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):  # there is no such file
        cli.main(["switch", "up", str(tmp_path / "none"), "--controller", target])
    assert "cannot be read" in capsys.readouterr().err


def test_what_was_a_socket_of_ovs_vswitchd_is_not_taken_for_one() -> None:
    """Its number may have become that of something else."""
    descriptors = Path("/proc/self/fd")
    with Path(__file__).open() as file, socket.socket() as other:
        before = len(list(descriptors.iterdir()))
        for number in (file.fileno(), other.fileno()):
            with pytest.raises(OSError):  # noqa: PT011 (EBADF or ENOTSOCK)
                vswitchd.fill(vswitchd.Queue(os.getpid(), number, inode=1))
        assert len(list(descriptors.iterdir())) == before
