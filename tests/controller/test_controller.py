"""The controller as it is run, against a real Open vSwitch: nothing lost, nothing left over."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.controller import Controller
from tests.support.netns import inside
from tests.support.ovs import Ovs, wait_for

BINDING = {"lwb4": "2001:db8:b4::9", "ipv4": "192.0.2.9", "psid": 9}
STATIC_COOKIE = "0x200c00002010003"  # class 2, 192.0.2.1, PSID 3
REST_COOKIE = "0x200c00002090009"  # class 2, 192.0.2.9, PSID 9


@pytest.fixture
def ovs() -> Iterator[Ovs]:
    switch = Ovs()
    try:
        switch.bridge("br0", "eth6", "eth4")
        yield switch
    finally:
        switch.stop()


@pytest.fixture
def controller(ovs: Ovs) -> Iterator[Controller]:
    found = Controller(ovs)
    try:
        found.start()
        yield found
    finally:
        found.kill()


def flows_of(ovs: Ovs, cookie: str) -> list[str]:
    return [flow for flow in ovs.flows("br0") if f"cookie={cookie}," in flow]


def ages(ovs: Ovs) -> dict[str, float]:
    """How long each flow has been on the switch, in seconds."""
    text = ovs("ovs-ofctl", "-OOpenFlow13", "dump-flows", "br0")
    found = {}
    for line in text.splitlines():
        age = re.search(r"duration=([0-9.]+)s", line)
        if age:
            flow = re.sub(r"(duration|n_packets|n_bytes|idle_age|hard_age)=[^,]*, ?", "", line)
            found[flow.strip()] = float(age.group(1))
    return found


def test_binding_reaches_the_switch_and_leaves_it(controller: Controller, ovs: Ovs) -> None:
    assert len(flows_of(ovs, STATIC_COOKIE)) == 2
    status, body = controller.rest("POST", "/v1/bindings?wait=applied", BINDING)
    assert (status, body["state"]) == (201, {"lwaftr1": {"state": "applied"}})
    upstream, downstream = flows_of(ovs, REST_COOKIE)
    assert "tun_ipv6_src=2001:db8:b4::9" in upstream
    assert "nw_src=192.0.2.9" in upstream
    assert "reg0=0x9" in upstream
    assert "set_field:2001:db8:b4::9->tun_ipv6_dst" in downstream
    status, _ = controller.rest("DELETE", "/v1/bindings/192.0.2.9/9?wait=applied")
    assert status == 204
    assert flows_of(ovs, REST_COOKIE) == []


def test_replacing_a_binding_leaves_nothing_of_the_old_one(
    controller: Controller, ovs: Ovs
) -> None:
    controller.rest("POST", "/v1/bindings?wait=applied", BINDING)
    moved = BINDING | {"lwb4": "2001:db8:b4::a"}
    assert controller.rest("PUT", "/v1/bindings/192.0.2.9/9?wait=applied", moved)[0] == 200
    flows = flows_of(ovs, REST_COOKIE)
    assert len(flows) == 2
    assert all("2001:db8:b4::a" in flow and "2001:db8:b4::9" not in flow for flow in flows)


def test_controller_killed_and_restarted_touches_no_flow(controller: Controller, ovs: Ovs) -> None:
    controller.rest("POST", "/v1/bindings", BINDING)  # acknowledged, maybe not yet applied
    controller.kill()
    before = set(ovs.flows("br0"))
    mark = time.monotonic()
    wait_for("some time passes on the switch", lambda: min(ages(ovs).values()) > 0.5)
    controller.start()
    assert len(flows_of(ovs, REST_COOKIE)) == 2
    old = {flow for flow in ovs.flows("br0") if REST_COOKIE not in flow}
    assert old == {flow for flow in before if REST_COOKIE not in flow}
    since_restart = time.monotonic() - mark
    rewritten = [
        flow
        for flow, age in ages(ovs).items()
        if age < since_restart - 0.5 and REST_COOKIE.replace("0x", "") not in flow
    ]
    assert rewritten == []
    assert controller.rest("GET", "/v1/bindings/192.0.2.9/9")[1]["lwb4"] == "2001:db8:b4::9"


def test_switch_killed_and_restarted_gets_every_flow_back(controller: Controller, ovs: Ovs) -> None:
    controller.rest("POST", "/v1/bindings?wait=applied", BINDING)
    before = ovs.flows("br0")
    ovs.kill("ovs-vswitchd")
    wait_for("the controller notices", lambda: not controller.switch()["connected"], 30)
    # A binding made meanwhile is kept, and waits.
    other = BINDING | {"ipv4": "192.0.2.10"}
    assert controller.rest("POST", "/v1/bindings", other)[0] == 201
    state = controller.rest("GET", "/v1/bindings/192.0.2.10/9")[1]["state"]
    assert state == {"lwaftr1": {"state": "pending"}}
    ovs.start_switch()
    wait_for("the switch is ready again", controller.ready, 30)
    after = ovs.flows("br0")
    # The veths keep their MAC addresses, so every flow is the same.
    assert set(before) <= set(after)
    assert len(after) == len(before) + 2


def test_whatever_is_wrong_on_the_switch_is_put_right(controller: Controller, ovs: Ovs) -> None:
    right = ovs.flows("br0")
    controller.kill()
    ofctl = ("ovs-ofctl", "-OOpenFlow13")
    # somebody else's flow, one of ours deleted, one changed, a stale binding of ours
    ovs(*ofctl, "add-flow", "br0", "table=0,priority=9,ip,nw_src=10.0.0.1,actions=drop")
    ovs(*ofctl, "add-flow", "br0", "cookie=0xff00000000000000,table=200,actions=drop")
    ovs(*ofctl, "del-flows", "br0", "table=20,cookie=0x200c00002010003/-1")
    ovs(*ofctl, "add-flow", "br0",
        "cookie=0x200c00002010003,table=50,priority=100,ip,reg0=0x3,nw_dst=192.0.2.1,"
        "actions=drop")  # fmt: skip
    ovs(*ofctl, "add-flow", "br0",
        "cookie=0x200c00002630003,table=50,priority=100,ip,reg0=0x3,nw_dst=192.0.2.99,"
        "actions=drop")  # fmt: skip
    ovs(*ofctl, "del-flows", "br0", "table=60")
    assert ovs.flows("br0") != right
    controller.start()
    assert ovs.flows("br0") == right


@pytest.mark.parametrize(
    "command",
    [
        ("del-flows", "br0"),
        ("del-flows", "br0", "table=60"),
        ("del-flows", "br0", "table=20,cookie=0x200c00002010003/-1"),
        ("add-flow", "br0", "table=0,priority=65535,actions=drop"),
        ("add-flow", "br0", "cookie=0xff00000000000000,table=200,actions=drop"),
        ("del-meters", "br0"),
    ],
    ids=" ".join,
)
def test_what_somebody_does_to_the_flows_is_undone(
    controller: Controller, ovs: Ovs, command: tuple[str, ...]
) -> None:
    right = ovs.flows("br0")
    for _ in range(2):
        ovs("ovs-ofctl", "-OOpenFlow13", *command)
        assert ovs.flows("br0") != right
        wait_for("it is undone", lambda: ovs.flows("br0") == right, 10)
    wait_for("it says so", lambda: controller.log.read_text().count("reconciled in") == 3, 10)


def test_what_somebody_does_while_it_is_undone_is_undone_as_well(
    controller: Controller, ovs: Ovs
) -> None:
    right = ovs.flows("br0")
    again_and_again = ovs.directory / "deletions"
    again_and_again.write_text("delete table=60\n" * 8000)
    while controller.log.read_text().count("reconciled in") < 2:
        ovs("ovs-ofctl", "-OOpenFlow13", "add-flows", "br0", str(again_and_again))
    wait_for("it is undone", lambda: ovs.flows("br0") == right, 10)


def test_a_binding_the_switch_refuses_is_failed_with_its_words(
    controller: Controller, ovs: Ovs
) -> None:
    ovs("ovs-vsctl", "--", "--id=@t", "create", "Flow_Table", "flow_limit=1",
        "overflow_policy=refuse", "--", "set", "bridge", "br0", "flow_tables:50=@t")  # fmt: skip
    status, body = controller.rest("POST", "/v1/bindings?wait=applied", BINDING)
    assert status == 502
    assert "TABLE_FULL" in body["detail"]
    # Nothing of it is left, the others are untouched, and the binding is still known.
    assert flows_of(ovs, REST_COOKIE) == []
    assert len(flows_of(ovs, STATIC_COOKIE)) == 2
    state = controller.rest("GET", "/v1/bindings/192.0.2.9/9")[1]["state"]["lwaftr1"]
    assert state["state"] == "failed"
    assert "TABLE_FULL" in state["error"]
    # With room again, replacing it is enough.
    ovs("ovs-vsctl", "clear", "bridge", "br0", "flow_tables")
    status, _ = controller.rest("PUT", "/v1/bindings/192.0.2.9/9?wait=applied", BINDING)
    assert status == 200
    assert len(flows_of(ovs, REST_COOKIE)) == 2


def test_binding_with_a_lifetime_expires(controller: Controller, ovs: Ovs) -> None:
    body = BINDING | {"lifetime": 2}
    assert controller.rest("POST", "/v1/bindings?wait=applied", body)[0] == 201
    assert len(flows_of(ovs, REST_COOKIE)) == 2
    wait_for("its flows are gone", lambda: not flows_of(ovs, REST_COOKIE), 10)
    assert controller.rest("GET", "/v1/bindings/192.0.2.9/9")[0] == 404


def test_a_port_that_goes_and_comes_back(controller: Controller, ovs: Ovs) -> None:
    ovs("ovs-vsctl", "del-port", "br0", "eth4")
    wait_for("the port is missed", lambda: controller.switch()["missing_ports"] == ["eth4"])
    ovs("ovs-vsctl", "add-port", "br0", "eth4")  # it gets another number
    wait_for("the switch is ready again", controller.ready)
    number = ovs("ovs-vsctl", "get", "interface", "eth4", "ofport").strip()
    assert any(f"in_port={number} " in flow and "arp" in flow for flow in ovs.flows("br0"))
    assert len(flows_of(ovs, STATIC_COOKIE)) == 2


def test_next_hop_is_resolved_by_arp_and_followed(controller: Controller, ovs: Ovs) -> None:
    """The far end of eth4 plays the router."""
    assert controller.switch()["next_hop"]["state"] == "unresolved"
    assert any("cookie=0x300000000000016," in flow for flow in ovs.flows("br0"))  # counted drop

    def mac() -> str:
        return str(controller.switch()["next_hop"]["mac"])

    ovs("ip", "link", "set", "p-eth4", "address", "02:00:00:00:04:fe")
    ovs("ip", "addr", "add", "198.51.100.254/24", "dev", "p-eth4")
    wait_for("the next hop is resolved", lambda: mac() == "02:00:00:00:04:fe")
    wait_for(
        "traffic goes there",
        lambda: any("set_field:02:00:00:00:04:fe->eth_dst" in f for f in ovs.flows("br0")),
    )
    # It moves, and says so with a gratuitous ARP.
    frame = bytes.fromhex(
        "ffffffffffff 0200000004fd 0806 0001 0800 06 04 0001"
        "0200000004fd c63364fe 000000000000 c63364fe"
    )
    with inside(ovs.name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("p-eth4", 0))
        raw.send(frame)
    wait_for("the move is followed", lambda: mac() == "02:00:00:00:04:fd")
    wait_for(
        "traffic follows",
        lambda: any("set_field:02:00:00:00:04:fd->eth_dst" in f for f in ovs.flows("br0")),
    )


def test_a_second_controller_is_refused(controller: Controller) -> None:
    second = controller.spawn("--wsapi-port", "8081")
    assert second.wait(60) == 1
    log = controller.log.read_text()
    assert "OpenFlow: port 6653 is in use" in log
    assert "--ofp-tcp-listen-port" in log
    third = controller.spawn("--ofp-tcp-listen-port", "6654")
    assert third.wait(60) == 1
    assert "REST: port 8080 is in use" in controller.log.read_text()
    for option, value, said in (
        ("--ofp-tcp-listen-port", "99999", "OpenFlow: 99999 is no port. Use 1 to 65535"),
        ("--wsapi-host", "203.0.113.77", "REST: cannot listen on 203.0.113.77 port 8082: Cannot"),
    ):
        other = controller.spawn(
            "--ofp-tcp-listen-port", "6655", "--wsapi-port", "8082", option, value
        )
        assert other.wait(60) == 1
        assert said in controller.log.read_text()
    assert "Traceback" not in controller.log.read_text()
    assert controller.ready()


def test_both_listeners_are_on_loopback_only(controller: Controller, ovs: Ovs) -> None:
    listening = ovs("ss", "-Hltn").split()
    addresses = [word for word in listening if word.endswith((":6653", ":6633", ":8080"))]
    assert sorted(addresses) == ["127.0.0.1:6653", "127.0.0.1:8080"]


def test_a_wrong_configuration_is_refused_with_every_problem(ovs: Ovs) -> None:
    broken = Controller(ovs)
    text = broken.config.read_text()
    broken.config.write_text(text.replace("psid: 3", "psid: 64").replace("eth6", "eth 6"))
    process = broken.spawn()
    assert process.wait(20) == 1
    log = broken.log.read_text()
    assert "PSID 64 is out of range" in log
    assert "'eth 6' is not an interface name" in log
    assert "nothing was applied" in log
    assert "Traceback" not in log
    assert ovs.flows("br0") == []


@pytest.mark.parametrize(
    "garbage",
    [
        bytes.fromhex("0400000000000001"),  # a HELLO of length 0
        bytes.fromhex("04000010000000010001000000000000"),  # a HELLO with an empty element
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(4096),
    ],
)
def test_garbage_on_the_openflow_port_harms_nobody(
    controller: Controller, ovs: Ovs, garbage: bytes
) -> None:
    with inside(ovs.name), socket.create_connection(("127.0.0.1", 6653), 5) as raw:
        raw.sendall(garbage)
        assert controller.ready()
        status, _ = controller.rest("POST", "/v1/bindings?wait=applied", BINDING)
        assert status == 201
    assert controller.ready()


def test_connections_that_say_nothing_keep_nobody_out(controller: Controller, ovs: Ovs) -> None:
    resource.prlimit(controller.pid, resource.RLIMIT_NOFILE, (256, 256))
    with contextlib.ExitStack() as silent:
        for _ in range(300):
            with inside(ovs.name):
                silent.enter_context(socket.create_connection(("127.0.0.1", 6653), 5))
        assert controller.ready()
    ovs.reconnect("br0")
    wait_for("the switch has come back", lambda: controller.switch()["connections"] == 2)
    wait_for("it is ready", controller.ready)


def test_an_unknown_datapath_is_turned_away(controller: Controller, ovs: Ovs) -> None:
    ovs("ovs-vsctl", "add-br", "br1", "--", "set", "bridge", "br1", "datapath_type=netdev",
        "protocols=OpenFlow13", "other-config:datapath-id=00000000000000aa",
        "--", "set-controller", "br1", "tcp:127.0.0.1:6653")  # fmt: skip
    switch_log = ovs.directory / "vswitchd.log"
    tried = "br1<->tcp:127.0.0.1:6653: connection closed by peer"
    wait_for("it has been turned away twice", lambda: switch_log.read_text().count(tried) == 2)
    wait_for("it is named in the log", lambda: "00000000000000aa" in controller.log.read_text())
    assert controller.ready()
    assert controller.log.read_text().count("no instance has datapath id") == 1  # once a minute


def test_a_second_switch_with_the_same_datapath_id_is_turned_away(
    controller: Controller, ovs: Ovs
) -> None:
    ovs("ovs-vsctl", "add-br", "br1", "--", "set", "bridge", "br1", "datapath_type=netdev",
        "protocols=OpenFlow13", "other-config:datapath-id=0000000000000001",
        "--", "set-controller", "br1", "tcp:127.0.0.1:6653")  # fmt: skip
    closed = "br1<->tcp:127.0.0.1:6653: connection closed by peer"
    wait_for("it is turned away", lambda: closed in (ovs.directory / "vswitchd.log").read_text())
    assert "a second switch has datapath id 0000000000000001" in controller.log.read_text()
    assert controller.ready()
    assert controller.switch()["connections"] == 1


def test_open_vswitch_warned_of_nothing(controller: Controller, ovs: Ovs) -> None:
    controller.rest("POST", "/v1/bindings?wait=applied", BINDING)
    log = (ovs.directory / "vswitchd.log").read_text()
    of_this_place = ("rconn", "default OpenFlow port", "system datapaths")
    ours = [
        line for line in log.splitlines()
        if ("|WARN|" in line or "|ERR|" in line) and not any(part in line for part in of_this_place)
    ]  # fmt: skip
    assert ours == []


def test_ten_thousand_bindings_survive_kill_nine_while_they_are_made(
    controller: Controller, ovs: Ovs
) -> None:
    """Every bulk request that was answered is there afterwards, on the switch as well."""
    body = {
        "create": [
            {"lwb4": f"2001:db8:b5::{i:x}", "ipv4": f"192.0.2.{100 + (i >> 6)}", "psid": i & 63}
            for i in range(2000)
        ]
    }
    file = ovs.directory / "bulk.json"
    import json

    file.write_text(json.dumps(body))
    command = ["curl", "-sS", "-m", "20", "-H", "Content-Type: application/json",
               "-d", f"@{file}", "http://127.0.0.1:8080/v1/bindings/bulk"]  # fmt: skip
    answer = ovs(*command)
    assert '"created": 2000' in answer
    controller.kill()
    controller.start()
    assert controller.rest("GET", "/v1/bindings?limit=1")[1]["total"] == 2001
    wait_for("every flow is there", lambda: len(ovs.flows("br0")) > 4000)
    assert controller.switch()["bindings"] == 2001


def test_config_option_by_environment(ovs: Ovs) -> None:
    made = Controller(ovs)
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{ovs.name}", "ryu-manager", "ryu_lw4o6.app"],
        env={**ovs.environment, "LW4O6_CONFIG": str(made.config), "PATH": _path()},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for("the static binding is on the switch", lambda: flows_of(ovs, STATIC_COOKIE), 30)
    finally:
        process.kill()
        process.wait(10)


def _path() -> str:
    import os

    from tests.support.controller import BIN

    return f"{BIN}:{os.environ['PATH']}"
