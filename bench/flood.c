// SPDX-License-Identifier: Apache-2.0
/*
 * Sends frames out of a network interface: flood INTERFACE SECONDS PACKETS_PER_SECOND <FRAMES
 *
 * Standard input has the frames, each after its length in two bytes, most significant first. They
 * are sent in turn, as fast as it goes if PACKETS_PER_SECOND is 0. PACKET_QDISC_BYPASS leaves the
 * traffic control of the interface out, which is the generator's and not what is measured. Prints
 * how many frames were sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAMES (1 << 18)
#define LONGEST 2048
#define AT_ONCE 64
#define NAP 200	/* microseconds, when it is ahead of its pace */

static struct iovec parts[FRAMES];
static struct mmsghdr messages[FRAMES];

static int read_frames(void)
{
	unsigned char length[2], frame[LONGEST];
	int count = 0;

	while (count < FRAMES && fread(length, 1, 2, stdin) == 2) {
		size_t size = length[0] << 8 | length[1];
		void *copy = malloc(size);

		if (!copy || size > LONGEST || fread(frame, 1, size, stdin) != size)
			return 0;
		parts[count] = (struct iovec){ memcpy(copy, frame, size), size };
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
	double start, end, pace;

	if (argc != 4 || !(count = read_frames())) {
		fprintf(stderr, "usage: flood INTERFACE SECONDS PACKETS_PER_SECOND <FRAMES\n");
		return 2;
	}
	out = socket(AF_PACKET, SOCK_RAW, 0);
	where.sll_ifindex = if_nametoindex(argv[1]);
	if (out < 0 || bind(out, (struct sockaddr *)&where, sizeof where) ||
	    setsockopt(out, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes)) {
		perror(argv[1]);
		return 1;
	}
	pace = atof(argv[3]);
	start = now();
	end = start + atof(argv[2]);
	for (double time = start; time < end; time = now()) {
		int most = count - at < AT_ONCE ? count - at : AT_ONCE;

		if (pace > 0) {
			double due = (time - start) * pace - sent;

			if (due < 1) {
				usleep(NAP);
				continue;
			}
			if (due < most)
				most = due;
		}
		int done = sendmmsg(out, &messages[at], most, 0);

		if (done < 0)
			continue;	/* the interface is full */
		sent += done;
		at = (at + done) % count;
	}
	printf("%llu\n", sent);
	return 0;
}
