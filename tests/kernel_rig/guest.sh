#!/usr/bin/env bash
# Inside the virtual machine, as root: the whole demo on the kernel datapath.
set -euo pipefail
export LW4O6_LAB_PATIENCE=6 # the machine may be emulated

for module in openvswitch vport-gre ip6_tunnel cls_bpf sch_ingress nft_masq; do
    modprobe "$module"
done
.venv/bin/lw4o6-lab demo --datapath system --tunnel ipip6 --without-failover
