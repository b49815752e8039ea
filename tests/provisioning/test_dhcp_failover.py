"""A lwAFTR that takes over asks Kea, whose leases say which lwB4 has which port set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP

from ryu_lw4o6.core.dhcpv4 import Kind, Message, Option
from tests.provisioning.dhcp_rig import CONFIG, DhcpRig
from tests.provisioning.test_dhcp import binding_of, lease_of
from tests.support.kea import database
from tests.support.lwb4 import Client, held, port_params
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres
from tests.support.rig import frames
from tests.wire.scenario import frame_of, softwire


class Backup(DhcpRig):
    def forget(self) -> None:
        """Become a lwAFTR that has never heard of anybody."""
        self.controller.kill()
        for file in self.ovs.directory.glob("bindings.sqlite*"):
            file.unlink()
        self.ovs("ovs-ofctl", "-OOpenFlow13", "del-flows", "br0")
        self.controller.start()
        wait_for("both next hops are known", self.neighbours_known)

    def supporting_system(self) -> Any:
        return self.controller.rest("GET", "/v1/failover")[1]["supporting_system"]


def rig_of(tmp_path_factory: pytest.TempPathFactory, options: str, **fields: Any) -> Backup:
    directory = Path(tmp_path_factory.mktemp("kea"))
    system = f"supporting_system: {{{{kea: {directory}/kea4-ctrl-socket, {options}}}}}\n"
    config = system + CONFIG + "    failover: data-packet+icmpv6\n"
    return Backup(directory, config=config, **fields)


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backup]:
    rig = rig_of(tmp_path_factory, "remember_no: 1")
    yield rig
    rig.stop()


def packet(rig: Backup, lwb4: Client, ack: Message) -> bytes | None:
    """Send the lwB4's next packet; it as it leaves to the Internet."""
    ipv4, psid = held(ack)
    inner = IP(src=str(ipv4), dst="198.51.100.200") / UDP(sport=1024 + psid * 16, dport=53)
    rig.wire6.send(frame_of(softwire(inner, str(lwb4.address)), 6))
    return next(iter(frames(rig.wire4, 1)), None)


def test_the_first_packet_is_validated(backup: Backup) -> None:
    lwb4, other = backup.client("2001:db8:b4::1"), backup.client("2001:db8:b4::2")
    ack = lwb4.bind()
    backup.forget()
    assert binding_of(backup, lwb4) is None
    assert packet(backup, other, ack) is None  # somebody else's
    assert packet(backup, lwb4, ack) is not None
    binding = binding_of(backup, lwb4)
    assert binding is not None
    assert binding["origin"] == "validated"
    # From here on it is as it was: a renewal makes it the relay's own.
    again = lwb4.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr)
    assert again is not None
    binding = binding_of(backup, lwb4)
    assert binding is not None
    assert binding["origin"] == "dhcp"


def test_what_was_released_is_not_valid(backup: Backup) -> None:
    lwb4 = backup.client("2001:db8:b4::3")
    ack = lwb4.bind()
    server = {Option.SERVER_ID: ack.options[Option.SERVER_ID]}
    lwb4.send(Kind.RELEASE, port_params(ack) | server, ciaddr=ack.yiaddr)
    wait_for("the binding is gone", lambda: binding_of(backup, lwb4) is None)
    assert packet(backup, lwb4, ack) is None


def test_kea_goes_and_comes(backup: Backup) -> None:
    lwb4, late = backup.client("2001:db8:b4::4"), backup.client("2001:db8:b4::5")
    ack, lates = lwb4.bind(), late.bind()
    backup.forget()
    assert packet(backup, lwb4, ack) is not None
    backup.kea.kill()
    wait_for("it is missed", lambda: backup.supporting_system()["state"] == "unavailable")
    assert packet(backup, late, lates) is None
    assert packet(backup, lwb4, ack) is not None
    backup.kea.start()
    wait_for("it is back", lambda: backup.supporting_system()["state"] == "available")
    wait_for("its lease is valid again", lambda: packet(backup, late, lates))


def test_a_warm_backup_has_the_bindings_before(tmp_path_factory: pytest.TempPathFactory) -> None:
    rig = rig_of(tmp_path_factory, "warm: yes, refresh: 1")
    try:
        early, late = rig.client("2001:db8:b4::1"), rig.client("2001:db8:b4::2")
        ack = early.bind()
        rig.forget()
        wait_for("the lease is a binding", lambda: binding_of(rig, early))
        assert packet(rig, early, ack) is not None
        # A lease that another relay has brought about.
        lates = late.bind()
        rig.controller.rest("DELETE", f"/v1/bindings/{held(lates)[0]}/{held(lates)[1]}")
        wait_for("it is found", lambda: binding_of(rig, late))
        # And one that Kea's operator has ended.
        lease = lease_of(rig, ack)
        assert lease is not None
        arguments = {"ip-address": lease["ip-address"]}
        answer = rig.kea.command({"command": "lease4-del", "arguments": arguments})
        assert answer["result"] == 0
        wait_for("it is gone", lambda: binding_of(rig, early) is None)
    finally:
        rig.stop()


def test_leases_in_postgresql(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> None:
    rig = rig_of(tmp_path_factory, "remember_no: 1", database=database(postgres))
    try:
        lwb4 = rig.client("2001:db8:b4::1")
        ack = lwb4.bind()
        rig.forget()
        assert packet(rig, lwb4, ack) is not None
        again = lwb4.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr)
        assert again is not None
        assert (again.kind, held(again)) == (Kind.ACK, held(ack))
    finally:
        rig.stop()
