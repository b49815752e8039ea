"""The PCP server as a function: every answer, and what changes by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core import pcp
from ryu_lw4o6.core.binding import Binding, BindingKey, Origin, Prefix
from ryu_lw4o6.core.pcp import Filter, Opcode, Options, PortSet, Refused, Request, Result
from ryu_lw4o6.core.pcp_server import Served, Subscriber, check, serve
from ryu_lw4o6.core.pool import AddressPool, AddressRange
from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams
from ryu_lw4o6.core.settings import Pcp

B4 = IPv4Address("192.0.0.2")
LWB4 = IPv6Address("2001:db8:b4::1")
SHARED = Prefix(IPv4Network("192.0.2.0/24"), PortParams(0, 6))
WHOLE = Prefix(IPv4Network("203.0.113.0/24"), FULL_ADDRESS)
ADDRESS = IPv4Address("192.0.2.1")
TERMS = Pcp(
    (AddressRange(ADDRESS, IPv4Address("192.0.2.2"), SHARED),),
    min_lifetime=120,
    max_lifetime=7200,
    mappings=4,
)
NONCE = bytes(range(12))
OTHER = bytes(12)
NOW = 1_000_000.0
TCP, UDP = 6, 17
STATIC = Binding(LWB4, ADDRESS, 9, SHARED.params, origin=Origin.STATIC)  # ports 9216-10239


def map_request(
    lifetime: int = 3600,
    protocol: int = UDP,
    internal: int = 4096,
    external: int = 0,
    address: str = "0.0.0.0",
    nonce: bytes = NONCE,
    size: int = 0,
    **options: Any,
) -> Request:
    if size:
        options["port_set"] = PortSet(size, internal)
    suggested = IPv6Address(address) if ":" in address else IPv4Address(address)
    mapping = pcp.Mapping(nonce, protocol, internal, external, suggested)
    return Request(Opcode.MAP, B4, lifetime, mapping, Options(**options))


SET = map_request(size=1024)


class Server:
    """Serves requests one after the other, as the service does, without a store."""

    def __init__(self, terms: Pcp = TERMS, bindings: Sequence[Binding] = ()) -> None:
        self.terms = terms
        self.pool = AddressPool(terms.pool, system_ports=terms.system_ports)
        self.subscribers: dict[IPv6Address, Subscriber] = {}
        for binding in bindings:
            self.subscribers[binding.lwb4] = Subscriber(binding.lwb4, binding)
            self.pool.mark(binding.key, True)

    def __call__(
        self,
        request: Request,
        lwb4: IPv6Address = LWB4,
        at: float = 0,
        br: IPv6Address | None = None,
    ) -> Served:
        check(request, B4)
        before = self.subscribers.get(lwb4, Subscriber(lwb4))
        served = serve(before, request, br, self.terms, self.pool, NOW + at, 77)
        self.subscribers[lwb4] = served.after
        for subscriber, taken in ((before, False), (served.after, True)):
            if subscriber.binding is not None:
                self.pool.mark(subscriber.binding.key, taken)
        return served

    def refusal(self, request: Request, **more: Any) -> tuple[Result, int]:
        """How a request is refused, and that nothing changes by it."""
        before, used = dict(self.subscribers), self.pool.used
        with pytest.raises(Refused) as refused:
            self(request, **more)
        assert (self.subscribers, self.pool.used) == (before, used)
        return refused.value.result, refused.value.lifetime


def assigned(served: Served) -> tuple[str, int, int]:
    """External address, first external port, and number of ports of an answer."""
    mapping, port_set = served.response.mapping, served.response.options.port_set
    assert served.response.result is Result.SUCCESS
    assert mapping is not None
    if port_set is not None:
        assert port_set.first_internal_port == mapping.external_port
    return str(mapping.external_address), mapping.external_port, port_set.size if port_set else 1


def test_a_port_set_becomes_a_binding() -> None:
    served = Server()(SET)
    binding = served.after.binding
    assert binding is not None
    ports = next(binding.params.port_ranges(binding.psid))
    assert assigned(served) == (str(binding.ipv4), ports.start, 1024)
    assert (binding.lwb4, binding.origin, binding.expires_at) == (LWB4, Origin.PCP, NOW + 3600)
    assert (served.response.lifetime, served.response.epoch) == (3600, 77)
    mapping = served.response.mapping
    assert mapping is not None
    assert (mapping.nonce, mapping.protocol, mapping.internal_port) == (NONCE, UDP, 4096)


@pytest.mark.parametrize(
    ("asked", "granted"), [(1, 120), (120, 120), (7201, 7200), (1 << 31, 7200)]
)
def test_lifetimes_are_kept_within_bounds(asked: int, granted: int) -> None:
    served = Server()(map_request(asked, size=1024))
    assert served.response.lifetime == granted
    assert served.after.binding is not None
    assert served.after.binding.expires_at == NOW + granted


@pytest.mark.parametrize(
    ("size", "granted"), [(64, 64), (1024, 1024), (0xFFFF, 1024), (2, 2), (1, 1), (0, 1)]
)
def test_never_more_ports_than_asked_for(size: int, granted: int) -> None:
    served = Server()(map_request(size=size))
    assert assigned(served)[2] == granted
    assert (served.response.options.port_set is None) == (granted == 1)


def test_a_full_address_is_all_ports_but_the_one_that_does_not_exist() -> None:
    terms = replace(TERMS, pool=(AddressRange(WHOLE.network[7], WHOLE.network[7], WHOLE),))
    assert assigned(Server(terms)(map_request(size=0xFFFF))) == ("203.0.113.7", 1, 65535)


def test_all_protocols_may_share_a_set() -> None:
    server = Server()
    everything = server(map_request(protocol=0, internal=0, size=1024))
    for protocol in (TCP, UDP):
        served = server(map_request(protocol=protocol, size=1024))
        assert assigned(served) == assigned(everything)
        assert served.after.binding is not None
    assert len(server.subscribers[LWB4].mappings) == 3
    assert server.pool.used == 1


def test_renewal_extends_and_keeps_the_set() -> None:
    server = Server()
    first = server(SET)
    again = server(replace(SET, lifetime=600), at=3000)
    assert assigned(again) == assigned(first)
    assert again.after.binding is not None
    assert again.after.binding.expires_at == NOW + 3600
    suggestion = map_request(size=1024, external=2048, address="192.0.2.2")
    assert assigned(server(suggestion, at=3000)) == assigned(first)


def test_a_renewal_need_not_say_that_it_is_of_a_port_set() -> None:
    """RFC 7753 section 4.4.1: it is renewed as one, and told as one."""
    server = Server()
    first = server(SET)
    again = server(map_request(7200), at=60)
    assert assigned(again) == assigned(first)
    assert [m.size for m in again.after.mappings] == [1024]
    assert [m.expires_at for m in again.after.mappings] == [NOW + 60 + 7200]


def test_a_binding_that_is_over_but_not_yet_removed_is_had_again() -> None:
    server = Server()
    first = server(SET)
    again = server(replace(SET, mapping=replace(SET.mapping, nonce=OTHER)), at=3601)  # type: ignore[type-var]
    assert assigned(again) == assigned(first)


def test_the_same_lwb4_gets_the_same_set_from_an_empty_server() -> None:
    assert assigned(Server()(SET)) == assigned(Server()(SET))


def test_a_suggestion_is_followed_where_it_can_be() -> None:
    server = Server()
    wanted = map_request(size=1024, external=5120, address="192.0.2.2")
    assert assigned(server(wanted)) == ("192.0.2.2", 5120, 1024)
    other = server(wanted, lwb4=IPv6Address("2001:db8:b4::2"))
    assert assigned(other) != ("192.0.2.2", 5120, 1024)
    within = map_request(size=1024, external=7000, address="192.0.2.2")
    assert assigned(server(within, lwb4=IPv6Address("2001:db8:b4::3"))) == ("192.0.2.2", 6144, 1024)


@pytest.mark.parametrize(
    "request_",
    [
        map_request(external=5120, address="192.0.2.2"),  # somebody has it
        map_request(external=5120, address="192.0.2.9"),  # not of the pool
        map_request(external=6144, address="2001:db8::1"),
        map_request(external=80, address="192.0.2.2"),
        map_request(external=5351, address="192.0.2.1"),  # PCP's own
    ],
)
def test_prefer_failure(request_: Request) -> None:
    server = Server()
    server(map_request(size=1024, external=5120, address="192.0.2.2"), IPv6Address("2001:db8::9"))
    strict = replace(request_, options=replace(request_.options, prefer_failure=True))
    assert server.refusal(strict) == (Result.CANNOT_PROVIDE_EXTERNAL, 30)
    assert server(request_).response.result is Result.SUCCESS


def test_prefer_failure_that_can_be_met() -> None:
    server = Server()
    asked = map_request(external=6150, address="192.0.2.2", prefer_failure=True)
    served = server(asked)
    assert assigned(served) == ("192.0.2.2", 6150, 1)
    assert served.response.options.prefer_failure
    assert server(asked, at=5).response.result is Result.SUCCESS
    moved = map_request(external=6151, address="192.0.2.2", prefer_failure=True)
    assert server.refusal(moved) == (Result.CANNOT_PROVIDE_EXTERNAL, 30)


def test_nobody_gets_the_udp_ports_of_pcp_itself() -> None:
    """RFC 6887 section 11.3. They are in the set, 5120 to 6143, and TCP has them."""
    server = Server(bindings=[replace(STATIC, psid=5)])
    for port in (5350, 5351):
        assert assigned(server(map_request(protocol=TCP, internal=port)))[1] == port
    assert assigned(server(map_request(internal=5350)))[1] == 5120
    assert assigned(server(map_request(internal=80, external=5351)))[1] == 5121


def test_the_nonce_is_checked() -> None:
    server = Server()
    server(SET)
    thief = map_request(size=1024, nonce=OTHER)
    assert server.refusal(thief, at=600.5) == (Result.NOT_AUTHORIZED, 3000)
    assert server.refusal(replace(thief, lifetime=0), at=600.5) == (Result.NOT_AUTHORIZED, 3000)
    everything = map_request(0, protocol=0, internal=0, nonce=OTHER)
    assert server.refusal(everything) == (Result.NOT_AUTHORIZED, 3600)
    # An lwB4 that has lost its nonce takes another internal port, and has its set again.
    assert assigned(server(map_request(size=1024, internal=5000, nonce=OTHER)))[2] == 1024


def test_deletion() -> None:
    server = Server()
    server(SET)
    single = map_request(protocol=TCP, internal=6881)
    server(single)
    served = server(replace(SET, lifetime=0))
    assert (served.response.lifetime, served.response.options) == (0, SET.options)
    assert served.after.binding is not None  # the other mapping is in it
    again = server(replace(SET, lifetime=0))
    assert again == served
    assert server(replace(single, lifetime=0)).after == Subscriber(LWB4)
    assert server.pool.used == 0
    assert server(replace(single, lifetime=0)).response.result is Result.SUCCESS


def test_deletion_of_everything() -> None:
    server = Server()
    for protocol in (TCP, UDP):
        for internal in (1, 2):
            server(map_request(protocol=protocol, internal=internal))
    left = server(map_request(0, protocol=UDP, internal=0)).after.mappings
    assert {m.key for m in left} == {(TCP, 1), (TCP, 2)}
    assert server(map_request(0, protocol=0, internal=0)).after == Subscriber(LWB4)


def test_the_binding_lasts_as_long_as_the_last_mapping() -> None:
    server = Server()
    server(replace(SET, lifetime=1000))
    longer = map_request(7200, protocol=TCP, internal=80)
    binding = server(longer).after.binding
    assert binding is not None
    assert binding.expires_at == NOW + 7200
    binding = server(replace(longer, lifetime=0)).after.binding
    assert binding is not None
    assert binding.expires_at == NOW + 1000


def test_single_ports_are_of_the_subscribers_own_set() -> None:
    server = Server(bindings=[STATIC])
    assert assigned(server(map_request(internal=9300))) == ("192.0.2.1", 9300, 1)
    assert assigned(server(map_request(internal=80, external=9301))) == ("192.0.2.1", 9301, 1)
    assert assigned(server(map_request(internal=81, external=9301))) == ("192.0.2.1", 9216, 1)
    # TCP has ports of its own; and what is mapped stays as it is.
    assert assigned(server(map_request(protocol=TCP, internal=81))) == ("192.0.2.1", 9216, 1)
    assert assigned(server(map_request(internal=81, external=9999))) == ("192.0.2.1", 9216, 1)
    assert server.subscribers[LWB4].binding == STATIC


def test_a_single_port_makes_a_binding_first() -> None:
    server = Server()
    served = server(map_request(protocol=TCP, internal=6881))
    binding = served.after.binding
    assert binding is not None
    ports = next(binding.params.port_ranges(binding.psid))
    assert assigned(served) == (str(binding.ipv4), ports.start, 1)
    assert binding.expires_at == NOW + 3600
    assert assigned(server(SET))[0] == str(binding.ipv4)


def test_a_binding_that_others_made_is_told_but_not_changed() -> None:
    ends = replace(STATIC, origin=Origin.REST, expires_at=NOW + 500.5)
    server = Server(bindings=[ends])
    served = server(SET)
    assert assigned(served) == ("192.0.2.1", 9216, 1024)
    assert served.response.lifetime == 500  # 2^32 - 1 if it had no end, says RFC 6887 section 11.3
    assert Server(bindings=[STATIC])(SET).response.lifetime == 0xFFFFFFFF
    assert served.after == Subscriber(LWB4, ends)
    assert server.refusal(replace(SET, lifetime=0)) == (Result.NOT_AUTHORIZED, 1800)
    single = server(map_request())
    assert single.response.lifetime == 500
    assert server(map_request(0)).after == Subscriber(LWB4, ends)
    server(SET, at=501)  # it is over: another one is made
    renewed = server.subscribers[LWB4].binding
    assert renewed is not None
    assert renewed.origin is Origin.PCP


def test_a_set_with_a_psid_offset_is_told_by_its_first_range() -> None:
    offset = Binding(LWB4, ADDRESS, 3, PortParams(6, 6), origin=Origin.STATIC)
    assert assigned(Server(bindings=[offset])(SET)) == ("192.0.2.1", 1024 + 48, 16)


def test_the_softwire_ends_where_the_request_was_sent() -> None:
    server = Server()
    other = IPv6Address("2001:db8:ffff::2")
    assert server(SET, br=other).after.binding.br_address == other  # type: ignore[union-attr]
    assert server(SET).after.binding.br_address is None  # type: ignore[union-attr]
    server = Server(bindings=[STATIC])
    assert server.refusal(SET, br=other) == (Result.NOT_AUTHORIZED, 1800)


def test_quota_and_an_empty_pool() -> None:
    server = Server()
    for internal in range(1, 5):
        server(map_request(internal=internal))
    assert server.refusal(map_request(internal=5)) == (Result.USER_EX_QUOTA, 30)
    assert server(map_request(internal=4)).response.result is Result.SUCCESS
    empty = Server(replace(TERMS, pool=()))
    assert empty.refusal(SET) == (Result.NO_RESOURCES, 30)


def test_every_port_of_a_set_can_be_mapped_once() -> None:
    tiny = Binding(LWB4, ADDRESS, 700, PortParams(0, 14), origin=Origin.STATIC)  # 2800-2803
    server = Server(replace(TERMS, mappings=9), [tiny])
    found = {assigned(server(map_request(internal=internal)))[1] for internal in range(1, 5)}
    assert found == {2800, 2801, 2802, 2803}
    assert server.refusal(map_request(internal=5)) == (Result.NO_RESOURCES, 30)


@pytest.mark.parametrize(
    ("request_", "result"),
    [
        (replace(SET, client=IPv4Address("192.0.2.1")), Result.ADDRESS_MISMATCH),
        (Request(Opcode.ANNOUNCE, IPv6Address("::1")), Result.ADDRESS_MISMATCH),
        (map_request(third_party=B4), Result.UNSUPP_OPTION),
        (map_request(third_party=IPv4Address("192.168.1.2"), size=9), Result.UNSUPP_OPTION),
        (map_request(protocol=132), Result.UNSUPP_PROTOCOL),
        (map_request(protocol=132, size=1024), Result.UNSUPP_PROTOCOL),
        (map_request(protocol=0, internal=0), Result.UNSUPP_PROTOCOL),
        (map_request(protocol=0, internal=0, size=1), Result.UNSUPP_PROTOCOL),
        (map_request(internal=0), Result.UNSUPP_PROTOCOL),
        (map_request(filters=(Filter(128, 53, B4),)), Result.EXCESSIVE_REMOTE_PEERS),
    ],
)
def test_refused_whoever_asks(request_: Request, result: Result) -> None:
    assert Server().refusal(request_) == (result, 1800)


def test_a_filter_for_everybody_is_none() -> None:
    anybody = Filter(0, 0, pcp.ANY_IPV4)
    served = Server()(map_request(size=1024, filters=(anybody,)))
    assert served.response.options.filters == (anybody,)


requests = st.builds(
    map_request,
    st.sampled_from([0, 60, 300, 5000]),
    st.sampled_from([TCP, UDP]),
    st.integers(1, 3),
    st.integers(0, 0xFFFF),
    st.sampled_from(["0.0.0.0", "192.0.2.1", "192.0.2.2", "192.0.2.77", "2001:db8::1"]),
    st.sampled_from([NONCE, OTHER]),
    st.sampled_from([0, 1, 2, 100, 1024, 0xFFFF]),
)


@given(st.lists(st.tuples(requests, st.integers(1, 140), st.integers(0, 400)), max_size=60))
def test_no_port_is_given_to_two_and_a_replay_changes_nothing(
    steps: list[tuple[Request, int, int]],
) -> None:
    server = Server()  # 126 sets, and more lwB4s than that
    now = 0
    for request, host, passed in steps:
        now += passed
        lwb4 = IPv6Address(f"2001:db8:b4::{host:x}")
        try:
            served = server(request, lwb4, now)
        except Refused:
            continue
        assert server(request, lwb4, now) == served
        owners: dict[BindingKey, IPv6Address] = {}
        for subscriber in server.subscribers.values():
            binding = subscriber.binding
            if binding is None:
                assert not subscriber.mappings
                continue
            assert owners.setdefault(binding.key, subscriber.lwb4) == subscriber.lwb4
            ranges = list(binding.params.port_ranges(binding.psid))
            singles = [m for m in subscriber.mappings if m.size == 1]
            for m in subscriber.mappings:
                assert m.external_address == binding.ipv4
                assert any(
                    m.external_port in r and m.external_port + m.size <= r.stop for r in ranges
                )
                assert binding.expires_at is not None
                assert m.expires_at <= binding.expires_at
            assert len({(m.protocol, m.external_port) for m in singles}) == len(singles)
            assert len(subscriber.mappings) <= TERMS.mappings
        assert server.pool.used == len(owners)
