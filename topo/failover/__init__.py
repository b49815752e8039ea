"""The failover lab: two lwAFTRs behind one anycast address, routers that speak BGP, faults."""
