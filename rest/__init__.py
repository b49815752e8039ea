"""The REST interface: a Ryu application beside ``ryu_lw4o6.app``."""
