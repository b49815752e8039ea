/* SPDX-License-Identifier: GPL-2.0-only */
/* Softwire packets that the rules refuse, turned round into ICMPv6 errors. */
#define LEAST_MTU 1280		/* an error is no longer than that (RFC 4443 section 2.4 c) */
#define IPV6_HEADER 40
#define ICMPV6_HEADER 8
#define QUOTED (ETH_HLEN + IPV6_HEADER + ICMPV6_HEADER)	/* where the quotation begins */
#define UNREACHABLE 1		/* type, and */
#define SOURCE_REFUSED 5	/* code: source address failed ingress/egress policy (RFC 4443) */

/* When each lwB4 was told last. There is room for twice as many as `unknown_rate` lets through. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct in6_addr);
	__type(value, __u64);
} told SEC(".maps");

static __always_inline int told_lately(const struct in6_addr *lwb4, const struct settings *own)
{
	const __u64 *when = bpf_map_lookup_elem(&told, lwb4);

	return when && bpf_ktime_get_ns() - *when < own->quiet_ms * 1000000ULL;
}

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

/*
 * The first word of the outer header that the lwB4 sent, by what its frame says. Where there are
 * ports in place of the flow label, that is lost.
 */
static __always_inline __u32 word_quoted(const __u8 *ip, __u64 mark, __u32 class)
{
	__u32 label = (mark >> 16 & 0xfffff);

	if ((ip[9] == IPPROTO_ICMP || later_fragment(ip)) && !(mark & (ECHO | NO_PORTS)))
		label = 0;
	return bpf_htonl(6 << 28 | class << 20 | label);
}

/*
 * A packet in a GRE frame, from the lwB4's point of view already on its way back: type 1 code 5
 * (RFC 7596 section 6.2) about it as it was on the wire.
 */
static __always_inline int answer(struct __sk_buff *skb, const struct settings *own)
{
	void *data = (void *)(long)skb->data, *end;
	const __u8 *gre = data + INNER, *ip = data + INNER + ADDED;
	struct ipv6hdr *ip6 = data + ETH_HLEN, *quoted;
	__u64 to = (__u64)read16(gre + 4) << 32 | bpf_ntohl(*(__u32 *)(gre + 6));
	__u64 mark = (__u64)read16(gre + 10) << 32 | bpf_ntohl(*(__u32 *)(gre + 12));
	__u32 tag = to >> 9, limit = to & 0x100 ? OPTIONS : 0;
	__u32 payload = bpf_ntohs(ip6->payload_len), most = LEAST_MTU - QUOTED + ETH_HLEN, length;
	const struct in6_addr *source = bpf_map_lookup_elem(&br_addresses, &tag);
	struct in6_addr br_address, lwb4 = ip6->daddr;
	__u32 first = word_quoted(ip, mark, to & 0xff);
	__u8 hops = (mark >> 36 & 3) | (mark >> 41 & 1) << 2 | mark >> 43 << 3, *icmp;
	__u64 now = bpf_ktime_get_ns(), sum;

	if (!source)
		return refuse_out(REFUSED_UNKNOWN_BR_TAG);
	if (payload < ADDED + 20 || INNER + payload > skb->len)
		return refuse_out(REFUSED_TRUNCATED);
	if (told_lately(&lwb4, own))
		return refuse_out(ANSWERED_LATELY);
	br_address = *source;
	payload -= ADDED;
	length = IPV6_HEADER + limit + payload;
	if (length > most)
		length = most;
	if (bpf_skb_change_tail(skb, INNER + ADDED + length - IPV6_HEADER - limit, 0) ||
	    bpf_skb_adjust_room(skb, QUOTED + IPV6_HEADER + limit - INNER - ADDED,
				BPF_ADJ_ROOM_NET, 0) ||
	    bpf_skb_pull_data(skb, QUOTED + length))
		return refuse_out(REFUSED_NO_ROOM);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + QUOTED + IPV6_HEADER + OPTIONS > end)
		return refuse_out(REFUSED_NO_ROOM);
	ip6 = data + ETH_HLEN;
	icmp = data + ETH_HLEN + IPV6_HEADER;
	quoted = data + QUOTED;
	*(__be32 *)ip6 = bpf_htonl(6 << 28);
	ip6->payload_len = bpf_htons(ICMPV6_HEADER + length);
	ip6->nexthdr = IPPROTO_ICMPV6;
	ip6->hop_limit = own->error_hop_limit;
	ip6->saddr = br_address;
	ip6->daddr = lwb4;
	*(__be32 *)icmp = bpf_htonl(UNREACHABLE << 24 | SOURCE_REFUSED << 16);
	*(__be32 *)(icmp + 4) = 0;
	*(__be32 *)quoted = first;
	quoted->payload_len = bpf_htons(limit + payload);
	quoted->nexthdr = limit ? IPPROTO_DSTOPTS : IPPROTO_IPIP;
	quoted->hop_limit = hops;
	quoted->saddr = lwb4;
	quoted->daddr = br_address;
	if (limit) {	/* as tunnel drivers write it; the limit itself is not known any more */
		*(__be32 *)(quoted + 1) = bpf_htonl(0x04000401);
		*(__be32 *)((void *)(quoted + 1) + 4) = bpf_htonl(0x04010100);
	}
	/* The pseudo-header (RFC 8200 section 8.1), in another order: a sum does not mind. */
	sum = bpf_htonl(ICMPV6_HEADER + length) + (__u64)bpf_htonl(IPPROTO_ICMPV6);
	for (int i = 0; i < 4; i++)
		sum += (__u64)br_address.s6_addr32[i] + lwb4.s6_addr32[i];
	*(__u16 *)(icmp + 2) = folded(sum + sum_of(icmp, end));
	bpf_map_update_elem(&told, &lwb4, &now, BPF_ANY);
	count(ANSWERED);
	count_by(ANSWERED_BYTES, IPV6_HEADER + ICMPV6_HEADER + length);
	return leave(skb, own->ipv6_vlan);
}
