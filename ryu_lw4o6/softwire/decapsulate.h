/* SPDX-License-Identifier: GPL-2.0-only */
/* Wire to Open vSwitch. */
#define ENCAPSULATION_LIMIT 4	/* RFC 2473 section 4.1.1 */
#define EXTENSIONS 6		/* extension headers looked behind */
#define ECN 3			/* bits of a traffic class or TOS (RFC 3168) */
#define ECT_1 1
#define ECT_0 2
#define CE 3

/*
 * What is to be done about destination options before an IPv4 packet, OPTIONS bytes (RFC 8200 section
 * 4.2): taken when made of options that a node may skip, such as the encapsulation limit (RFC 2473
 * section 4.1.1) and padding; told about when one wants its sender to be told that it is not known.
 */
enum judgement { BROKEN, TAKEN, TOLD_ABOUT };

static __always_inline enum judgement judge_options(const __u8 *options)
{
	__u32 skip = 0, length_next = 0;

#pragma unroll
	for (int at = 2; at < OPTIONS; at++) {
		if (skip) {
			skip--;
		} else if (length_next) {
			skip = options[at];
			length_next = 0;
		} else {
			if (options[at] >> 6)
				return options[at] >> 7 ? TOLD_ABOUT : BROKEN;
			length_next = options[at] != 0;	/* 0 is Pad1, a single byte */
		}
	}
	return skip || length_next ? BROKEN : TAKEN;
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

/*
 * What the ECN field of the inner TOS becomes where a tunnel ends (RFC 6040 section 4.2), -1 for a
 * packet that is to be dropped.
 */
static __always_inline int ecn_at_the_end(__u32 inner, __u32 outer)
{
	if (outer == CE)
		return inner ? CE : -1;
	return outer == ECT_1 && inner == ECT_0 ? ECT_1 : inner;
}

/* Writes another TOS into an IPv4 header, and the checksum that goes with it (RFC 1624). */
static __always_inline void set_tos(__u8 *ip, __u8 tos)
{
	__u32 sum = (__u16)~read16(ip + 10) + (__u16)~read16(ip) + (ip[0] << 8 | tos);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	ip[1] = tos;
	ip[10] = sum >> 8;
	ip[11] = sum;
}

/* An IPv6 packet, untagged. Returns XDP_PASS for what is to go on, translated or not. */
static __always_inline int decapsulate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	__u32 payload, first;
	__u8 *ip, *gre, limited = 0;
	const struct settings *own;
	const struct lwb4 *known;
	int why, ecn, quiet;
	__u8 tos;

	if (data + INNER > end)
		return XDP_PASS;
	if (ip6->nexthdr != IPPROTO_IPIP && ip6->nexthdr != IPPROTO_GRE &&
	    !is_extension(ip6->nexthdr))
		return XDP_PASS;
	if (!bpf_map_lookup_elem(&aftr_addresses, &ip6->daddr)) {
		/* Open vSwitch ends tunnels at every address that LOCAL has. */
		if (ip6->nexthdr != IPPROTO_IPIP && hides_gre(data + INNER, end, ip6->nexthdr))
			return refuse(REFUSED_GRE_FROM_WIRE);
		count(PASSED_IN);
		return XDP_PASS;
	}

	payload = bpf_ntohs(ip6->payload_len);
	if (ip6->nexthdr != IPPROTO_IPIP) {
		__u8 *options = data + INNER;

		if (ip6->nexthdr == IPPROTO_DSTOPTS &&
		    ((void *)(options + OPTIONS) > end || payload < OPTIONS))
			return refuse(REFUSED_TRUNCATED);
		if (ip6->nexthdr != IPPROTO_DSTOPTS || options[0] != IPPROTO_IPIP || options[1]) {
			if (hides_gre(options, end, ip6->nexthdr))
				return refuse(REFUSED_GRE_FROM_WIRE);
			count(PASSED_IN);
			return XDP_PASS;
		}
		switch (judge_options(options)) {
		case BROKEN:
			return refuse(REFUSED_OPTIONS);
		case TOLD_ABOUT:	/* by the kernel, to which the controller gives it */
			count(PASSED_IN);
			return XDP_PASS;
		case TAKEN:
			break;
		}
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
	why = unsound(ip, end, payload);
	if (why >= 0)
		return refuse(why);
	ip6 = data + ETH_HLEN;
	if ((void *)(ip + 20) > end)
		return refuse(REFUSED_TRUNCATED);
	if (martian(ip + 16))
		return refuse(REFUSED_MARTIAN);
	first = bpf_ntohl(*(__u32 *)ip6);	/* version, traffic class, flow label */
	ecn = ecn_at_the_end(ip[1] & ECN, first >> 20 & ECN);
	if (ecn < 0)
		return refuse(REFUSED_ECN);
	own = get_settings();
	if (!own)
		return refuse(REFUSED_NO_ROOM);
	if (read16(ip + 2) > own->ipv4_mtu) {	/* the controller answers it, or fragments it */
		count(PASSED_IN);
		return XDP_PASS;
	}
	known = bpf_map_lookup_elem(&lwb4s, &ip6->saddr);
	if (!gets_in(&ip6->saddr, known, own))
		return refuse(REFUSED_CROWD);
	quiet = !single_node(&ip6->saddr) || told_lately(known, own);
	tos = (own->outer_dscp ? first >> 20 & 0xfc : ip[1] & 0xfc) | ecn;
	if (tos != ip[1])
		set_tos(ip, tos);

	if (payload > 0xffff - ADDED || bpf_xdp_adjust_head(ctx, -ADDED))
		return refuse(REFUSED_NO_ROOM);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + INNER + ADDED + 20 > end)
		return refuse(REFUSED_NO_ROOM);
	move_headers(data, data + ADDED);
	ip6 = data + ETH_HLEN;
	/* Open vSwitch does the ECN field of tunnels by another RFC: there is none for it to see. */
	*(__u32 *)ip6 = bpf_htonl(first & ~(ECN << 20));
	ip6->nexthdr = IPPROTO_GRE;
	ip6->payload_len = bpf_htons(payload + ADDED);
	gre = data + INNER;
	*(__u32 *)gre = GRE_ETHERNET;
	*(__u32 *)(gre + 4) = bpf_htonl(0x024b0000 | ANSWERS | (quiet ? NOT_NOW : 0));
	gre[8] = limited;
	gre[9] = first >> 20;
	if (!write_mark(gre + 10, gre + ADDED, end, &ip6->saddr, first & 0xfffff, ip6->hop_limit))
		return refuse(REFUSED_FRAGMENT);
	*(__u16 *)(gre + 16) = bpf_htons(ETH_P_IP);
	count(TRANSLATED_IN);
	return XDP_PASS;
}

