/* SPDX-License-Identifier: GPL-2.0-only */
/* Open vSwitch to wire. */
#define FRAGMENT_HEADER 8	/* RFC 8200 section 4.5 */
#define MOST_FRAGMENTS 16	/* of one packet */
#define MOST_REMOVED 4088	/* what bpf_skb_adjust_room takes away at once, in units of 8 */
#define SOFTWIRE 0x024b		/* how the inner eth_dst begins, */
#define REFUSED_SOFTWIRE 3	/* or its first 7 bits */
#define FRAGMENT_MARK 0x4606	/* skb->mark of a copy that is to become a fragment */

/* The outer source address that the inner eth_dst names. */
static __always_inline struct in6_addr *outer_source(const void *data)
{
	__u32 tag = bpf_ntohl(*(__u32 *)(data + INNER + 6));

	return bpf_map_lookup_elem(&br_addresses, &tag);
}

/*
 * A flow label of the inner addresses, protocol and ports; without ports for fragments, so that
 * those of one packet take one way (RFC 6438 section 3).
 */
static __always_inline __u32 flow_label(const __u8 *ip, const void *end)
{
	const __u8 *ports = ip + (ip[0] & 0xf) * 4;
	__u32 hash = *(__u32 *)(ip + 12) * 0x9e3779b1;

	hash = (hash ^ *(__u32 *)(ip + 16)) * 0x85ebca6b;
	hash ^= hash >> 15;
	if (!(read16(ip + 6) & (IP_MF | IP_OFFSET)) && (ip[9] == IPPROTO_TCP || ip[9] == IPPROTO_UDP) &&
	    (const void *)(ports + 4) <= end)
		hash ^= *(__u32 *)ports;
	hash = (hash ^ ip[9]) * 0xc2b2ae35;
	hash ^= hash >> 13;
	hash &= 0xfffff;
	return hash ? hash : 1;	/* 0 means none */
}

/* The first word of the outer header: traffic class as the inner TOS, ECN as well (RFC 6040). */
static __always_inline __u32 first_word(const __u8 *ip, const void *end)
{
	const struct settings *own = get_settings();
	__u32 label = own && own->hashed_labels ? flow_label(ip, end) : 0;

	return bpf_htonl(6 << 28 | ip[1] << 20 | label);
}

/* Cuts the tail off a copy that fragments() made. */
static __always_inline int become_fragment(struct __sk_buff *skb, __u32 vlan)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip6 = data + ETH_HLEN;

	skb->mark = 0;
	if (data + INNER > end ||
	    bpf_skb_change_tail(skb, INNER + bpf_ntohs(ip6->payload_len), 0))
		return refuse_out(REFUSED_NO_ROOM);
	return leave(skb, vlan);
}

/*
 * Sends a softwire packet of `left` bytes of IPv4, which lie behind room for a fragment header, in
 * fragments (RFC 2473 section 7.2). Each but the last is a copy that passes softwire_out again,
 * which cuts off its tail.
 */
static __always_inline int fragments(struct __sk_buff *skb, __u32 left, __u32 size, __u32 vlan)
{
	__u32 id = bpf_get_prandom_u32(), offset = 0;

	size = (size - FRAGMENT_HEADER) & ~7;
	if (size > MOST_REMOVED)
		size = MOST_REMOVED;
	for (int i = 0; i < MOST_FRAGMENTS; i++) {
		__u32 now = left > size ? size : left;
		struct ipv6hdr *ip6;
		__be32 *fragment;
		void *data;

		if (bpf_skb_pull_data(skb, INNER + FRAGMENT_HEADER))
			break;
		data = (void *)(long)skb->data;
		ip6 = data + ETH_HLEN;
		fragment = data + INNER;
		if ((void *)fragment + FRAGMENT_HEADER > (void *)(long)skb->data_end)
			break;
		ip6->nexthdr = IPPROTO_FRAGMENT;
		ip6->payload_len = bpf_htons(FRAGMENT_HEADER + now);
		fragment[0] = bpf_htonl(IPPROTO_IPIP << 24 | offset | (left > size));
		fragment[1] = id;
		if (left <= size) {
			count(FRAGMENTED_OUT);
			return leave(skb, vlan);
		}
		skb->mark = FRAGMENT_MARK;
		if (bpf_clone_redirect(skb, skb->ifindex, 0))
			break;
		skb->mark = 0;
		if (bpf_skb_adjust_room(skb, -(__s32)size, BPF_ADJ_ROOM_NET, 0))
			break;
		left -= size;
		offset += size;
	}
	return refuse_out(REFUSED_NO_ROOM);
}

