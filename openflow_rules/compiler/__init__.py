"""From an instance's configuration to its flows. Pure: the same arguments give the same flows.

``pipeline`` gives what every packet passes, some dozens of flows, made by one module for each
stage; ``bindings`` the shape of the two flows that each binding adds.
"""

from __future__ import annotations

from openflow_rules.compiler.answer import answer_flows
from openflow_rules.compiler.arp import arp_flows
from openflow_rules.compiler.bindings import downstream_miss_flows, upstream_miss_flows
from openflow_rules.compiler.classify import classify_flows
from openflow_rules.compiler.filters import filter_flows
from openflow_rules.compiler.forward import downstream_output_flows, upstream_route_flows
from openflow_rules.compiler.parts import Ports
from openflow_rules.compiler.pcp import pcp_flows
from openflow_rules.compiler.port_set import port_set_flows
from openflow_rules.compiler.unknown import IPV4, LWB4, unknown_flows
from openflow_rules.flow import Flow
from openflow_rules.tables import check
from ryu_lw4o6.core.settings import Failover, Instance


def pipeline(instance: Instance, ports: Ports, next_hop_mac: str | None) -> list[Flow]:
    """All flows of ``instance`` but those of its bindings.

    ``next_hop_mac`` is None while the IPv4 next hop is not resolved: what would be sent to it is
    dropped and counted. Raises PipelineError if a flow breaks its table's declaration.
    """
    flows = [
        *classify_flows(instance, ports),
        *filter_flows(instance),
        *pcp_flows(instance),
        *port_set_flows(instance, ports, upstream=True),
        *upstream_miss_flows(instance),
        *upstream_route_flows(instance, ports, next_hop_mac),
        *port_set_flows(instance, ports, upstream=False),
        *downstream_miss_flows(instance),
        *downstream_output_flows(instance, ports),
        *arp_flows(instance, ports),
    ]
    if instance.failover is not Failover.NONE:
        flows += unknown_flows(LWB4, validates=instance.failover.validates)
    if instance.failover.validates:
        flows += unknown_flows(IPV4, validates=True)
    elif instance.failover.needs_no_question:
        flows += answer_flows(instance)
    return [check(flow) for flow in flows]
