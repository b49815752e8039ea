"""What ``lw4o6 switch down`` leaves of an lwAFTR that forwards."""

from __future__ import annotations

from tests.support.rig import Rig


def test_nothing() -> None:
    rig = Rig()
    try:
        assert rig.ovs("ovs-vsctl", "list-br") == "br0\n"
        assert "xdp" in rig.ovs("ip", "link", "show", "eth6")
        for _ in range(2):  # safe to repeat
            rig.lw4o6("switch", "down")
            assert rig.ovs("ovs-vsctl", "list-br") == ""
            for nic in ("eth6", "eth4"):
                assert "xdp" not in rig.ovs("ip", "link", "show", nic)
                assert "clsact" not in rig.ovs("tc", "qdisc", "show", "dev", nic)
    finally:
        rig.stop()
