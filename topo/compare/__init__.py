"""The comparison of the failover mechanisms, measured: the table of the slides, with figures."""
