/* rawsend: the limit of a broadcast. A WebSocket server in C, one thread, epoll, that five times a second writes one
 * prepared frame to each of its connections, in a loop of send() and nothing else.
 * build: cc -O3 -o rawsend rawsend.c      run: rawsend PORT SIZE      (drive it with wsload --listen) */
#include "raw.h"
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#define MOST 65536                 /* descriptors */
static char listens[MOST];         /* by descriptor: it has shaken hands */
/* wsload's key is always the same, and so is the answer. Its request comes in one piece. */
static const char welcome[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: rawsend PORT SIZE\n"); return 2; }
    struct rlimit most; getrlimit(RLIMIT_NOFILE, &most); most.rlim_cur = most.rlim_max; setrlimit(RLIMIT_NOFILE, &most);
    size_t size = strtoull(argv[2], 0, 10), head = 2;
    if (size > 65535) { fprintf(stderr, "rawsend: at most 65535 bytes\n"); return 2; }
    static uint8_t frame[4 + 65535] = {0x82}; frame[1] = size;
    if (size > 125) { frame[1] = 126; frame[2] = size >> 8; frame[3] = size; head = 4; }
    memset(frame + head, 'x', size);
    int l = listen_on(atoi(argv[1])), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), ep = epoll_create1(0);
    struct itimerspec every = {{0, 200000000}, {0, 200000000}}; timerfd_settime(timer, 0, &every, 0);
    watch(ep, l); watch(ep, timer);
    struct epoll_event ready[256];
    static char buf[65536];
    for (;;) {
        int n = epoll_wait(ep, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == l) {
                for (int s; (s = accept_from(l)) >= 0;) {
                    if (s >= MOST) { close(s); continue; }
                    watch(ep, s);
                }
            } else if (fd == timer) {
                uint64_t times; if (read(timer, &times, sizeof times) < 0) continue;
                for (int s = 0; s < MOST; s++)
                    if (listens[s] && send(s, frame, head + size, MSG_NOSIGNAL) < 0) { listens[s] = 0; shutdown(s, SHUT_RDWR); }
            } else {
                ssize_t k = recv(fd, buf, sizeof buf, 0);
                if (k <= 0) { listens[fd] = 0; close(fd); continue; }
                if (!listens[fd]) listens[fd] = send(fd, welcome, sizeof welcome - 1, MSG_NOSIGNAL) > 0;
            }
        }
    }
}
