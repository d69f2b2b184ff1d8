/* rawtls: rawecho over TLS. What the kernel and OpenSSL cost for the same bytes; OpenSSL works in memory, so that each
 * read and each write is one call.
 * build: cc -O3 -o rawtls rawtls.c -lssl -lcrypto      run: rawtls PORT --tls PEM      (drive it with wsload --tls --raw) */
#include "raw.h"
#include <openssl/ssl.h>

#define MOST 65536
static SSL *sessions[MOST]; /* by descriptors */

static SSL *start(SSL_CTX *context) {
    SSL *s = SSL_new(context);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(in, -1);
    BIO_set_mem_eof_return(out, -1);
    SSL_set_bio(s, in, out);
    SSL_set_accept_state(s);
    return s;
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: rawtls PORT --tls PEM\n"); return 2; }
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, argv[argc - 1]) != 1 || SSL_CTX_use_PrivateKey_file(context, argv[argc - 1], SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "rawtls: no certificate and key in %s\n", argv[argc - 1]);
        return 1;
    }
    int l = listen_on(atoi(argv[1])), ep = epoll_create1(0);
    watch(ep, l);
    struct epoll_event ready[256];
    static char sealed[65536], plain[65536];
    for (;;) {
        int n = epoll_wait(ep, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == l) {
                for (int s; (s = accept_from(l)) >= 0;) {
                    if (s >= MOST) { close(s); continue; }
                    sessions[s] = start(context);
                    watch(ep, s);
                }
                continue;
            }
            SSL *s = sessions[fd];
            ssize_t k = recv(fd, sealed, sizeof sealed / 2, 0);
            if (k <= 0) { SSL_free(s); close(fd); continue; }
            BIO_write(SSL_get_rbio(s), sealed, k);
            for (int m; (m = SSL_read(s, plain, sizeof plain)) > 0;) {
                SSL_write(s, plain, m);
                if (!BIO_pending(SSL_get_rbio(s))) break;
            }
            for (int m; BIO_pending(SSL_get_wbio(s)) && (m = BIO_read(SSL_get_wbio(s), sealed, sizeof sealed)) > 0;)
                send_all(fd, sealed, m);
        }
    }
}