/* An IPv6 packet. */
static __always_inline int encapsulate(struct __sk_buff *skb, const struct settings *own)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct in6_addr *source;
	__u32 payload, total, first, room = ADDED, needed = INNER + ADDED + 20, kind;
	struct ipv6hdr *ip6;
	struct in6_addr copy;
	__u8 *ip;

	if (skb->mark == FRAGMENT_MARK)
		return become_fragment(skb, own->ipv6_vlan);
	if (data + needed > end) {
		if (skb->len < needed || bpf_skb_pull_data(skb, needed))
			return leave(skb, own->ipv6_vlan);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + needed > end)
			return leave(skb, own->ipv6_vlan);
	}
	kind = read16(data + INNER + 4);
	if (!is_gre(data) || (kind != SOFTWIRE && kind >> 9 != REFUSED_SOFTWIRE))
		return leave(skb, own->ipv6_vlan);
	if (skb->gso_size)	/* the kernel would cut it up by the GRE headers taken away here */
		return refuse_out(REFUSED_GSO);
	if (kind != SOFTWIRE)
		return answer(skb, data, own);
	source = outer_source(data);
	if (!source)
		return refuse_out(REFUSED_UNKNOWN_BR_TAG);
	ip = data + INNER + ADDED;
	payload = bpf_ntohs(((struct ipv6hdr *)(data + ETH_HLEN))->payload_len);
	total = read16(ip + 2);
	if (payload < ADDED + 20 || total < 20 || total > payload - ADDED ||
	    INNER + ADDED + total > skb->len)
		return refuse_out(REFUSED_TRUNCATED);
	first = first_word(ip, end);
	copy = *source;
	is_served(&((struct ipv6hdr *)(data + ETH_HLEN))->daddr);
	/* What Ethernet put behind a short packet is no part of it. */
	if (INNER + ADDED + total < skb->len && bpf_skb_change_tail(skb, INNER + ADDED + total, 0))
		return refuse_out(REFUSED_NO_ROOM);
	if (total > own->softwire_mtu)
		room -= FRAGMENT_HEADER;
	if (bpf_skb_adjust_room(skb, -(__s32)room, BPF_ADJ_ROOM_NET, 0))
		return refuse_out(REFUSED_NO_ROOM);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + INNER > end)
		return refuse_out(REFUSED_NO_ROOM);
	ip6 = data + ETH_HLEN;
	*(__be32 *)ip6 = first;
	ip6->payload_len = bpf_htons(total);
	ip6->nexthdr = IPPROTO_IPIP;
	ip6->saddr = copy;
	count(TRANSLATED_OUT);
	if (total > own->softwire_mtu)
		return fragments(skb, total, own->softwire_mtu, own->ipv6_vlan);
	return leave(skb, own->ipv6_vlan);
}

/* An IPv4 packet, which came out of a softwire: it leaves with the NIC's own source address. */
static __always_inline int restore_source(struct __sk_buff *skb, const struct settings *own)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if (data + ETH_HLEN > end)
		return TC_ACT_OK;
	__builtin_memcpy(eth->h_source, own->ipv4_mac, ETH_ALEN);
	count(SOURCE_RESTORED);
	return leave(skb, own->ipv4_vlan);
}
