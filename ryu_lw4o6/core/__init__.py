"""Plain Python: port sets, bindings, configuration. No Ryu, no sockets; time is an argument."""
