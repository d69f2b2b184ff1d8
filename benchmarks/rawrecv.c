/* rawrecv: the limit of a client that is sent messages. It reads into one buffer, and looks at nothing.
 * build: cc -O3 -o rawrecv rawrecv.c      run: rawrecv SIZE receive PORT SECONDS      (SIZE: of a message, for the count) */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    if (argc < 5) { fprintf(stderr, "usage: rawrecv SIZE receive PORT SECONDS\n"); return 2; }
    int size = atoi(argv[1]), head = size < 126 ? 2 : size < 65536 ? 4 : 10;
    double seconds = atof(argv[4]), warmup = 0.3;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(s, (void *)&a, sizeof a)) { perror("rawrecv"); return 1; }
    const char *hello = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    send(s, hello, strlen(hello), 0);
    int ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
    static char buf[131072];
    double begin = now(CLOCK_MONOTONIC), cpu = 0, bytes = 0;
    for (double t = begin; t < begin + warmup + seconds; t = now(CLOCK_MONOTONIC)) {
        if (!cpu && t >= begin + warmup) { cpu = now(CLOCK_PROCESS_CPUTIME_ID); bytes = 0; }
        ssize_t k = epoll_wait(ep, &e, 1, 1000) > 0 ? recv(s, buf, sizeof buf, MSG_DONTWAIT) : 0;
        if (k <= 0) { fprintf(stderr, "rawrecv: nothing comes any more\n"); return 1; }
        bytes += k;
    }
    double messages = bytes / (size + head);
    printf("{\"messages\": %.0f, \"cpu_us\": %.4f}\n", messages, 1e6 * (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / messages);
}
