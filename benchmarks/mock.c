/* An OpenAI-compatible mock provider, and a load generator to find its ceiling. Linux, one thread, epoll.
 *
 *   mock serve [latency_ms=0] [rpm=0] [tpm=0] [headers=1] [reply_bytes=100] [cpu=-1]
 *       Prints the port it listens on (loopback) and answers every POST with one chat completion after a fixed latency.
 *       rpm and tpm are continuous buckets, of requests as deep as max(2, 50 ms of the rate), of tokens as deep as a
 *       second of it; with headers=1 every answer states them in OpenAI's headers. A refusal is a 429 at once and takes
 *       nothing.
 *       GET /log gives every arrival since the last GET /reset as records of 16 bytes, see `struct arrival`;
 *       GET /peak the most requests ever in flight at once.
 *   mock load port connections requests
 *       Posts prepared bytes as fast as it can and prints requests per second.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 65536, TIMER = MOST };

struct arrival { double at; int32_t status; int32_t tokens; };

struct conn {
    char *in, *out;
    size_t got, room, left, sent;
    uint32_t life;                 /* tells a connection from an earlier one with the same descriptor */
};

struct due { double at; int fd; uint32_t life; int32_t tokens; };

struct bucket { double limit, rate, depth, level, at; };

static struct conn conns[MOST];
static struct due *queue;          /* a ring: one latency for all, so it is in the order of time */
static size_t head, tail, ring = 1 << 16;
static struct arrival *arrivals;
static size_t arrived, arrivals_room;
static struct bucket requests, tokens;
static double latency;
static int poller, timer, stating = 1, in_flight, peak, reply_bytes = 100;
static char *content;

static void die(const char *what) { perror(what); exit(1); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void bucket_make(struct bucket *b, double per_minute, double seconds, double at) {
    b->limit = per_minute;
    b->rate = per_minute / 60;
    b->depth = b->level = fmax(2, seconds * b->rate);
    b->at = at;
}

static double bucket_wait(struct bucket *b, double need, double at) {
    if (!b->limit) return 0;
    b->level = fmin(b->depth, b->level + (at - b->at) * b->rate);
    b->at = at;
    double missing = fmin(need, b->depth) - b->level;
    return missing > 1e-9 ? missing / b->rate : 0;
}

static size_t bucket_tell(struct bucket *b, const char *what, char *to) {
    if (!b->limit || !stating) return 0;
    double held = b->level > 0 ? floor(b->level + 1e-9) : 0;
    return sprintf(to, "x-ratelimit-limit-%s: %.0f\r\nx-ratelimit-remaining-%s: %.0f\r\nx-ratelimit-reset-%s: %.3fms\r\n",
                   what, b->limit, what, held, what, (b->depth - b->level) / b->rate * 1000);
}

static void watch(int fd, int op, uint32_t events) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, op, fd, &e)) die("epoll_ctl");
}

static void hang_up(int fd) {
    struct conn *c = &conns[fd];
    free(c->out);
    c->out = NULL;
    c->got = c->left = c->sent = 0;
    c->life++;
    close(fd);
}

