// SPDX-License-Identifier: GPL-2.0-only
/*
 * The softwire shim: RFC 2473 IPv4-in-IPv6 on the wire, GRE over IPv6 for Open vSwitch.
 *
 * Open vSwitch has no IPv4-in-IPv6 port, but it has GRE over IPv6, which differs by 18 bytes:
 *
 *   wire          [eth 14][IPv6 40, next header 4 ]                          [IPv4 ...]
 *   Open vSwitch  [eth 14][IPv6 40, next header 47][GRE 4][inner Ethernet 14][IPv4 ...]
 *
 * Nothing per subscriber is kept here. The inner Ethernet header, which never reaches the wire,
 * carries what OpenFlow cannot see or Open vSwitch cannot set:
 *
 *   eth_src  02:4b:DD:DD:SS:SS   towards the rules. ICMP only: the port on the destination's side
 *                                and the port on the source's side (the identifier of an echo; of
 *                                an error, the ports of the packet it quotes). 02:4b:0:0:0:0 for
 *                                other protocols, 02:4c:0:0:0:0 for ICMP that names no port.
 *   eth_dst  02:4b:TT:TT:TT:TT   from the rules: CRC-32 of the br-address, which becomes the outer
 *                                source address.
 *
 * On the IPv4 side the same eth_src mark is written into ICMP frames that come in, and taken out of
 * frames that go out.
 */
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
#define GRE_ETHERNET bpf_htonl(0x00006558)
#define OPTIONS 8		/* the only length of destination options accepted */
#define ICMP_ECHOREPLY 0	/* RFC 792; <linux/icmp.h> needs headers of the host */
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define NO_PORTS 0x100000000ULL	/* bit 32 turns the mark 02:4b into 02:4c below */

