/* What the servers among the raw programs have in common: one thread, epoll, loopback. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void watch(int ep, int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

/* A socket that listens on `port`; ends the program where that cannot be. */
static inline int listen_on(int port) {
    int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(l, (void *)&a, sizeof a) || listen(l, 4096)) { perror("listen"); exit(1); }
    return l;
}

/* The next connection, or -1. */
static inline int accept_from(int l) {
    int one = 1, s = accept4(l, 0, 0, SOCK_NONBLOCK);
    if (s >= 0) setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return s;
}

/* All of it, unless the connection has failed: then recv() will tell. */
static inline void send_all(int fd, const char *data, ssize_t size) {
    for (ssize_t o = 0; o < size;) {
        ssize_t w = send(fd, data + o, size - o, MSG_NOSIGNAL);
        if (w >= 0) o += w;
        else if (errno == EAGAIN) usleep(10);
        else break;
    }
}
