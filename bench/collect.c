// SPDX-License-Identifier: Apache-2.0
/*
 * Notes when frames come in by a network interface: collect INTERFACE AT PATTERN KEY_AT KEYS EVERY
 *
 * Of interest are frames that have the bytes PATTERN (in hexadecimal) at offset AT. The four bytes
 * at KEY_AT, most significant first, say which of KEYS it is. Runs until standard input ends, and
 * then writes, in the machine's own byte order: for each key a double, the time of its first frame
 * by CLOCK_MONOTONIC, or 0; for each key 32 bits, the number of its frames; for each key 32 bits, its
 * longest pause in microseconds; then 32 bits, how many frames the kernel could not hold for us; then
 * every EVERYth frame, after its length in 16 bits.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LONGEST 2048
#define AT_ONCE 128
#define ROOM (64 << 20)
#define SAMPLES 4096
#define NAP 500	/* microseconds; the precision of the times */

static unsigned char frames[AT_ONCE][LONGEST], samples[SAMPLES][LONGEST];
static uint16_t lengths[SAMPLES];
static struct iovec parts[AT_ONCE];
static struct mmsghdr messages[AT_ONCE];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int open_interface(const char *name)
{
	struct sockaddr_ll where = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int in = socket(AF_PACKET, SOCK_RAW, 0), yes = 1, room = ROOM;

	where.sll_ifindex = if_nametoindex(name);
	if (in < 0 || setsockopt(in, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) ||
	    setsockopt(in, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
	    bind(in, (struct sockaddr *)&where, sizeof where)) {
		perror(name);
		exit(1);
	}
	return in;
}

int main(int argc, char **argv)
{
	unsigned char pattern[64];
	unsigned long long seen = 0;
	size_t size = 0;
	uint32_t kept = 0;

	if (argc != 7) {
		fprintf(stderr, "usage: collect INTERFACE AT PATTERN KEY_AT KEYS EVERY\n");
		return 2;
	}
	int in = open_interface(argv[1]);
	size_t at = atoi(argv[2]), key_at = atoi(argv[4]);
	uint32_t keys = atoi(argv[5]), every = atoi(argv[6]);
	double *first = calloc(keys, sizeof *first), *last = calloc(keys, sizeof *last);
	uint32_t *count = calloc(keys, sizeof *count), *pause = calloc(keys, sizeof *pause);

	while (size < sizeof pattern && sscanf(&argv[3][2 * size], "%2hhx", &pattern[size]) == 1)
		size++;
	for (int i = 0; i < AT_ONCE; i++) {
		parts[i] = (struct iovec){ frames[i], LONGEST };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	printf("ready\n");
	fflush(stdout);
	struct pollfd told = { .fd = 0, .events = POLLIN };

	while (!poll(&told, 1, 0)) {
		int got = recvmmsg(in, messages, AT_ONCE, MSG_DONTWAIT, NULL);
		double time = now();

		/* Being woken for each frame would cost the sender, who is being measured, a lot. */
		if (got < AT_ONCE)
			usleep(NAP);
		for (int i = 0; i < got; i++) {
			size_t length = messages[i].msg_len;
			uint32_t key;

			if (length < at + size || length < key_at + 4 || memcmp(&frames[i][at], pattern, size))
				continue;
			memcpy(&key, &frames[i][key_at], 4);
			key = ntohl(key);
			if (key >= keys)
				continue;
			if (!count[key]++)
				first[key] = time;
			else if ((time - last[key]) * 1e6 > pause[key])
				pause[key] = (time - last[key]) * 1e6;
			last[key] = time;
			if (every && seen++ % every == 0 && kept < SAMPLES) {
				lengths[kept] = length;
				memcpy(samples[kept++], frames[i], length);
			}
		}
	}
	struct tpacket_stats lost = { 0 };
	socklen_t room = sizeof lost;
	uint32_t drops;

	getsockopt(in, SOL_PACKET, PACKET_STATISTICS, &lost, &room);
	drops = lost.tp_drops;
	fwrite(first, sizeof *first, keys, stdout);
	fwrite(count, sizeof *count, keys, stdout);
	fwrite(pause, sizeof *pause, keys, stdout);
	fwrite(&drops, sizeof drops, 1, stdout);
	for (uint32_t i = 0; i < kept; i++) {
		fwrite(&lengths[i], sizeof lengths[i], 1, stdout);
		fwrite(samples[i], 1, lengths[i], stdout);
	}
	return 0;
}
