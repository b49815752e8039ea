// SPDX-License-Identifier: GPL-2.0-only
/* The router's end of a tagged wire: VLAN6 for IPv6, VLAN4 for everything else, 0 for untagged. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

SEC("egress") int put_on(struct __sk_buff *skb)
{
	__u16 vlan = skb->protocol == bpf_htons(ETH_P_IPV6) ? VLAN6 : VLAN4;

	if (vlan && skb->protocol != bpf_htons(ETH_P_8021Q))
		bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), vlan);
	return TC_ACT_OK;
}

SEC("ingress") int take_off(struct __sk_buff *skb)
{
	if (skb->vlan_present)
		bpf_skb_vlan_pop(skb);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
