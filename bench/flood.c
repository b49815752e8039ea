// SPDX-License-Identifier: Apache-2.0
/*
 * Sends frames out of a network interface as fast as it can: flood INTERFACE SECONDS <FRAMES
 *
 * Standard input has the frames, each after its length in two bytes, most significant first. They
 * are sent in turn. PACKET_QDISC_BYPASS leaves the traffic control of the interface out, which is
 * the generator's and not what is measured. Prints how many frames were sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#define FRAMES 4096
#define LONGEST 2048
#define AT_ONCE 64

static unsigned char frames[FRAMES][LONGEST];
static struct iovec parts[FRAMES];
static struct mmsghdr messages[FRAMES];

static int read_frames(void)
{
	unsigned char length[2];
	int count = 0;

	while (count < FRAMES && fread(length, 1, 2, stdin) == 2) {
		size_t size = length[0] << 8 | length[1];

		if (size > LONGEST || fread(frames[count], 1, size, stdin) != size)
			return 0;
		parts[count] = (struct iovec){ frames[count], size };
		messages[count].msg_hdr = (struct msghdr){ .msg_iov = &parts[count], .msg_iovlen = 1 };
		count++;
	}
	return count;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct sockaddr_ll where = { .sll_family = AF_PACKET };
	int count, out, yes = 1, at = 0;
	unsigned long long sent = 0;
	double end;

	if (argc != 3 || !(count = read_frames())) {
		fprintf(stderr, "usage: flood INTERFACE SECONDS <FRAMES\n");
		return 2;
	}
	out = socket(AF_PACKET, SOCK_RAW, 0);
	where.sll_ifindex = if_nametoindex(argv[1]);
	if (out < 0 || bind(out, (struct sockaddr *)&where, sizeof where) ||
	    setsockopt(out, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes)) {
		perror(argv[1]);
		return 1;
	}
	for (end = now() + atof(argv[2]); now() < end;) {
		int left = count - at;
		int done = sendmmsg(out, &messages[at], left < AT_ONCE ? left : AT_ONCE, 0);

		if (done < 0)
			continue;	/* the interface is full */
		sent += done;
		at = (at + done) % count;
	}
	printf("%llu\n", sent);
	return 0;
}