/* The order is that of COUNTERS in shim.py. */
enum counter {
	TRANSLATED_IN,
	TRANSLATED_OUT,
	PASSED_IN,
	OPTIONS_STRIPPED,
	REFUSED_GRE_FROM_WIRE,
	REFUSED_NOT_IPV4,
	REFUSED_TRUNCATED,
	REFUSED_OPTIONS,
	REFUSED_UNKNOWN_BR_TAG,
	REFUSED_NO_ROOM,
	ICMP_MARKED,
	SOURCE_RESTORED,
	HIDDEN_FROM_KERNEL,
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

/* `digest` says what loaded this, so that a newer source is told from the one that runs. */
struct settings {
	__u8 ipv4_mac[8];	/* the IPv4 NIC's own MAC address, and padding */
	__u8 digest[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

static __always_inline void count(enum counter which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		(*value)++;
}

static __always_inline int refuse(enum counter why)
{
	count(why);
	return XDP_DROP;
}

static __always_inline __u32 read16(const __u8 *at)
{
	return at[0] << 8 | at[1];
}

/* Is a fragment, but not the first of its packet. */
static __always_inline int later_fragment(const __u8 *ip)
{
	return (ip[6] & 0x1f) || ip[7];
}

/*
 * The ports that an ICMPv4 packet at `ip` speaks for, destination's side << 16 | source's side
 * (RFC 7596 section 8.1, RFC 5508 REQ-3), or NO_PORTS.
 */
static __always_inline __u64 icmp_ports(const __u8 *ip, const void *end)
{
	__u32 length, quoted_length, id;
	const __u8 *icmp, *quoted, *upper;

	if ((const void *)(ip + 20) > end || later_fragment(ip))
		return NO_PORTS;
	length = (ip[0] & 0xf) * 4;
	if (length < 20)
		return NO_PORTS;
	icmp = ip + length;
	if ((const void *)(icmp + 8) > end)
		return NO_PORTS;
	switch (icmp[0]) {
	case ICMP_ECHO:
	case ICMP_ECHOREPLY:
		id = read16(icmp + 4);
		return id << 16 | id;
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETERPROB:
		break;
	default:
		return NO_PORTS;
	}
	quoted = icmp + 8;
	if ((const void *)(quoted + 20) > end || quoted[0] >> 4 != 4 || later_fragment(quoted))
		return NO_PORTS;
	quoted_length = (quoted[0] & 0xf) * 4;
	if (quoted_length < 20)
		return NO_PORTS;
	upper = quoted + quoted_length;
	if ((const void *)(upper + 8) > end)
		return NO_PORTS;
	switch (quoted[9]) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_DCCP:
	case IPPROTO_SCTP:
	case IPPROTO_UDPLITE:
		/* The quoted packet went the other way: its source is our destination. */
		return read16(upper) << 16 | read16(upper + 2);
	case IPPROTO_ICMP:
		if (upper[0] != ICMP_ECHO && upper[0] != ICMP_ECHOREPLY)
			return NO_PORTS;
		id = read16(upper + 4);
		return id << 16 | id;
	}
	return NO_PORTS;
}

static __always_inline void write_ports(__u8 *mac, __u64 ports)
{
	mac[0] = 0x02;
	mac[1] = ports & NO_PORTS ? 0x4c : 0x4b;
	mac[2] = ports >> 24;
	mac[3] = ports >> 16;
	mac[4] = ports >> 8;
	mac[5] = ports;
}

/*
 * Destination options before an IPv4 packet: accepted when 8 bytes long and made of options that
 * a node may skip (RFC 8200 section 4.2), such as the encapsulation limit (RFC 2473 section 4.1.1)
 * and padding. `options` has OPTIONS bytes.
 */
static __always_inline int options_acceptable(const __u8 *options)
{
	__u32 skip = 0, length_next = 0;

	if (options[0] != IPPROTO_IPIP || options[1] != 0)
		return 0;
#pragma unroll
	for (int at = 2; at < OPTIONS; at++) {
		if (skip) {
			skip--;
		} else if (length_next) {
			skip = options[at];
			length_next = 0;
		} else {
			if (options[at] >> 6)
				return 0;
			length_next = options[at] != 0;	/* 0 is Pad1, a single byte */
		}
	}
	return !skip && !length_next;
}

/* IPv6 NIC, ingress: what arrives in a softwire becomes what Open vSwitch takes for GRE. */
SEC("xdp") int softwire_in(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	__u32 payload, total, header;
	__u64 ports = 0;
	__u8 *ip, *gre;

	if (data + INNER > end || eth->h_proto != bpf_htons(ETH_P_IPV6))
		return XDP_PASS;
	if (ip6->nexthdr != IPPROTO_IPIP && ip6->nexthdr != IPPROTO_DSTOPTS &&
	    ip6->nexthdr != IPPROTO_GRE)
		return XDP_PASS;
	if (!bpf_map_lookup_elem(&aftr_addresses, &ip6->daddr)) {
		count(PASSED_IN);
		return XDP_PASS;
	}
	if (ip6->nexthdr == IPPROTO_GRE)	/* Open vSwitch would take it for one of ours */
		return refuse(REFUSED_GRE_FROM_WIRE);

	payload = bpf_ntohs(ip6->payload_len);
	if (ip6->nexthdr == IPPROTO_DSTOPTS) {
		__u8 *options = data + INNER;

		if ((void *)(options + OPTIONS) > end || payload < OPTIONS)
			return refuse(REFUSED_TRUNCATED);
		if (options[0] != IPPROTO_IPIP) {	/* not a softwire packet */
			count(PASSED_IN);
			return XDP_PASS;
		}
		if (!options_acceptable(options))
			return refuse(REFUSED_OPTIONS);
		payload -= OPTIONS;
		ip6->payload_len = bpf_htons(payload);
		ip6->nexthdr = IPPROTO_IPIP;
		__builtin_memmove(data + OPTIONS, data, INNER);
		if (bpf_xdp_adjust_head(ctx, OPTIONS))
			return refuse(REFUSED_NO_ROOM);
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
		count(OPTIONS_STRIPPED);
	}

	ip = data + INNER;
	if ((void *)(ip + 20) > end || payload < 20)
		return refuse(REFUSED_TRUNCATED);
	if (ip[0] >> 4 != 4)
		return refuse(REFUSED_NOT_IPV4);
	header = (ip[0] & 0xf) * 4;
	total = read16(ip + 2);
	if (header < 20 || total < header || total > payload || (__u32)(end - (void *)ip) < payload)
		return refuse(REFUSED_TRUNCATED);
	if (ip[9] == IPPROTO_ICMP)
		ports = icmp_ports(ip, end);

	if (bpf_xdp_adjust_head(ctx, -ADDED))
		return refuse(REFUSED_NO_ROOM);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + INNER + ADDED > end)
		return refuse(REFUSED_NO_ROOM);
	__builtin_memmove(data, data + ADDED, INNER);
	ip6 = data + ETH_HLEN;
	ip6->nexthdr = IPPROTO_GRE;
	ip6->payload_len = bpf_htons(payload + ADDED);
	gre = data + INNER;
	*(__u32 *)gre = GRE_ETHERNET;
	gre[4] = 0x02;
	gre[5] = 0x4b;
	gre[6] = gre[7] = gre[8] = 0;
	gre[9] = 1;
	write_ports(gre + 10, ports);
	gre[16] = 0x08;
	gre[17] = 0x00;
	count(TRANSLATED_IN);
	return XDP_PASS;
}

/* IPv6 NIC, egress: what Open vSwitch sends as GRE leaves as RFC 2473. */
SEC("tc") int softwire_out(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct in6_addr *source;
	struct ipv6hdr *ip6;
	__be16 length;
	__u32 tag;
	__u8 *gre;

	if (skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_OK;
	if (data + INNER + ADDED > end) {
		if (skb->len < INNER + ADDED || bpf_skb_pull_data(skb, INNER + ADDED))
			return TC_ACT_OK;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + INNER + ADDED > end)
			return TC_ACT_OK;
	}
	ip6 = data + ETH_HLEN;
	gre = data + INNER;
	if (ip6->nexthdr != IPPROTO_GRE || *(__u32 *)gre != GRE_ETHERNET ||
	    gre[4] != 0x02 || gre[5] != 0x4b)
		return TC_ACT_OK;
	tag = read16(gre + 6) << 16 | read16(gre + 8);
	source = bpf_map_lookup_elem(&br_addresses, &tag);
	if (!source) {
		count(REFUSED_UNKNOWN_BR_TAG);
		return TC_ACT_SHOT;
	}
	length = bpf_htons(bpf_ntohs(ip6->payload_len) - ADDED);
	if (bpf_skb_adjust_room(skb, -ADDED, BPF_ADJ_ROOM_NET, 0)) {
		count(REFUSED_NO_ROOM);
		return TC_ACT_SHOT;
	}
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + INNER > end) {
		count(REFUSED_NO_ROOM);
		return TC_ACT_SHOT;
	}
	ip6 = data + ETH_HLEN;
	ip6->payload_len = length;
	ip6->nexthdr = IPPROTO_IPIP;
	ip6->saddr = *source;
	count(TRANSLATED_OUT);
	return TC_ACT_OK;
}

