// SPDX-License-Identifier: Apache-2.0
/*
 * Asks a DHCP server on behalf of many clients: ask SERVER AT_ONCE SECONDS <QUESTIONS >ANSWERS
 *
 * Standard input has a question for each client: its IPv6 address, the length in two bytes, most
 * significant first, the UDP payload. Addresses count up from the first, and are local by a route.
 * So many are asked AT_ONCE; a question without an answer is asked again after RETRY seconds (RFC
 * 2131 section 4.1). An answer is what comes to the client's address with the four bytes of the
 * question at offset XID, which in DHCPV4-QUERY and DHCPV4-RESPONSE is the DHCPv4 transaction.
 *
 * Writes, in the machine's own byte order, for each client two doubles, the times of its first
 * question and of its answer by CLOCK_MONOTONIC, and the answer after its length in 16 bits; both are
 * 0 if there is none. Last come 32 bits, how many questions were asked again.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 65536
#define LONGEST 1500
#define BATCH 64
#define CLIENT_PORT 546
#define SERVER_PORT 547
#define XID 12
#define RETRY 4.0
#define ROOM (32 << 20)

struct client {
	struct in6_addr address;
	unsigned char *question, *answer;
	uint16_t asks, answers;	/* lengths */
	double asked, sent, answered;
};

static struct client clients[CLIENTS];
static struct sockaddr_in6 server = { .sin6_family = AF_INET6 };
static uint32_t count, again;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void read_questions(void)
{
	struct in6_addr address;
	unsigned char length[2];

	while (count < CLIENTS && fread(&address, sizeof address, 1, stdin) == 1 &&
	       fread(length, 1, 2, stdin) == 2) {
		struct client *client = &clients[count++];

		client->address = address;
		client->asks = length[0] << 8 | length[1];
		client->question = malloc(client->asks);
		if (fread(client->question, 1, client->asks, stdin) != client->asks)
			exit(2);
	}
}

static int open_socket(void)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(CLIENT_PORT) };
	int found = socket(AF_INET6, SOCK_DGRAM, 0), yes = 1, room = ROOM;

	if (found < 0 || setsockopt(found, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
	    setsockopt(found, IPPROTO_IPV6, IPV6_RECVPKTINFO, &yes, sizeof yes) ||
	    setsockopt(found, IPPROTO_IPV6, IPV6_FREEBIND, &yes, sizeof yes) ||
	    bind(found, (struct sockaddr *)&any, sizeof any)) {
		perror("ask");
		exit(1);
	}
	return found;
}

static void ask(int out, struct client *client)
{
	struct iovec part = { client->question, client->asks };
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control = { .header = { CMSG_LEN(sizeof(struct in6_pktinfo)), IPPROTO_IPV6, IPV6_PKTINFO } };
	struct in6_pktinfo from = { .ipi6_addr = client->address };
	struct msghdr message = { &server, sizeof server, &part, 1, &control, sizeof control };

	memcpy(CMSG_DATA(&control.header), &from, sizeof from);
	client->sent = now();
	if (!client->asked)
		client->asked = client->sent;
	sendmsg(out, &message, 0);	/* what is lost is asked again */
}

static struct client *client_of(struct msghdr *message)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	struct in6_pktinfo to;
	uint32_t number;

	if (!header || header->cmsg_type != IPV6_PKTINFO)
		return NULL;
	memcpy(&to, CMSG_DATA(header), sizeof to);
	number = ntohl(to.ipi6_addr.s6_addr32[3]) - ntohl(clients[0].address.s6_addr32[3]);
	return number < count ? &clients[number] : NULL;
}

/* How many clients have got their answers. */
static uint32_t receive(int in)
{
	static unsigned char payloads[BATCH][LONGEST], controls[BATCH][64];
	static struct iovec parts[BATCH];
	static struct mmsghdr messages[BATCH];
	uint32_t done = 0;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ payloads[i], LONGEST };
		messages[i].msg_hdr = (struct msghdr){ NULL, 0, &parts[i], 1, controls[i], 64 };
	}
	int got = recvmmsg(in, messages, BATCH, MSG_DONTWAIT, NULL);

	for (int i = 0; i < got; i++) {
		struct client *client = client_of(&messages[i].msg_hdr);
		size_t length = messages[i].msg_len;

		if (!client || !client->asked || client->answer || length < XID + 4 ||
		    memcmp(&payloads[i][XID], &client->question[XID], 4))
			continue;
		client->answered = now();
		client->answers = length;
		client->answer = memcpy(malloc(length), payloads[i], length);
		done++;
	}
	return done;
}

int main(int argc, char **argv)
{
	uint32_t next = 0, done = 0, oldest = 0;

	if (argc != 4 || inet_pton(AF_INET6, argv[1], &server.sin6_addr) != 1) {
		fprintf(stderr, "usage: ask SERVER AT_ONCE SECONDS <QUESTIONS >ANSWERS\n");
		return 2;
	}
	server.sin6_port = htons(SERVER_PORT);
	read_questions();
	uint32_t at_once = atoi(argv[2]);
	double end = now() + atof(argv[3]);
	struct pollfd socket = { .fd = open_socket(), .events = POLLIN };

	while (done < count && now() < end) {
		while (next < count && next - done < at_once)
			ask(socket.fd, &clients[next++]);
		if (poll(&socket, 1, 100))
			done += receive(socket.fd);
		while (oldest < next && clients[oldest].answer)
			oldest++;
		/* Those behind it were asked later, unless they have been asked again. */
		for (uint32_t i = oldest; i < next && clients[i].asked < now() - RETRY; i++) {
			if (clients[i].answer || clients[i].sent > now() - RETRY)
				continue;
			again++;
			ask(socket.fd, &clients[i]);
		}
	}
	for (uint32_t i = 0; i < count; i++) {
		fwrite(&clients[i].asked, sizeof(double), 1, stdout);
		fwrite(&clients[i].answered, sizeof(double), 1, stdout);
		fwrite(&clients[i].answers, sizeof(uint16_t), 1, stdout);
		fwrite(clients[i].answer, 1, clients[i].answers, stdout);
	}
	fwrite(&again, sizeof again, 1, stdout);
	return 0;
}
