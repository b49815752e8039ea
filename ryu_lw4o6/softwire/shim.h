/* SPDX-License-Identifier: GPL-2.0-only */
/* What all parts of the shim share: its maps, its counters and how a packet is refused. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define INNER (ETH_HLEN + 40)	/* where the IPv4 packet starts on the wire */
#define ADDED 18		/* GRE and inner Ethernet header */
#define OPTIONS 8		/* the only length of destination options stripped here, not by the controller */
#define ANSWERS 1		/* bits of eth_dst, from 16 up */
#define NOT_NOW 2
#define GRE_ETHERNET bpf_htonl(0x00006558)

/* The order is that of COUNTERS in shim.py. */
enum counter {
	TRANSLATED_IN,
	TRANSLATED_OUT,
	PASSED_IN,
	OPTIONS_STRIPPED,
	REFUSED_GRE_FROM_WIRE,
	REFUSED_VLAN,
	REFUSED_NOT_IPV4,
	REFUSED_TRUNCATED,
	REFUSED_OPTIONS,
	REFUSED_ECN,
	REFUSED_UNKNOWN_BR_TAG,
	REFUSED_NO_ROOM,
	REFUSED_GSO,
	MARKED_IN,
	SOURCE_RESTORED,
	HIDDEN_FROM_KERNEL,
	FRAGMENTED_OUT,
	REFUSED_CHECKSUM,
	REFUSED_FRAGMENT,
	REFUSED_MARTIAN,
	ANSWERED,
	ANSWERED_BYTES,
	ANSWERED_LATELY,
	REFUSED_CROWD,
	COUNTERS
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* The addresses at which softwires end here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct in6_addr);
	__type(value, __u8);
} aftr_addresses SEC(".maps");

/* br-tag (host byte order) -> outer source address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct in6_addr);
} br_addresses SEC(".maps");

/*
 * The members from digest to clsact_made are notes of the loader to itself. They stay where they
 * are: a newer loader reads those of an older one.
 */
struct settings {
	__u8 ipv4_mac[6];	/* the IPv4 NIC's own MAC address */
	__u16 softwire_mtu;	/* the largest IPv4 packet that a softwire carries whole */
	__u8 digest[8];		/* tells the source that runs from a newer one */
	__u32 mtu_before;	/* of the IPv6 NIC */
	__u32 clsact_made;	/* the qdiscs to remove: bit 0 the IPv6 NIC's, bit 1 the IPv4 NIC's */
	__u16 ipv6_vlan;	/* the VLAN of each side, 0 for untagged */
	__u16 ipv4_vlan;
	__u16 hashed_labels;	/* whether softwire packets get flow labels (RFC 6438) */
	__u16 outer_dscp;	/* whether decapsulated packets get the outer DSCP (RFC 2983) */
	__u32 quiet_ms;		/* for how long an lwB4 that was told is not told again */
	__u32 error_hop_limit;	/* of ICMPv6 errors */
	__u32 ipv4_mtu;		/* of the wire towards the Internet */
	__u32 crowd;		/* packets in a window of lwB4s that are new, or were refused */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

static __always_inline const struct settings *get_settings(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&settings, &key);
}

static __always_inline void count_by(enum counter which, __u64 number)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		*value += number;
}

static __always_inline void count(enum counter which)
{
	count_by(which, 1);
}

static __always_inline int refuse(enum counter why)
{
	count(why);
	return XDP_DROP;
}

/* Not TC_ACT_SHOT: its ENOBUFS makes Open vSwitch give up the rest of the batch it is sending. */
static __always_inline int refuse_out(enum counter why)
{
	count(why);
	return TC_ACT_STOLEN;
}

static __always_inline int leave(struct __sk_buff *skb, __u32 vlan)
{
	if (vlan && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), vlan))
		return refuse_out(REFUSED_NO_ROOM);
	return TC_ACT_OK;
}

/* Whether it is GRE as Open vSwitch makes it. INNER + ADDED bytes are there. */
static __always_inline int is_gre(const void *data)
{
	const struct ethhdr *eth = data;
	const struct ipv6hdr *ip6 = data + ETH_HLEN;

	return eth->h_proto == bpf_htons(ETH_P_IPV6) && ip6->nexthdr == IPPROTO_GRE &&
	       *(__u32 *)(data + INNER) == GRE_ETHERNET;
}

static __always_inline __u32 read16(const __u8 *at)
{
	return at[0] << 8 | at[1];
}

static __always_inline int in_vlan(__u32 ethertype)
{
	return ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD;
}
