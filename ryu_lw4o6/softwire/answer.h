/* SPDX-License-Identifier: GPL-2.0-only */
/* Softwire packets that the rules refuse, turned round into ICMPv6 errors. */
#define LEAST_MTU 1280		/* an error is no longer than that (RFC 4443 section 2.4 c) */
#define IPV6_HEADER 40
#define ICMPV6_HEADER 8
#define QUOTED (ETH_HLEN + IPV6_HEADER + ICMPV6_HEADER)	/* where the quotation begins */
#define UNREACHABLE 1		/* type, and */
#define SOURCE_REFUSED 5	/* code: source address failed ingress/egress policy (RFC 4443) */

/* Whether an ICMPv6 error may be sent to an address at all (RFC 4443 section 2.4 e.6). */
static __always_inline int single_node(const struct in6_addr *address)
{
	const __be32 *at = (const void *)address;

	return (bpf_ntohl(at[0]) >> 24) != 0xff && (at[0] | at[1] | at[2] || bpf_ntohl(at[3]) > 1);
}

/* The sum of an ICMPv6 message of at most LEAST_MTU - IPV6_HEADER bytes (RFC 1071). */
static __always_inline __u64 sum_of(const void *at, const void *end)
{
	__u64 sum = 0;

	barrier_var(end);
	for (int i = 0; i < (LEAST_MTU - IPV6_HEADER) / 4; i++) {
		if (at + 4 > end)
			break;
		sum += *(__u32 *)at;
		at += 4;
	}
	if (at + 2 <= end) {
		sum += *(__u16 *)at;
		at += 2;
	}
	if (at + 1 <= end)
		sum += bpf_htons(*(__u8 *)at << 8);
	return sum;
}

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* A refused packet, as its frame says that it was on the wire. */
struct refused {
	struct in6_addr lwb4;
	struct in6_addr br_address;
	__be32 first;		/* word of its outer header */
	__u32 options;		/* bytes of them before the IPv4 packet */
	__u32 payload;		/* bytes behind them */
	__u8 hop_limit;
};

/* INNER + ADDED + 20 bytes are there. Returns why it is none, or -1. */
static __always_inline int read_refused(const void *data, __u32 bytes, struct refused *packet)
{
	const struct ipv6hdr *ip6 = data + ETH_HLEN;
	const __u8 *gre = data + INNER, *ip = gre + ADDED;
	__u64 to = (__u64)read16(gre + 4) << 32 | bpf_ntohl(*(__u32 *)(gre + 6));
	__u64 mark = (__u64)read16(gre + 10) << 32 | bpf_ntohl(*(__u32 *)(gre + 12));
	__u32 tag = to >> 9, label = mark >> 16 & 0xfffff, payload = bpf_ntohs(ip6->payload_len);
	const struct in6_addr *br_address = bpf_map_lookup_elem(&br_addresses, &tag);

	if (!br_address)
		return REFUSED_UNKNOWN_BR_TAG;
	if (payload < ADDED + 20 || INNER + payload > bytes)
		return REFUSED_TRUNCATED;
	if ((ip[9] == IPPROTO_ICMP || later_fragment(ip)) && !(mark & (ECHO | NO_PORTS)))
		label = 0;	/* there are ports in its place: it is lost */
	packet->lwb4 = ip6->daddr;
	packet->br_address = *br_address;
	packet->first = bpf_htonl(6 << 28 | (to & 0xff) << 20 | label);
	packet->options = to & 0x100 ? OPTIONS : 0;
	packet->payload = payload - ADDED;
	packet->hop_limit = (mark >> 36 & 3) | (mark >> 41 & 1) << 2 | mark >> 43 << 3;
	return -1;
}

/* Writes an error that quotes the first `length` bytes of a packet. Everything up to `end` is it. */
static __always_inline void write_error(void *data, const void *end, const struct refused *packet,
					__u32 length, __u8 hop_limit)
{
	struct ipv6hdr *ip6 = data + ETH_HLEN, *quoted = data + QUOTED;
	void *icmp = ip6 + 1;
	__be32 *options = (void *)(quoted + 1);
	__u64 sum;

	*(__be32 *)ip6 = bpf_htonl(6 << 28);
	ip6->payload_len = bpf_htons(ICMPV6_HEADER + length);
	ip6->nexthdr = IPPROTO_ICMPV6;
	ip6->hop_limit = hop_limit;
	ip6->saddr = packet->br_address;
	ip6->daddr = packet->lwb4;
	*(__be32 *)icmp = bpf_htonl(UNREACHABLE << 24 | SOURCE_REFUSED << 16);
	*(__be32 *)(icmp + 4) = 0;
	*(__be32 *)quoted = packet->first;
	quoted->payload_len = bpf_htons(packet->options + packet->payload);
	quoted->nexthdr = packet->options ? IPPROTO_DSTOPTS : IPPROTO_IPIP;
	quoted->hop_limit = packet->hop_limit;
	quoted->saddr = packet->lwb4;
	quoted->daddr = packet->br_address;
	if (packet->options) {	/* as tunnel drivers write them: the limit is not known any more */
		options[0] = bpf_htonl(0x04000401);
		options[1] = bpf_htonl(0x04010100);
	}
	/* The pseudo-header (RFC 8200 section 8.1), in another order: a sum does not mind. */
	sum = bpf_htonl(ICMPV6_HEADER + length) + (__u64)bpf_htonl(IPPROTO_ICMPV6);
	for (int i = 0; i < 4; i++)
		sum += (__u64)packet->br_address.s6_addr32[i] + packet->lwb4.s6_addr32[i];
	*(__u16 *)(icmp + 2) = folded(sum + sum_of(icmp, end));
}

/*
 * A packet that the rules have refused and sent back, towards its lwB4 already: it becomes the error
 * about itself, type 1 code 5 (RFC 7596 section 6.2). INNER + ADDED + 20 bytes are there.
 */
static __always_inline int answer(struct __sk_buff *skb, void *data, const struct settings *own)
{
	struct lwb4 told = { .told = bpf_ktime_get_ns(), .refused = 1 };
	__u32 headers, length, most = LEAST_MTU - IPV6_HEADER - ICMPV6_HEADER;
	struct refused packet = {};
	int why = read_refused(data, skb->len, &packet);
	void *end;

	if (why >= 0)
		return refuse_out(why);
	if (told_lately(bpf_map_lookup_elem(&lwb4s, &packet.lwb4), own))
		return refuse_out(ANSWERED_LATELY);
	headers = IPV6_HEADER + packet.options;
	length = headers + packet.payload;
	if (length > most)
		length = most;
	if (bpf_skb_change_tail(skb, INNER + ADDED + length - headers, 0) ||
	    bpf_skb_adjust_room(skb, QUOTED + headers - INNER - ADDED, BPF_ADJ_ROOM_NET, 0) ||
	    bpf_skb_pull_data(skb, QUOTED + length))
		return refuse_out(REFUSED_NO_ROOM);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + QUOTED + IPV6_HEADER + OPTIONS > end)
		return refuse_out(REFUSED_NO_ROOM);
	write_error(data, end, &packet, length, own->error_hop_limit);
	bpf_map_update_elem(&lwb4s, &packet.lwb4, &told, BPF_ANY);
	count(ANSWERED);
	count_by(ANSWERED_BYTES, IPV6_HEADER + ICMPV6_HEADER + length);
	return leave(skb, own->ipv6_vlan);
}
