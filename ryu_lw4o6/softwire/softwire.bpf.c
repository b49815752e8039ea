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
 *   eth_src  towards the rules, and the controller, as a number of 48 bits:
 *              0-15   ICMP only: the port on the source's side (the identifier of an echo; of an
 *                     error, the port of the packet it quotes)
 *              16-31  ICMP errors: the port on the destination's side. Others: bits 0-15 of the
 *                     outer flow label
 *              32-35  bits 16-19 of the outer flow label
 *              36-37, 41, 43-47
 *                     the outer hop limit, from its bit 0 upwards
 *              38     an ICMP echo
 *              39     ICMP that names no port
 *              42     more than a softwire carries whole
 *   eth_dst  02:4b:00:00:0L:CC   towards the controller: L is 1 if there was an encapsulation limit,
 *                                CC the outer traffic class. The datapath's flows tell eth_dst
 *                                apart, and the traffic class anyway, but not the rest of the
 *                                outer header: that has to go where no rule looks.
 *   eth_dst  02:4b:TT:TT:TT:TT   from the rules: CRC-32 of the br-address, which becomes the outer
 *                                source address.
 *
 * The traffic class is copied outwards, and congestion inwards, as RFC 6040 wants: Open vSwitch does
 * it by the older RFC 3168, and drops without counting.
 *
 * On the IPv4 side eth_src is written in the same way, without the outer header, and the NIC's own
 * address put there on the way out.
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
#define ENCAPSULATION_LIMIT 4	/* RFC 2473 section 4.1.1 */
#define OPTIONS 8		/* the only length of destination options accepted */
#define EXTENSIONS 6		/* extension headers looked behind */
#define ICMP_ECHOREPLY 0	/* RFC 792; <linux/icmp.h> needs headers of the host */
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ECN_ECT1 1		/* RFC 3168 section 5 */
#define ECN_ECT0 2
#define ECN_CE 3
#define ECHO (1ULL << 38)	/* bits of eth_src, see above */
#define NO_PORTS (1ULL << 39)
#define TOO_BIG (1ULL << 42)

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

