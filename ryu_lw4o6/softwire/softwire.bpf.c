// SPDX-License-Identifier: GPL-2.0-only
/*
 * The softwire shim: RFC 2473 IPv4-in-IPv6 on the wire, GRE over IPv6 for Open vSwitch.
 *
 * Open vSwitch has no IPv4-in-IPv6 port, but it has GRE over IPv6, which differs by 18 bytes:
 *
 *   wire          [eth 14][IPv6 40, next header 4 ]                          [IPv4 ...]
 *   Open vSwitch  [eth 14][IPv6 40, next header 47][GRE 4][inner Ethernet 14][IPv4 ...]
 *
 * Nothing per subscriber is kept here, but when an lwB4 was last told that it has no binding. The
 * inner Ethernet header, which never reaches the wire, carries what OpenFlow cannot see or Open
 * vSwitch cannot set:
 *
 *   eth_src  towards the rules, and the controller, as a number of 48 bits:
 *              0-15   ICMP and later fragments: the port on the source's side (the identifier of
 *                     an echo; of an error, the port of the packet it quotes; of a fragment, the
 *                     port of its packet's first)
 *              16-31  ICMP errors and later fragments: the port on the destination's side. Others:
 *                     bits 0-15 of the outer flow label
 *              32-35  bits 16-19 of the outer flow label
 *              36-37, 41, 43-47
 *                     the outer hop limit, from its bit 0 upwards
 *              38     an ICMP echo; with bit 39, a later fragment of a protocol without ports, or
 *                     an ICMP error about one
 *              39     ICMP that names no port; a later fragment whose packet's first has not come;
 *                     a first fragment that others have come before
 *              42     more than a softwire carries whole, and may not be fragmented
 *   eth_dst  02:4b:00:0A:0L:CC   towards the rules: bit 0 of A says that the shim answers the lwB4
 *                                if they refuse the packet, bit 1 that it does not now. Towards the
 *                                controller: L is 1 if there was an encapsulation limit, CC the
 *                                outer traffic class. The datapath's flows tell eth_dst apart, and
 *                                the traffic class anyway, but not the rest of the outer header:
 *                                that has to go where no rule looks.
 *   eth_dst  02:4b:TT:TT:TT:TT   from the rules: CRC-32 of the br-address, which becomes the outer
 *                                source address.
 *            or, of a packet that the rules refuse: 7 bits that are 3, the 32 of the same CRC, and
 *                                L and CC as above. It leaves as an ICMPv6 error about itself.
 *
 * The traffic class is copied outwards, and congestion inwards, as RFC 6040 wants: Open vSwitch does
 * it by the older RFC 3168, and drops without counting.
 *
 * On the IPv4 side eth_src is written in the same way, without the outer header, and the NIC's own
 * address put there on the way out. Both sides may share a NIC: packets are told apart by their
 * Ethernet type. VLAN tags are taken off and put on here.
 */
#include "shim.h"
#include "mark.h"
#include "crowd.h"
#include "answer.h"
#include "decapsulate.h"
#include "encapsulate.h"

/* Ingress: what arrives in a softwire becomes what Open vSwitch takes for GRE; IPv4 is marked. */
SEC("xdp") int softwire_in(struct xdp_md *ctx)
{
	switch (take_off_tag(ctx)) {
	case -1:
		return refuse(REFUSED_VLAN);
	case ETH_P_SNAP:
		return refuse(REFUSED_GRE_FROM_WIRE);
	case ETH_P_IPV6:
		return decapsulate(ctx);
	case ETH_P_IP:
		return mark_ipv4(ctx);
	}
	return XDP_PASS;
}

/* Egress: what Open vSwitch sends as GRE leaves as RFC 2473. */
SEC("tc") int softwire_out(struct __sk_buff *skb)
{
	const struct settings *own = get_settings();

	if (!own)
		return TC_ACT_OK;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IPV6):
		return encapsulate(skb, own);
	case bpf_htons(ETH_P_IP):
		return restore_source(skb, own);
	}
	return leave(skb, own->ipv4_vlan);
}

/*
 * Ingress, userspace datapath only: Open vSwitch has its copy of the frame by now, and the kernel
 * would answer it as well (to GRE with an ICMPv6 parameter problem).
 */
SEC("tc") int hide(struct __sk_buff *skb)
{
	count(HIDDEN_FROM_KERNEL);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
