"""From flows, packets and requests to OpenFlow 1.3 messages, and back."""

from __future__ import annotations

from openflow_rules.encode.bindings import (
    BindingEncoder,
    quiet,
    quiet_lwb4,
)
from openflow_rules.encode.control import (
    BUNDLE_COMMIT,
    BUNDLE_OPEN,
    barrier,
    bundle_control,
    in_bundle,
    match_fragments,
)
from openflow_rules.encode.flows import (
    add_flow,
    canonical_flow,
    delete_flow,
    table_of,
    with_xid,
)
from openflow_rules.encode.meters import (
    MeterStats,
    meter_rates,
    meter_rates_request,
    meter_stats,
    meter_stats_request,
    set_meter,
)
from openflow_rules.encode.packets import (
    PipelineFields,
    from_controller,
    into_softwire,
    packet_out,
    pipeline_fields,
    reinject,
    send_on,
)
from openflow_rules.encode.stats import (
    FlowStats,
    flow_stats_entries,
    flow_stats_request,
    next_hop_mac,
    table_stats_entries,
    table_stats_request,
)

__all__ = [
    "BUNDLE_COMMIT",
    "BUNDLE_OPEN",
    "BindingEncoder",
    "FlowStats",
    "MeterStats",
    "PipelineFields",
    "add_flow",
    "barrier",
    "bundle_control",
    "canonical_flow",
    "delete_flow",
    "flow_stats_entries",
    "flow_stats_request",
    "from_controller",
    "in_bundle",
    "into_softwire",
    "match_fragments",
    "meter_rates",
    "meter_rates_request",
    "meter_stats",
    "meter_stats_request",
    "next_hop_mac",
    "packet_out",
    "pipeline_fields",
    "quiet",
    "quiet_lwb4",
    "reinject",
    "send_on",
    "set_meter",
    "table_of",
    "table_stats_entries",
    "table_stats_request",
    "with_xid",
]
