"""ryu-lw4o6: a lightweight 4over6 border relay (lwAFTR, RFC 7596) on Open vSwitch."""

__version__ = "0.1.0"
