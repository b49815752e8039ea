"""Port sets against RFC 7597 section 5.1, worked out by hand, and for all values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams


@st.composite
def params(draw: st.DrawFn, shared: bool = False) -> PortParams:
    offset = draw(st.integers(0, 15))
    return PortParams(offset, draw(st.integers(int(shared), 16 - offset)))


# RFC 7597 section 5.1 and appendix B: a = 6, k = 8, m = 2; PSID 0x34 = 52.
# First port: A = 1: 0b000001_00110100_00 = 1024 + 52 * 4 = 1232.
def test_example_of_rfc_7597() -> None:
    example = PortParams(6, 8)
    ranges = list(example.port_ranges(0x34))
    assert ranges[0] == range(1232, 1236)
    assert ranges[1] == range(2256, 2260)  # A = 2
    assert ranges[-1] == range(63 * 1024 + 208, 63 * 1024 + 212)  # A = 63
    assert len(ranges) == 63
    assert example.port_count() == 252
    assert example.psid_of(1232) == example.psid_of(64723) == 0x34
    assert example.psid_of(1231) == 0x33
    assert example.psid_of(1236) == 0x35


@pytest.mark.parametrize(
    ("offset", "length", "psid", "first", "last", "ports"),
    [
        (0, 6, 0, 0, 1023, 1024),  # without an offset a port set is one range
        (0, 6, 63, 64512, 65535, 1024),
        (6, 6, 3, 1024 + 3 * 16, 63 * 1024 + 3 * 16 + 15, 63 * 16),
        (4, 8, 255, 4096 + 255 * 16, 65535, 15 * 16),
        (6, 10, 1, 1024 + 1, 63 * 1024 + 1, 63),  # no bits left below the PSID
        (0, 16, 40000, 40000, 40000, 1),
        (15, 1, 0, 2, 65534, 32767),
        (1, 0, 0, 0, 65535, 65536),  # a full address has no excluded ports, whatever a is
    ],
)
def test_port_sets_by_hand(
    offset: int, length: int, psid: int, first: int, last: int, ports: int
) -> None:
    ranges = list(PortParams(offset, length).port_ranges(psid))
    assert ranges[0].start == first
    assert ranges[-1][-1] == last
    assert sum(map(len, ranges)) == PortParams(offset, length).port_count() == ports


@pytest.mark.parametrize(
    ("offset", "length", "ports"), [(6, 6, 1024), (4, 8, 4096), (15, 1, 2), (0, 6, 0), (6, 0, 0)]
)
def test_excluded_ports(offset: int, length: int, ports: int) -> None:
    assert PortParams(offset, length).excluded_ports == range(ports)


@given(params(), st.integers(0, 65535))
def test_every_port_is_in_the_port_set_of_its_psid_and_in_no_other(
    cut: PortParams, port: int
) -> None:
    psid = cut.psid_of(port)
    if psid is None:
        assert cut.shared
        assert port >> (16 - cut.psid_offset) == 0
        return
    assert any(port in ports for ports in cut.port_ranges(psid))
    other = (psid + 1) % cut.psid_count
    assert other == psid or not any(port in ports for ports in cut.port_ranges(other))


@given(params(shared=True))
def test_port_sets_and_excluded_ports_make_up_all_ports(cut: PortParams) -> None:
    owned = cut.psid_count * cut.port_count()
    assert owned + len(cut.excluded_ports) == 65536


@given(params(), st.integers(-5, 70000))
def test_only_the_psids_of_an_address_are_taken(cut: PortParams, psid: int) -> None:
    if 0 <= psid < 1 << cut.psid_length:
        cut.check_psid(psid)
    else:
        with pytest.raises(ValueError, match="PSID"):
            cut.check_psid(psid)


@pytest.mark.parametrize(("offset", "length"), [(-1, 0), (16, 0), (0, 17), (0, -1), (9, 8)])
def test_what_does_not_fit_into_sixteen_bits_is_refused(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="PSID"):
        PortParams(offset, length)


def test_a_full_address_has_every_port() -> None:
    assert list(FULL_ADDRESS.port_ranges(0)) == [range(65536)]
    assert FULL_ADDRESS.psid_of(0) == FULL_ADDRESS.psid_of(65535) == 0