/* IPv4 NIC, ingress: show the rules which port an ICMP packet is about. */
SEC("xdp") int ipv4_in(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u8 *ip = data + ETH_HLEN;

	if (data + ETH_HLEN + 20 > end || eth->h_proto != bpf_htons(ETH_P_IP) ||
	    ip[9] != IPPROTO_ICMP)
		return XDP_PASS;
	write_ports(eth->h_source, icmp_ports(ip, end));
	count(ICMP_MARKED);
	return XDP_PASS;
}

/* IPv4 NIC, egress: what came out of a softwire leaves with the NIC's own source address. */
SEC("tc") int ipv4_out(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct settings *own;
	__u32 key = 0;

	if (data + ETH_HLEN > end || eth->h_source[0] != 0x02 ||
	    (eth->h_source[1] != 0x4b && eth->h_source[1] != 0x4c))
		return TC_ACT_OK;
	own = bpf_map_lookup_elem(&settings, &key);
	if (!own)
		return TC_ACT_OK;
	__builtin_memcpy(eth->h_source, own->ipv4_mac, ETH_ALEN);
	count(SOURCE_RESTORED);
	return TC_ACT_OK;
}

/*
 * Both NICs, ingress, userspace datapath only: Open vSwitch has its copy of the frame by now, and
 * the kernel would answer it as well (to GRE with an ICMPv6 parameter problem).
 */
SEC("tc") int hide(struct __sk_buff *skb)
{
	count(HIDDEN_FROM_KERNEL);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
