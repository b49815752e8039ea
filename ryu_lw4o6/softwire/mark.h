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
#define PORTS (1ULL << 48)	/* not written: both ports are known */
#define SOURCE_PORT(port) ((__u64)(port))
#define DESTINATION_PORT(port) ((__u64)(port) << 16)
#define LIFETIME 15000000000ULL	/* ns; a packet's fragments come within 15 s (RFC 791 section 3.2) */
#define LONGEST 65535		/* bytes of a packet */

/* A packet in fragments; those of lwB4s are each other's only if they came out of one softwire. */
struct fragmented {
	struct in6_addr lwb4;
	__u32 source;
	__u32 destination;
	__u16 id;
	__u8 protocol;
	__u8 unused;
};

/* What is known of it: both ports once its first fragment has come, and how many bytes there were. */
struct fragments {
	__u64 since;
	__u32 ports;
	__u16 known;
	__u16 unused;
	__u32 bytes;
	__u32 unused_too;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct fragmented);
	__type(value, struct fragments);
} in_fragments SEC(".maps");

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
 * Whether no packet may come from, or go to, the IPv4 address at `at`: this network, loopback,
 * multicast, limited broadcast (RFC 1812 sections 5.3.5 and 5.3.7), link-local (RFC 3927 section 7).
 */
static __always_inline int martian(const __u8 *at)
{
	return at[0] == 0 || at[0] == 127 || (at[0] == 169 && at[1] == 254) || at[0] >> 4 == 0xe ||
	       (at[0] & at[1] & at[2] & at[3]) == 0xff;
}

/* Is a fragment, but not the first of its packet. */
static __always_inline int later_fragment(const __u8 *ip)
{
	return read16(ip + 6) & IP_OFFSET;
}

/*
 * The ports that an ICMPv4 packet at `ip` speaks for (RFC 7596 section 8.1, RFC 5508 REQ-3): ECHO |
 * identifier, or those that an error quotes, destination's side << 16 | source's side, or NO_PORTS;
 * with ECHO if it quotes a protocol without ports, which a full address may have. It came from
 * `lwb4`, or from the Internet. An error is sent to who sent what it quotes, and from an lwB4 is
 * about what was sent to it: one that is not quotes nobody's packet (RFC 5508 REQ-4, REQ-5).
 */
static __always_inline __u64 icmp_ports(const __u8 *ip, const void *end,
					const struct in6_addr *lwb4)
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
	if (quoted_length < 20 || *(__u32 *)(quoted + 12) != *(__u32 *)(ip + 16) ||
	    (lwb4 && *(__u32 *)(quoted + 16) != *(__u32 *)(ip + 12)))
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
	return read16(ip + 6) & IP_MF ? NO_PORTS : ECHO | NO_PORTS;
}

/* Both ports of a first fragment of TCP or UDP, 0 if they are not all there. */
static __always_inline __u64 upper_ports(const __u8 *ip, const void *end)
{
	const __u8 *upper = ip + (ip[0] & 0xf) * 4;

	if ((const void *)(upper + 4) > end)
		return 0;
	return DESTINATION_PORT(read16(upper + 2)) | SOURCE_PORT(read16(upper));
}

/*
 * The mark of a fragment: of the first as of a whole packet, with NO_PORTS if others have come
 * before it; of the others PORTS | what the first has said, or NO_PORTS as long as it has not come,
 * with ECHO if it has none to say. REFUSED for what belongs to no packet that could be.
 */
#define REFUSED (1ULL << 63)
static __always_inline __u64 fragment_mark(const __u8 *ip, const void *end,
					   const struct in6_addr *lwb4)
{
	__u32 field = read16(ip + 6), bytes = read16(ip + 2) - (ip[0] & 0xf) * 4;
	__u64 now = bpf_ktime_get_ns(), mark, ports = 0;
	struct fragmented key = {};
	struct fragments *before, first = {};
	int fresh;

	if (!bytes || (field & IP_MF && bytes % 8) || (field & IP_OFFSET) * 8 + bytes > LONGEST)
		return REFUSED;
	if (ip[9] != IPPROTO_TCP && ip[9] != IPPROTO_UDP && ip[9] != IPPROTO_ICMP)
		return field & IP_OFFSET ? ECHO | NO_PORTS : 0;
	if (lwb4)
		key.lwb4 = *lwb4;
	key.source = *(__u32 *)(ip + 12);
	key.destination = *(__u32 *)(ip + 16);
	key.id = *(__u16 *)(ip + 4);
	key.protocol = ip[9];
	before = bpf_map_lookup_elem(&in_fragments, &key);
	fresh = before && now - before->since <= LIFETIME;
	barrier_var(fresh);	/* Linux 6.1 does not follow what the compiler would make of it */
	if (field & IP_OFFSET) {
		if (!before || !fresh) {
			first.since = now;
			first.bytes = bytes;
			bpf_map_update_elem(&in_fragments, &key, &first, BPF_ANY);
			return NO_PORTS;
		}
		/* However often a fragment comes, and whatever it overlaps: that is enough. */
		if (before->bytes + bytes > LONGEST)
			return REFUSED;
		__sync_fetch_and_add(&before->bytes, bytes);
		return before->known ? PORTS | before->ports : NO_PORTS;
	}
	if (ip[9] == IPPROTO_ICMP) {
		mark = icmp_ports(ip, end, lwb4);
		if (mark & NO_PORTS)
			return mark;
		ports = mark;
		if (mark & ECHO)
			ports = DESTINATION_PORT(mark & 0xffff) | SOURCE_PORT(mark & 0xffff);
		else
			mark |= PORTS;
	} else {
		mark = 0;
		ports = upper_ports(ip, end);
	}
	first.since = now;
	first.ports = ports;
	first.known = 1;
	first.bytes = bytes;
	if (before && fresh && !before->known) {
		first.bytes += before->bytes;
		mark |= NO_PORTS;
	}
	bpf_map_update_elem(&in_fragments, &key, &first, BPF_ANY);
	return mark;
}

/*
 * Writes the eth_src of the sound IPv4 packet at `ip`; `lwb4` is the outer source, `label` and
 * `hops` are the outer flow label and hop limit. Returns 0 for a packet that is to be refused.
 */
static __always_inline int write_mark(__u8 *mac, const __u8 *ip, const void *end,
				      const struct in6_addr *lwb4, __u32 label, __u32 hops)
{
	const struct settings *own = get_settings();
	__u64 mark = 0, high = hops << 4 | label >> 16;

	if (read16(ip + 6) & (IP_MF | IP_OFFSET)) {
		mark = fragment_mark(ip, end, lwb4);
		if (mark & REFUSED)
			return 0;
	} else if (ip[9] == IPPROTO_ICMP) {
		mark = icmp_ports(ip, end, lwb4);
		if (!(mark & (ECHO | NO_PORTS)))
			mark |= PORTS;
	}
	if (!(mark & PORTS))
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
	return 1;
}
