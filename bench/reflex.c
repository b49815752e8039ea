// SPDX-License-Identifier: Apache-2.0
/*
 * What Open vSwitch alone manages: a controller without a thought.
 *
 * reflex PORT SECONDS FILE answers each subscriber's first packet-in by the messages that FILE has
 * for it: flows, in one bundle with those of everybody who has come meanwhile, and, once a barrier
 * has confirmed them, the packet back to the pipeline. FILE is five numbers of four bytes (how many
 * subscribers, the last four bytes of the first one's address, how many bytes of flows and of the
 * packet-out's beginning each has, how many bytes open or commit a bundle), the two messages that
 * do that, then flows and packet-out of each. Prints how many were restored, once all are or SECONDS
 * are over.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (1 << 20)
#define MOST 4000	/* subscribers in a bundle */
#define FRAME 2048

enum { HELLO = 0, ECHO_REQUEST = 2, ECHO_REPLY = 3, PACKET_IN = 10, BARRIER_REPLY = 21 };

static const unsigned char *file, *controls, *records;
static uint32_t total, first, flows, out, control, done;
static char *seen;
static int conn;

struct batch {
	int count;
	uint32_t who[MOST];
	int length[MOST];
	unsigned char frame[MOST][FRAME];
};
static struct batch one, two, *filling = &one, *sent = &two;
static int waiting;	/* for the barrier behind what was sent */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static uint32_t be32(const unsigned char *at)
{
	return (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

static int be16(const unsigned char *at)
{
	return at[0] << 8 | at[1];
}

static void write_all(const unsigned char *data, size_t size)
{
	while (size) {
		ssize_t n = write(conn, data, size);

		if (n <= 0)
			exit(1);
		data += n;
		size -= n;
	}
}

static void send_bundle(void)
{
	static const unsigned char barrier[] = { 4, 20, 0, 8, 0, 0, 0, 7 };
	static unsigned char *text;
	unsigned char *at;
	struct batch *other = sent;

	if (!text)
		text = malloc((size_t)MOST * flows + 2 * control + sizeof(barrier));
	at = mempcpy(text, controls, control);
	for (int i = 0; i < filling->count; i++)
		at = mempcpy(at, records + (size_t)filling->who[i] * (flows + out), flows);
	at = mempcpy(at, controls + control, control);
	at = mempcpy(at, barrier, sizeof(barrier));
	write_all(text, at - text);
	sent = filling;
	filling = other;
	filling->count = 0;
	waiting = 1;
}

static void send_on(void)
{
	static unsigned char text[MOST * (FRAME + 256)];
	unsigned char *at = text;

	for (int i = 0; i < sent->count; i++) {
		const unsigned char *record = records + (size_t)sent->who[i] * (flows + out);

		at = mempcpy(at, record + flows, out);
		at = mempcpy(at, sent->frame[i], sent->length[i]);
	}
	write_all(text, at - text);
	done += sent->count;
	waiting = 0;
}

static void packet_in(const unsigned char *message, int length)
{
	static const unsigned char source[] = { 0, 1, 0xda, 16 };	/* NXM_NX_TUN_IPV6_SRC */
	int match = be16(message + 26), at = 28, frame = 24 + match + (-match & 7) + 2;
	uint32_t who = total;

	for (; at < 24 + match; at += 4 + message[at + 3])
		if (!memcmp(message + at, source, 4))
			who = be32(message + at + 16) - first;
	if (who >= total || seen[who] || filling->count == MOST || length - frame > FRAME)
		return;
	seen[who] = 1;
	filling->who[filling->count] = who;
	filling->length[filling->count] = length - frame;
	memcpy(filling->frame[filling->count++], message + frame, length - frame);
}

static void receive(unsigned char *message, int length)
{
	switch (message[1]) {
	case ECHO_REQUEST:
		message[1] = ECHO_REPLY;
		write_all(message, length);
		break;
	case PACKET_IN:
		packet_in(message, length);
		break;
	case BARRIER_REPLY:
		send_on();
		break;
	}
}

int main(int argc, char **argv)
{
	static const unsigned char hello[] = { 4, HELLO, 0, 8, 0, 0, 0, 1 };
	struct sockaddr_in where = { .sin_family = AF_INET };
	static unsigned char buffer[BUFFER];
	int listening, yes = 1, have = 0;
	double end;
	struct stat size;

	if (argc != 4 || (listening = open(argv[3], O_RDONLY)) < 0 || fstat(listening, &size))
		return 2;
	file = mmap(NULL, size.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, listening, 0);
	if (file == MAP_FAILED)
		return 2;
	total = be32(file);
	first = be32(file + 4);
	flows = be32(file + 8);
	out = be32(file + 12);
	control = be32(file + 16);
	controls = file + 20;
	records = controls + 2 * control;
	seen = calloc(total, 1);
	where.sin_port = htons(atoi(argv[1]));
	where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listening = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listening, (void *)&where, sizeof(where)) || listen(listening, 1))
		return 2;
	conn = accept(listening, NULL, NULL);
	setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	write_all(hello, sizeof(hello));
	puts("ready");
	fflush(stdout);
	end = now() + atof(argv[2]);
	while (done < total && now() < end) {
		struct pollfd ready = { conn, POLLIN, 0 };
		int at = 0, length, n;

		if (poll(&ready, 1, 100) <= 0)
			continue;
		n = read(conn, buffer + have, BUFFER - have);
		if (n <= 0)
			return 1;
		have += n;
		for (; have - at >= 8 && (length = be16(buffer + at + 2)) <= have - at; at += length)
			receive(buffer + at, length);
		memmove(buffer, buffer + at, have -= at);
		if (filling->count && !waiting)
			send_bundle();
	}
	printf("%u\n", done);
	return 0;
}
