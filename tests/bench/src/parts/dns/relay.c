/* A transparent relay that parses nothing: the least a DNS proxy can do, to measure others against.
 *
 * In:  a port on 127.0.0.1 that datagrams are steered to, an upstream address.
 * Out: each datagram at the upstream under an id of the relay's own; the reply under the old one,
 *      from the address that was asked.
 * Not here: anything about DNS but that the first two bytes are an id.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MARK = 0xa00, BUFFER = 4 << 20, ROOM = 4096, TURN = 64 };

/* Who asked, under the id that his query left with. */
static struct { struct sockaddr_in client; uint16_t id; } asked[65536];

static void must(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int datagrams(const struct sockaddr_in *at, int transparent)
{
    int on = 1, mark = MARK, buffer = BUFFER;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(fd, "socket");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer), "SO_RCVBUFFORCE");
    must(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer), "SO_SNDBUFFORCE");
    if (transparent) {
        must(setsockopt(fd, SOL_IP, IP_TRANSPARENT, &on, sizeof on), "IP_TRANSPARENT");
        must(setsockopt(fd, SOL_IP, IP_RECVORIGDSTADDR, &on, sizeof on), "IP_RECVORIGDSTADDR");
        must(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark), "SO_MARK");
    }
    if (at)
        must(bind(fd, (const struct sockaddr *)at, sizeof *at), "bind");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: relay PORT SERVER\n");
        return 2;
    }
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])) };
    struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(53) };
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (inet_pton(AF_INET, argv[2], &server.sin_addr) != 1)
        return 2;
    int listener = datagrams(&here, 1), upstream = datagrams(NULL, 0);
    /* The address that is asked; there is one server here. */
    int replies = datagrams(&server, 1);
    must(connect(upstream, (struct sockaddr *)&server, sizeof server), "connect");

    struct pollfd ready[2] = { { listener, POLLIN, 0 }, { upstream, POLLIN, 0 } };
    static uint8_t room[ROOM];
    uint16_t next = 0;
    for (;;) {
        if (poll(ready, 2, -1) < 0 && errno != EINTR)
            must(-1, "poll");
        for (int n = 0; n < TURN && ready[0].revents; n++) {
            char control[CMSG_SPACE(sizeof(struct sockaddr_in))];
            struct sockaddr_in client;
            struct iovec part = { room, sizeof room };
            struct msghdr message = {
                .msg_name = &client, .msg_namelen = sizeof client, .msg_iov = &part,
                .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control,
            };
            ssize_t length = recvmsg(listener, &message, 0);
            if (length < 2)
                break;
            uint16_t id = next++;
            asked[id].client = client;
            memcpy(&asked[id].id, room, 2);
            memcpy(room, &id, 2);
            sendto(upstream, room, (size_t)length, 0, NULL, 0);
        }
        for (int n = 0; n < TURN && ready[1].revents; n++) {
            ssize_t length = recv(upstream, room, sizeof room, 0);
            if (length < 2)
                break;
            uint16_t id;
            memcpy(&id, room, 2);
            memcpy(room, &asked[id].id, 2);
            sendto(replies, room, (size_t)length, 0, (struct sockaddr *)&asked[id].client,
                   sizeof asked[id].client);
        }
    }
}
