#!/usr/bin/env bash
# Inside the virtual machine, as root: the demo of one lwAFTR on the kernel datapath, and what real hosts see.
set -euo pipefail
export LW4O6_LAB_PATIENCE=6 # the machine may be emulated

for module in openvswitch vport-gre ip6_tunnel cls_bpf sch_ingress nft_masq; do
    modprobe "$module"
done
(($#)) || set -- demo conformance
for part; do
    case $part in
    demo) .venv/bin/lw4o6-lab demo --datapath system --tunnel ipip6 --without-failover ;;
    conformance) .venv/bin/python -m tests.kernel_rig.conformance ;;
    *) echo "there is no part $part, only demo and conformance" >&2; exit 2 ;;
    esac
done