/* The later members are notes of the loader to itself; nothing else outlives it. */
struct settings {
	__u8 ipv4_mac[6];	/* the IPv4 NIC's own MAC address */
	__u16 softwire_mtu;	/* the largest IPv4 packet that a softwire carries whole */
	__u8 digest[8];		/* tells the source that runs from a newer one */
	__u32 mtu_before;	/* of the IPv6 NIC */
	__u32 clsact_made;	/* the qdiscs to remove: bit 0 the IPv6 NIC's, bit 1 the IPv4 NIC's */
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

/* Not TC_ACT_SHOT: its ENOBUFS makes Open vSwitch give up the rest of the batch it is sending. */
static __always_inline int refuse_out(enum counter why)
{
	count(why);
	return TC_ACT_STOLEN;
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
 * The ports that an ICMPv4 packet at `ip` speaks for (RFC 7596 section 8.1, RFC 5508 REQ-3): ECHO |
 * identifier, or those that an error quotes, destination's side << 16 | source's side, or NO_PORTS.
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
		return ECHO | read16(icmp + 4);
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

/*
 * The eth_src of the IPv4 packet at `ip`, whose header is there; `label` and `hops` are the outer
 * flow label and hop limit.
 */
static __always_inline void write_mark(__u8 *mac, const __u8 *ip, const void *end, __u32 label,
				       __u32 hops)
{
	const struct settings *own = get_settings();
	__u64 mark = 0, high = hops << 4 | label >> 16;

	if (ip[9] == IPPROTO_ICMP)
		mark = icmp_ports(ip, end);
	if (ip[9] != IPPROTO_ICMP || mark & (ECHO | NO_PORTS))
		mark |= (__u64)(label & 0xffff) << 16;
	mark |= (high & 0x3f) << 32 | (high & 0x40) << (41 - 6) | high >> 7 << 43;
	if (own && read16(ip + 2) > own->softwire_mtu)
		mark |= TOO_BIG;
	mac[0] = mark >> 40;
	mac[1] = mark >> 32;
	mac[2] = mark >> 24;
	mac[3] = mark >> 16;
	mac[4] = mark >> 8;
	mac[5] = mark;
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

/*
 * Moves the Ethernet and IPv6 headers, which may overlap their new place. By words: for memmove()
 * clang emits 108 single-byte instructions, since it cannot know the alignment.
 */
static __always_inline void move_headers(void *to, const void *from)
{
	const __u64 *source = from;
	__u64 a = source[0], b = source[1], c = source[2], d = source[3], e = source[4],
	      f = source[5], *target = to;
	__u32 g = *(__u32 *)(from + 48);
	__u16 h = *(__u16 *)(from + 52);

	target[0] = a;
	target[1] = b;
	target[2] = c;
	target[3] = d;
	target[4] = e;
	target[5] = f;
	*(__u32 *)(to + 48) = g;
	*(__u16 *)(to + 52) = h;
}

static __always_inline int is_extension(__u8 next_header)
{
	return next_header == IPPROTO_HOPOPTS || next_header == IPPROTO_ROUTING ||
	       next_header == IPPROTO_FRAGMENT || next_header == IPPROTO_AH ||
	       next_header == IPPROTO_DSTOPTS;
}

/*
 * Whether there is GRE behind the extension headers at `at`, where the kernel and Open vSwitch
 * would find it as well, and take it for a packet that came through the shim. Longer chains than
 * any sender has a use for are taken for an attempt at it.
 */
static __always_inline int hides_gre(const __u8 *at, const void *end, __u8 next_header)
{
#pragma unroll
	for (int i = 0; i < EXTENSIONS; i++) {
		__u32 length;

		if (!is_extension(next_header))
			break;
		if ((const void *)(at + 8) > end)
			return 0;
		length = next_header == IPPROTO_FRAGMENT ? 8 :
			 next_header == IPPROTO_AH ? (at[1] + 2) * 4 : (at[1] + 1) * 8;
		if (next_header == IPPROTO_FRAGMENT && (read16(at + 2) & 0xfff8))
			return at[0] == IPPROTO_GRE;	/* no header follows, but the kernel reassembles */
		next_header = at[0];
		at += length;
	}
	return next_header == IPPROTO_GRE || is_extension(next_header);
}

/* A softwire packet in a VLAN would reach the kernel and Open vSwitch past the checks below. */
static __always_inline int in_vlan(const void *data, const void *end)
{
	const __u8 *type = data + ETH_HLEN - 2;
	const struct ipv6hdr *ip6;

#pragma unroll
	for (int i = 0; i < 2; i++)
		if ((const void *)(type + 2) <= end &&
		    (read16(type) == ETH_P_8021Q || read16(type) == ETH_P_8021AD))
			type += 4;
	ip6 = (const void *)(type + 2);
	if ((const void *)(ip6 + 1) > end || read16(type) != ETH_P_IPV6)
		return 0;
	if (ip6->nexthdr != IPPROTO_IPIP && ip6->nexthdr != IPPROTO_GRE &&
	    !is_extension(ip6->nexthdr))
		return 0;
	return bpf_map_lookup_elem(&aftr_addresses, &ip6->daddr) != 0;
}

/*
 * The inner ECN field of a packet that leaves the tunnel, by RFC 6040 section 4.2, figure 4. Returns 0
 * if the packet has to be dropped: congestion that its sender cannot be told of.
 */
static __always_inline int pass_congestion_on(__u8 *ip, __u32 outer)
{
	__u32 inner = ip[1] & ECN_CE, sum, before = read16(ip), after;

	if (outer == ECN_CE) {
		if (!inner)
			return 0;
		after = before | ECN_CE;
	} else if (outer == ECN_ECT1 && inner == ECN_ECT0) {
		after = before ^ (ECN_ECT0 ^ ECN_ECT1);
	} else {
		return 1;
	}
	if (after == before)
		return 1;
	/* RFC 1624 section 3, equation 3 */
	sum = (~read16(ip + 10) & 0xffff) + (~before & 0xffff) + after;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	ip[1] = after;
	ip[10] = sum >> 8;
	ip[11] = sum;
	return 1;
}

/* Wire to Open vSwitch. Returns XDP_PASS for what is to go on, translated or not. */
static __always_inline int decapsulate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	__u32 payload, total, header, first;
	__u8 *ip, *gre, limited = 0;

	if (data + INNER > end)
		return XDP_PASS;
	if (eth->h_proto != bpf_htons(ETH_P_IPV6)) {
		if (eth->h_proto != bpf_htons(ETH_P_8021Q) &&
		    eth->h_proto != bpf_htons(ETH_P_8021AD))
			return XDP_PASS;
		return in_vlan(data, end) ? refuse(REFUSED_VLAN) : XDP_PASS;
	}
	if (ip6->nexthdr != IPPROTO_IPIP && ip6->nexthdr != IPPROTO_GRE &&
	    !is_extension(ip6->nexthdr))
		return XDP_PASS;
	if (!bpf_map_lookup_elem(&aftr_addresses, &ip6->daddr)) {
		count(PASSED_IN);
		return XDP_PASS;
	}

	payload = bpf_ntohs(ip6->payload_len);
	if (ip6->nexthdr != IPPROTO_IPIP) {
		__u8 *options = data + INNER;

		if (ip6->nexthdr == IPPROTO_DSTOPTS &&
		    ((void *)(options + OPTIONS) > end || payload < OPTIONS))
			return refuse(REFUSED_TRUNCATED);
		if (ip6->nexthdr != IPPROTO_DSTOPTS || options[0] != IPPROTO_IPIP) {
			if (hides_gre(options, end, ip6->nexthdr))
				return refuse(REFUSED_GRE_FROM_WIRE);
			count(PASSED_IN);
			return XDP_PASS;
		}
		if (!options_acceptable(options))
			return refuse(REFUSED_OPTIONS);
		limited = options[2] == ENCAPSULATION_LIMIT;
		payload -= OPTIONS;
		ip6->payload_len = bpf_htons(payload);
		ip6->nexthdr = IPPROTO_IPIP;
		move_headers(data + OPTIONS, data);
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
	first = bpf_ntohl(*(__u32 *)(data + ETH_HLEN));	/* version, traffic class, flow label */
	if (!pass_congestion_on(ip, first >> 20 & ECN_CE))
		return refuse(REFUSED_ECN);

	if (payload > 0xffff - ADDED || bpf_xdp_adjust_head(ctx, -ADDED))
		return refuse(REFUSED_NO_ROOM);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + INNER + ADDED + 20 > end)
		return refuse(REFUSED_NO_ROOM);
	move_headers(data, data + ADDED);
	ip6 = data + ETH_HLEN;
	ip6->nexthdr = IPPROTO_GRE;
	ip6->payload_len = bpf_htons(payload + ADDED);
	gre = data + INNER;
	*(__u32 *)gre = GRE_ETHERNET;
	*(__u32 *)(gre + 4) = bpf_htonl(0x024b0000);
	gre[8] = limited;
	gre[9] = first >> 20;
	write_mark(gre + 10, gre + ADDED, end, first & 0xfffff, ip6->hop_limit);
	*(__u16 *)(gre + 16) = bpf_htons(ETH_P_IP);
	count(TRANSLATED_IN);
	return XDP_PASS;
}

/* Whether the packet is one that Open vSwitch put into a softwire. INNER + ADDED bytes are there. */
static __always_inline int is_gre_of_ours(const void *data)
{
	const struct ethhdr *eth = data;
	const struct ipv6hdr *ip6 = data + ETH_HLEN;
	const __u8 *gre = data + INNER;

	return eth->h_proto == bpf_htons(ETH_P_IPV6) && ip6->nexthdr == IPPROTO_GRE &&
	       *(__u32 *)gre == GRE_ETHERNET && *(__u16 *)(gre + 4) == bpf_htons(0x024b);
}

/* The outer source address that the inner eth_dst names. */
static __always_inline struct in6_addr *outer_source(const void *data)
{
	__u32 tag = bpf_ntohl(*(__u32 *)(data + INNER + 6));

	return bpf_map_lookup_elem(&br_addresses, &tag);
}

/* `tos` is the inner packet's, and becomes the traffic class (RFC 2983, RFC 6040 section 4.1). */
static __always_inline void finish(void *data, const struct in6_addr *source, __u32 payload,
				   __u8 tos)
{
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	__u8 *first = (void *)ip6;

	first[0] = 0x60 | tos >> 4;
	first[1] = tos << 4 | (first[1] & 0xf);
	ip6->payload_len = bpf_htons(payload);
	ip6->nexthdr = IPPROTO_IPIP;
	ip6->saddr = *source;
	count(TRANSLATED_OUT);
}

/* IPv6 NIC, ingress: what arrives in a softwire becomes what Open vSwitch takes for GRE. */
SEC("xdp") int softwire_in(struct xdp_md *ctx)
{
	return decapsulate(ctx);
}

/* IPv6 NIC, egress: what Open vSwitch sends as GRE leaves as RFC 2473. */
SEC("tc") int softwire_out(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct in6_addr *source;
	__u32 payload;
	__u8 tos;

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
	if (!is_gre_of_ours(data))
		return TC_ACT_OK;
	if (skb->gso_size)	/* the kernel would cut it up by the GRE headers taken away here */
		return refuse_out(REFUSED_GSO);
	source = outer_source(data);
	if (!source)
		return refuse_out(REFUSED_UNKNOWN_BR_TAG);
	payload = bpf_ntohs(((struct ipv6hdr *)(data + ETH_HLEN))->payload_len);
	if (payload < ADDED + 20 || bpf_skb_load_bytes(skb, INNER + ADDED + 1, &tos, 1))
		return refuse_out(REFUSED_TRUNCATED);
	if (bpf_skb_adjust_room(skb, -ADDED, BPF_ADJ_ROOM_NET, 0))
		return refuse_out(REFUSED_NO_ROOM);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + INNER > end)
		return refuse_out(REFUSED_NO_ROOM);
	finish(data, source, payload - ADDED, tos);
	return TC_ACT_OK;
}

/* IPv4 NIC, ingress: show the rules what they cannot see of a packet. */
SEC("xdp") int ipv4_in(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if (data + ETH_HLEN + 20 > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	write_mark(eth->h_source, data + ETH_HLEN, end, 0, 0);
	count(MARKED_IN);
	return XDP_PASS;
}

/* IPv4 NIC, egress: IPv4, which came out of a softwire, leaves with the NIC's own source address. */
SEC("tc") int ipv4_out(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	const struct settings *own;

	if (data + ETH_HLEN > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	own = get_settings();
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
