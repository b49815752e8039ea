/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a crowd of lwB4s costs Open vSwitch is the first packet of each. As many as it has time for
 * get in; those that it knows already, and has not refused, do not compete with them.
 */
/* 34 ms, no part of a second: who sends by the clock would always be late. */
#define WINDOW_BITS 25

/*
 * lwB4s that have been heard of. Who has a binding is the rules' to say: here is only whom they have
 * refused, until a packet goes to it through a softwire, and when it was told so.
 */
struct lwb4 {
	__u64 told;
	__u32 refused;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);	/* more than Open vSwitch keeps flows for */
	__type(key, struct in6_addr);
	__type(value, struct lwb4);
} lwb4s SEC(".maps");

static __always_inline int told_lately(const struct lwb4 *known, const struct settings *own)
{
	return known && known->told &&
	       bpf_ktime_get_ns() - known->told < own->quiet_ms * 1000000ULL;
}

/* How many packets of others have come in since the present window began. */
struct window {
	__u64 number;
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct window);
} crowd SEC(".maps");

/*
 * What the controller has found that Open vSwitch has time for: so many packets in a window, in
 * place of the usual number, until then by the kernel's monotonic clock.
 */
struct allowance {
	__u64 until;
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct allowance);
} allowance SEC(".maps");

static __always_inline __u64 allowed(const struct settings *own)
{
	__u32 key = 0;
	struct allowance *now = bpf_map_lookup_elem(&allowance, &key);

	if (now && bpf_ktime_get_ns() < now->until)
		return now->packets;
	return own->crowd;
}

static __always_inline int in_time(__u64 most)
{
	__u64 number = bpf_ktime_get_ns() >> WINDOW_BITS;
	__u32 key = 0;
	struct window *now = bpf_map_lookup_elem(&crowd, &key);

	if (!now)
		return 1;
	if (now->number != number) {
		now->number = number;
		now->packets = 0;
	}
	if (now->packets >= most)
		return 0;
	__sync_fetch_and_add(&now->packets, 1);
	return 1;
}

/* Whether a packet of an lwB4, of whom this is known or nothing, gets in. */
static __always_inline int gets_in(const struct in6_addr *address, const struct lwb4 *known,
				   const struct settings *own)
{
	struct lwb4 fresh = {};
	__u64 most;

	if (known && !known->refused)
		return 1;
	most = allowed(own);
	/* Those who have been told before leave room for those who have not. */
	if (known)
		most = told_lately(known, own) ? most / 2 : most - most / 16;
	if (!in_time(most))
		return 0;
	if (!known)
		bpf_map_update_elem(&lwb4s, address, &fresh, BPF_NOEXIST);
	return 1;
}

/* Packets go to it: it is not one that has nothing. */
static __always_inline void is_served(const struct in6_addr *address)
{
	struct lwb4 *known = bpf_map_lookup_elem(&lwb4s, address);

	if (known && known->refused)
		known->refused = 0;
}
