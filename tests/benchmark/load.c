/* Loads a Modbus TCP server on 127.0.0.1 and counts its replies.
 *
 * usage: load PORT CONNECTIONS OUTSTANDING SECONDS SERVER_PID
 *
 * Every connection keeps OUTSTANDING requests (read 10 input registers at 0, unit 1) under way. Each
 * reply must carry the id of a request that is still unanswered on its connection, and the expected
 * header. Prints "replies wrong unanswered seconds server_cpu_seconds" for the time after a short
 * warm-up; wrong and unanswered count for the whole run.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 12, REPLY = 29, MAX_CONNECTIONS = 64, MAX_OUTSTANDING = 64 };
static const double WARM_UP_S = 0.3, DRAIN_S = 0.5;

typedef struct {
    int fd;
    uint16_t next_id;
    uint8_t waiting[65536]; /* by transaction id */
    uint8_t received[4096];
    size_t length;
} connection_t;

static connection_t connections[MAX_CONNECTIONS];
static long replies, wrong, under_way;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* User and system time of a process, fields 14 and 15 of /proc/PID/stat. */
static double cpu_s(const char *pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(text, sizeof text, file)) fail(path);
    fclose(file);
    unsigned long user, system;
    const char *after_name = strrchr(text, ')');
    if (!after_name || sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        fail(path);
    return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

static void send_requests(connection_t *c, int count) {
    uint8_t bytes[MAX_OUTSTANDING * REQUEST], *p = bytes;
    for (int i = 0; i < count; i++, p += REQUEST) {
        uint16_t id = c->next_id++;
        memcpy(p, (uint8_t[]){id >> 8, id & 0xFF, 0, 0, 0, 6, 1, 4, 0, 0, 0, 10}, REQUEST);
        c->waiting[id] = 1;
    }
    if (write(c->fd, bytes, p - bytes) != p - bytes) fail("write");
    under_way += count;
}

static int take_replies(connection_t *c) {
    static const uint8_t expected[] = {0, 0, 0, 23, 1, 4, 20};
    ssize_t n = read(c->fd, c->received + c->length, sizeof c->received - c->length);
    if (n == 0) { fprintf(stderr, "the server closed a connection\n"); exit(1); }
    if (n < 0) { if (errno == EAGAIN) return 0; fail("read"); }
    c->length += n;
    size_t at = 0;
    int taken = 0;
    for (; c->length - at >= 6; taken++) {
        const uint8_t *reply = c->received + at;
        size_t size = 6 + (reply[4] << 8 | reply[5]);
        if (size > 260) { fprintf(stderr, "a reply of %zu bytes\n", size); exit(1); }
        if (c->length - at < size) break;
        uint16_t id = reply[0] << 8 | reply[1];
        int good = size == REPLY && !memcmp(reply + 2, expected, sizeof expected) && c->waiting[id];
        if (!good) wrong++;
        c->waiting[id] = 0;
        at += size;
    }
    memmove(c->received, c->received + at, c->length -= at);
    replies += taken;
    under_way -= taken;
    return taken;
}

static void serve_until(int epoll, double end_s, int send_more) {
    struct epoll_event events[MAX_CONNECTIONS];
    while (now_s() < end_s && (send_more || under_way > 0)) {
        /* Never sleeps: with one connection, waking up would take as long as the server's work. */
        int n = epoll_wait(epoll, events, MAX_CONNECTIONS, 0);
        for (int i = 0; i < n; i++) {
            connection_t *c = events[i].data.ptr;
            int taken = take_replies(c);
            if (send_more && taken > 0 && taken <= MAX_OUTSTANDING) send_requests(c, taken);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 6) { fprintf(stderr, "usage: load PORT CONNECTIONS OUTSTANDING SECONDS SERVER_PID\n"); return 2; }
    int count = atoi(argv[2]), outstanding = atoi(argv[3]);
    double seconds = atof(argv[4]);
    if (count < 1 || count > MAX_CONNECTIONS || outstanding < 1 || outstanding > MAX_OUTSTANDING) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int epoll = epoll_create1(0), on = 1;
    for (int i = 0; i < count; i++) {
        connection_t *c = &connections[i];
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
        send_requests(c, outstanding);
    }
    serve_until(epoll, now_s() + WARM_UP_S, 1);
    long replies_before = replies;
    double cpu_before = cpu_s(argv[5]), start = now_s();
    serve_until(epoll, start + seconds, 1);
    double took = now_s() - start, cpu = cpu_s(argv[5]) - cpu_before;
    long counted = replies - replies_before;
    serve_until(epoll, now_s() + DRAIN_S, 0);
    printf("%ld %ld %ld %.6f %.6f\n", counted, wrong, under_way, took, cpu);
    return 0;
}