/* An IPv4 packet, untagged: show the rules what they cannot see of it. */
static __always_inline int mark_ipv4(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 *ip = data + ETH_HLEN;
	int why = unsound(ip, end, end - (void *)ip);

	if (why >= 0)
		return refuse(why);
	if ((void *)(ip + 20) > end)
		return refuse(REFUSED_TRUNCATED);
	if (martian(ip + 12))
		return refuse(REFUSED_MARTIAN);
	if (!write_mark(data + ETH_ALEN, ip, end, 0, 0, 0))
		return refuse(REFUSED_FRAGMENT);
	count(MARKED_IN);
	return XDP_PASS;
}

/*
 * Whether the length at `at` is one of an 802.3 frame that has an Ethernet type further on (RFC 1042).
 * Open vSwitch looks for it there, and would take the packet for one that came through here.
 */
static __always_inline int in_snap(const __u8 *at, const void *end)
{
	return read16(at) < ETH_P_802_3_MIN && (const void *)(at + 8) <= end &&
	       *(__u32 *)(at + 2) == bpf_htonl(0xaaaa0300) && !read16(at + 6);
}

/*
 * Takes the tag off a frame that has the one of its side. Returns the Ethernet type, ETH_P_SNAP, or
 * -1 for a frame of another VLAN: Open vSwitch would take it for an untagged one.
 */
static __always_inline int take_off_tag(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct settings *own = get_settings();
	__u32 type, vlan = 0, tagged = 0;
	__u64 macs;
	__u32 rest;

	if (!own || data + ETH_HLEN + 4 > end)
		return 0;
	type = read16(data + 12);
	if (in_vlan(type)) {
		tagged = 1;
		vlan = read16(data + 14) & 0xfff;	/* 0: a priority, no VLAN (802.1Q) */
		type = read16(data + 16);
	}
	if (in_vlan(type) || vlan != (type == ETH_P_IPV6 ? own->ipv6_vlan : own->ipv4_vlan))
		return -1;
	if (in_snap(data + (tagged ? 16 : 12), end))
		return ETH_P_SNAP;
	if (!tagged)
		return type;
	macs = *(__u64 *)data;
	rest = *(__u32 *)(data + 8);
	*(__u64 *)(data + 4) = macs;
	*(__u32 *)(data + 12) = rest;
	return bpf_xdp_adjust_head(ctx, 4) ? -1 : (int)type;
}
