/* wsflood: a WebSocket server that only talks: once a client has shaken hands it is sent messages of one size as
 * fast as it takes them, so that a client's receive path can be measured. One client at a time.
 *
 * build: cc -O3 -o wsflood wsflood.c -lcrypto
 * run:   wsflood PORT SIZE [text]      (the client decides when it has had enough and closes)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static void talk(int fd, size_t size, int text) {
    char head[16384]; size_t n = 0;
    while (n < sizeof head - 1) {
        ssize_t k = recv(fd, head + n, sizeof head - 1 - n, 0); if (k <= 0) return;
        n += k; head[n] = 0; if (strstr(head, "\r\n\r\n")) break;
    }
    char *key = strcasestr(head, "sec-websocket-key:"); if (!key) return;
    key += 18; while (*key == ' ') key++;
    char *end = strpbrk(key, "\r\n"); if (!end) return;
    char joined[256]; int m = snprintf(joined, sizeof joined, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", (int)(end - key), key);
    unsigned char sha[20], accept[64]; SHA1((unsigned char *)joined, m, sha); EVP_EncodeBlock(accept, sha, 20);
    char reply[512]; m = snprintf(reply, sizeof reply, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    if (send(fd, reply, m, MSG_NOSIGNAL) != m) return;
    uint8_t h[10]; size_t hn = 0; h[hn++] = 0x80 | (text ? 1 : 2);
    if (size < 126) h[hn++] = size; else if (size < 65536) { h[hn++] = 126; h[hn++] = size >> 8; h[hn++] = size; }
    else { h[hn++] = 127; for (int s = 56; s >= 0; s -= 8) h[hn++] = (uint64_t)size >> s; }
    size_t frame = hn + size, many = frame > 262144 ? 1 : 262144 / frame; uint8_t *block = malloc(many * frame);
    for (size_t i = 0; i < many; i++) { memcpy(block + i * frame, h, hn); memset(block + i * frame + hn, 'x', size); }
    for (;;) for (size_t o = 0; o < many * frame;) { ssize_t k = send(fd, block + o, many * frame - o, MSG_NOSIGNAL); if (k <= 0) { free(block); return; } o += k; }
}
int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: wsflood PORT SIZE [text]\n"); return 2; }
    int l = socket(AF_INET, SOCK_STREAM, 0), one = 1; setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(l, (void *)&a, sizeof a) || listen(l, 64)) { perror("wsflood"); return 1; }
    for (;;) {
        int fd = accept(l, 0, 0); if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); talk(fd, strtoull(argv[2], 0, 10), argc > 3);
        close(fd);
    }
}
