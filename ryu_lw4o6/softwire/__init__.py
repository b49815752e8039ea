"""The softwire shim: RFC 2473 IPv4-in-IPv6 on the wire, GRE over IPv6 for Open vSwitch."""