/* Takes over `data`. */
static void answer(int fd, char *data, size_t size) {
    struct conn *c = &conns[fd];
    ssize_t n = write(fd, data, size);
    if (n == (ssize_t)size) { free(data); return; }
    if (n < 0 && errno != EAGAIN) { free(data); hang_up(fd); return; }
    c->out = data;
    c->sent = n < 0 ? 0 : n;
    c->left = size - c->sent;
    watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

static void go_on_writing(int fd) {
    struct conn *c = &conns[fd];
    ssize_t n = write(fd, c->out + c->sent, c->left);
    if (n < 0) { if (errno != EAGAIN) hang_up(fd); return; }
    c->sent += n;
    c->left -= n;
    if (c->left) return;
    free(c->out);
    c->out = NULL;
    watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

static void answer_json(int fd, const char *status, const char *more, const char *body) {
    char limits[512];
    size_t n = bucket_tell(&requests, "requests", limits);
    n += bucket_tell(&tokens, "tokens", limits + n);
    limits[n] = 0;
    char *data;
    int size = asprintf(&data, "HTTP/1.1 %s\r\ncontent-type: application/json\r\nx-request-id: req_%zu\r\n%s%scontent-length: %zu\r\n\r\n%s",
                        status, arrived, limits, more, strlen(body), body);
    if (size < 0) die("asprintf");
    answer(fd, data, size);
}

static void complete(int fd, int32_t used) {
    static char *body;
    size_t room = 4096 + (size_t)reply_bytes;
    int output = 8;
    if (!body) body = malloc(room);
    snprintf(body, room,
             "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"mock\",\"choices\":[{\"index\":0,"
             "\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
             "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
             "\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}}",
             content, used - output, output, used);
    in_flight--;
    answer_json(fd, "200 OK", "", body);
}

static void refuse(int fd, double wait, const char *kind) {
    char more[128], body[256];
    snprintf(more, sizeof more, "retry-after-ms: %.0f\r\n", ceil(wait * 1000));
    snprintf(body, sizeof body, "{\"error\":{\"message\":\"Rate limit reached on %s per min\",\"type\":\"%s\",\"code\":\"rate_limit_exceeded\"}}", kind, kind);
    answer_json(fd, "429 Too Many Requests", more, body);
}

static void note(double at, int status, int32_t used) {
    if (arrived == arrivals_room) {
        arrivals_room = arrivals_room ? 2 * arrivals_room : 1 << 16;
        arrivals = realloc(arrivals, arrivals_room * sizeof *arrivals);
    }
    arrivals[arrived++] = (struct arrival){at, status, used};
}

static void push(struct due one) {
    if (tail - head == ring) {
        struct due *more = malloc(2 * ring * sizeof *more);
        for (size_t i = head; i < tail; i++) more[i % (2 * ring)] = queue[i % ring];
        free(queue);
        queue = more;
        ring *= 2;
    }
    queue[tail++ % ring] = one;
}

static void arm(void) {
    double at = queue[head % ring].at;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)at, .tv_nsec = (long)((at - (time_t)at) * 1e9)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void take(int fd, size_t body) {
    double at = now();
    int32_t used = body / 4 + 8;
    double wait = bucket_wait(&requests, 1, at), wait_tokens = bucket_wait(&tokens, used, at);
    note(at, wait || wait_tokens ? 429 : 200, used);
    if (wait || wait_tokens) { refuse(fd, wait ? wait : wait_tokens, wait ? "requests" : "tokens"); return; }
    if (requests.limit) requests.level -= 1;
    if (tokens.limit) tokens.level -= used;
    if (++in_flight > peak) peak = in_flight;
    if (!latency) { complete(fd, used); return; }
    push((struct due){at + latency, fd, conns[fd].life, used});
    if (tail - head == 1) arm();
}

static void control(int fd, const char *path) {
    char head_text[128];
    const char *said = "ok";
    char number[16];
    size_t size = 2;
    if (!strncmp(path, "/log", 4)) {
        said = (char *)arrivals;
        size = arrived * sizeof *arrivals;
    } else if (!strncmp(path, "/peak", 5)) {
        size = snprintf(number, sizeof number, "%d", peak);
        said = number;
    } else if (!strncmp(path, "/reset", 6)) {
        arrived = 0;
        peak = in_flight;
    }
    int n = snprintf(head_text, sizeof head_text, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n", size);
    char *data = malloc(n + size + 1);
    memcpy(data, head_text, n);
    if (size) memcpy(data + n, said, size);
    answer(fd, data, n + size);
}

static size_t content_length(const char *from, const char *to) {
    for (const char *line = from; line < to; line++) {
        if (*line == '\n' && !strncasecmp(line + 1, "content-length:", 15)) return strtoul(line + 16, NULL, 10);
    }
    return 0;
}

/* One request at a time on a connection, as HTTP/1.1 without pipelining has it. */
static void heard(int fd) {
    struct conn *c = &conns[fd];
    if (c->room - c->got < 65536) c->in = realloc(c->in, c->room = 2 * c->room + 131072);
    ssize_t n = read(fd, c->in + c->got, c->room - c->got - 1);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { hang_up(fd); return; }
    c->got += n;
    c->in[c->got] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return;
    size_t body = content_length(c->in, end), whole = end + 4 - c->in + body;
    if (c->got < whole) return;
    c->got = 0;
    if (c->in[0] == 'G') control(fd, c->in + 4);
    else take(fd, body);
}

static void time_is_up(void) {
    uint64_t times;
    if (read(timer, &times, sizeof times) < 0 && errno != EAGAIN) die("timer");
    double at = now();
    for (; head < tail && queue[head % ring].at <= at; head++) {
        struct due *one = &queue[head % ring];
        if (conns[one->fd].life == one->life) complete(one->fd, one->tokens);
        else in_flight--;
    }
    if (head < tail) arm();
}

static void welcome(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MOST) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conns[fd].got = 0;
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static int listening(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof place;
    if (bind(listener, (struct sockaddr *)&place, size) || listen(listener, 4096)) die("listen");
    getsockname(listener, (struct sockaddr *)&place, &size);
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
    return listener;
}

static double option(int count, char **words, const char *name, double otherwise) {
    size_t size = strlen(name);
    for (int i = 0; i < count; i++)
        if (!strncmp(words[i], name, size) && words[i][size] == '=') return atof(words[i] + size + 1);
    return otherwise;
}

static void stay_on(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (cpu >= 0) sched_setaffinity(0, sizeof set, &set);
}

static void serve(int count, char **words) {
    latency = option(count, words, "latency_ms", 0) / 1000;
    bucket_make(&requests, option(count, words, "rpm", 0), 0.05, now());
    bucket_make(&tokens, option(count, words, "tpm", 0), 1, now());
    stating = option(count, words, "headers", 1);
    reply_bytes = option(count, words, "reply_bytes", 100);
    stay_on(option(count, words, "cpu", -1));
    content = malloc(reply_bytes + 1);
    for (int i = 0; i < reply_bytes; i++) content[i] = i % 6 == 5 ? ' ' : 'a' + i % 26;
    content[reply_bytes] = 0;
    queue = malloc(ring * sizeof *queue);
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(timer, EPOLL_CTL_ADD, EPOLLIN);
    int listener = listening();
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    struct epoll_event events[1024];
    for (;;) {
        int n = epoll_wait(poller, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) welcome(listener);
            else if (fd == timer) time_is_up();
            else if (conns[fd].left && events[i].events & EPOLLOUT) go_on_writing(fd);
            else heard(fd);
        }
    }
}

static int dial(int port) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (connect(fd, (struct sockaddr *)&place, sizeof place)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static int load(int port, int connections, long wanted) {
    char request[1024], reply[65536];
    int size = sprintf(request, "POST /v1/chat/completions HTTP/1.1\r\nhost: mock\r\ncontent-type: application/json\r\ncontent-length: 400\r\n\r\n");
    memset(request + size, ' ', 400);
    size += 400;
    poller = epoll_create1(0);
    long asked = 0, answered = 0;
    double began = now();
    for (int i = 0; i < connections; i++, asked++) {
        int fd = dial(port);
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
        if (write(fd, request, size) < 0) die("write");
    }
    struct epoll_event events[1024];
    while (answered < wanted) {
        int n = epoll_wait(poller, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            if (read(events[i].data.fd, reply, sizeof reply) <= 0) die("read");
            answered++;
            if (asked++ < wanted && write(events[i].data.fd, request, size) < 0) die("write");
        }
    }
    printf("%.0f\n", answered / (now() - began));
    return 0;
}

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "serve")) serve(count, words);
    if (count == 5 && !strcmp(words[1], "load")) return load(atoi(words[2]), atoi(words[3]), atol(words[4]));
    fprintf(stderr, "usage: mock serve [name=value ...] | mock load port connections requests\n");
    return 2;
}
