/* SPDX-License-Identifier: GPL-2.0-only */
/* What the rules are told of an IPv4 packet in eth_src; softwire.bpf.c says which bit is what. */
#define ICMP_ECHOREPLY 0	/* RFC 792; <linux/icmp.h> needs headers of the host */
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define IP_DF 0x4000		/* RFC 791; likewise */
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define ECHO (1ULL << 38)	/* bits of eth_src */
#define NO_PORTS (1ULL << 39)
#define TOO_BIG (1ULL << 42)

/* Whether the IPv4 header at `ip`, which is there in full, adds up (RFC 1071). */
static __always_inline int checksum_right(const __u8 *ip, const void *end)
{
	__u32 words = (ip[0] & 0xf) * 2, sum = 0;

	barrier_var(end);	/* the compiler knows that the header is there, the verifier does not */
	for (__u32 i = 0; i < 30 && i < words; i++) {
		const __u16 *word = (const void *)(ip + 2 * i);

		if ((const void *)(word + 1) > end)
			return 0;
		sum += *word;
	}
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* Why the IPv4 packet of at most `room` bytes at `ip` is none (RFC 1812 section 5.2.2), or -1. */
static __always_inline int unsound(const __u8 *ip, const void *end, __u32 room)
{
	__u32 header, total;

	if ((const void *)(ip + 20) > end || room < 20)
		return REFUSED_TRUNCATED;
	if (ip[0] >> 4 != 4)
		return REFUSED_NOT_IPV4;
	header = (ip[0] & 0xf) * 4;
	total = read16(ip + 2);
	if (header < 20 || total < header || total > room || (__u32)(end - (const void *)ip) < room)
		return REFUSED_TRUNCATED;
	return checksum_right(ip, end) ? -1 : REFUSED_CHECKSUM;
}

/*
 * Whether no packet may come from, or go to, the IPv4 address at `at` (RFC 1812 sections 5.3.5 and
 * 5.3.7): this network, loopback, multicast, limited broadcast.
 */
static __always_inline int martian(const __u8 *at)
{
	return at[0] == 0 || at[0] == 127 || at[0] >> 4 == 0xe ||
	       (at[0] & at[1] & at[2] & at[3]) == 0xff;
}

/* Is a fragment, but not the first of its packet. */
static __always_inline int later_fragment(const __u8 *ip)
{
	return read16(ip + 6) & IP_OFFSET;
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
 * The eth_src of the sound IPv4 packet at `ip`; `label` and `hops` are the outer flow label and hop
 * limit.
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
	if (own && read16(ip + 2) > own->softwire_mtu && read16(ip + 6) & IP_DF)
		mark |= TOO_BIG;
	mac[0] = mark >> 40;
	mac[1] = mark >> 32;
	mac[2] = mark >> 24;
	mac[3] = mark >> 16;
	mac[4] = mark >> 8;
	mac[5] = mark;
}
