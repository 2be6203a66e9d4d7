// watch_files.c: see watch_files.h. A file: [head][one entry a rank of the node][the head's count again].
#include "base/watch_files.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

typedef struct {
    uint64_t mark, count; // of the start; grows with every write
    int32_t n, fired;
} Head;

typedef struct {
    int32_t rank, pad;
    WatchSlot slot;
} Entry;

static struct {
    pthread_mutex_t lock; // held while files are touched
    WatchBoard *board;
    char *folder;
    uint64_t mark, count;
    int rank, n_local, n_nodes;
    const int *local, *nodes;
    uint64_t *beat; // [n_local] as last seen
    _Atomic double period;
    bool ended;
} courier = {.lock = PTHREAD_MUTEX_INITIALIZER, .period = 3};

void watch_files_period(double seconds) { courier.period = seconds; }

static char *path_of(int first) { return mem_printf("%s/%05d", courier.folder, first); }

// Is this rank the lowest of its node whose watchdog has moved since the last round?
static bool is_mine(void) {
    bool lower = false, mine = false;
    for (int i = 0; i < courier.n_local; i++) {
        const WatchSlot *s = &courier.board->slot[courier.local[i]];
        const uint64_t beat = s->beat;
        const bool lives = beat != courier.beat[i] && s->state < WATCH_ENDED;
        courier.beat[i] = beat;
        if (courier.local[i] == courier.rank) mine = !lower;
        lower |= lives;
    }
    return mine;
}

static void write_node(void) {
    const size_t bytes = sizeof(Head) + (size_t)courier.n_local * sizeof(Entry) + sizeof(uint64_t);
    char *data = mem_alloc(bytes), *path = path_of(courier.local[0]), *at = data + sizeof(Head);
    const Head head = {courier.mark, ++courier.count, courier.n_local, courier.board->fired};
    memcpy(data, &head, sizeof head);
    for (int i = 0; i < courier.n_local; i++, at += sizeof(Entry)) {
        Entry *e = (Entry *)(void *)at;
        e->rank = courier.local[i];
        watch_board_copy(&e->slot, &courier.board->slot[e->rank], sizeof e->slot);
    }
    memcpy(at, &head.count, sizeof head.count);
    const int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0) {
        // A round that fails is one round without news.
        if (pwrite(fd, data, bytes, 0) != (ssize_t)bytes) courier.count--;
        close(fd);
    }
    mem_free(data);
    mem_free(path);
}

// Into the board, if it is whole and of this start.
static void take_news(const char *data, size_t bytes) {
    Head head;
    uint64_t again;
    if (bytes < sizeof head + sizeof again) return;
    memcpy(&head, data, sizeof head);
    if (head.mark != courier.mark || head.n < 1 || head.n > courier.board->size ||
        bytes != sizeof head + (size_t)head.n * sizeof(Entry) + sizeof again)
        return;
    memcpy(&again, data + bytes - sizeof again, sizeof again);
    if (again != head.count) return;
    const Entry *e = (const Entry *)(const void *)(data + sizeof head);
    for (int i = 0; i < head.n; i++)
        if (e[i].rank >= 0 && e[i].rank < courier.board->size)
            watch_board_copy(&courier.board->slot[e[i].rank], &e[i].slot, sizeof e[i].slot);
    int nobody = 0;
    // Another node has said why; a moment for those of this one to leave together.
    if (head.fired && atomic_compare_exchange_strong(&courier.board->fired, &nobody, head.fired))
        courier.board->leave = clock_now() + 1;
}

static void read_nodes(void) {
    const size_t room = sizeof(Head) + (size_t)courier.board->size * sizeof(Entry) + sizeof(uint64_t);
    char *data = mem_alloc(room);
    for (int i = 0; i < courier.n_nodes; i++) {
        if (courier.nodes[i] == courier.local[0]) continue;
        char *path = path_of(courier.nodes[i]);
        const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        const ssize_t n = fd < 0 ? 0 : read(fd, data, room);
        if (fd >= 0) close(fd);
        if (n > 0) take_news(data, (size_t)n);
        mem_free(path);
    }
    mem_free(data);
    courier.board->round++;
}

// Has a rank of the node been quiet so long that its watchdog will want to know of the others?
static bool is_wanted(void) {
    for (int i = 0; i < courier.n_local; i++) {
        const WatchSlot *s = &courier.board->slot[courier.local[i]];
        if (s->state == WATCH_RUNS && (double)s->quiet > courier.period) return true;
    }
    return false;
}

static void *carry(void *unused) {
    for (;;) {
        clock_sleep_until(clock_now() + courier.period);
        pthread_mutex_lock(&courier.lock);
        const bool there = courier.board->slot[courier.rank].state < WATCH_ENDED; // else the file may be gone already
        const bool works = !courier.ended && there && is_mine();
        if (works) write_node();
        if (works && is_wanted()) read_nodes();
        pthread_mutex_unlock(&courier.lock);
    }
    return unused;
}

void watch_files_start(WatchBoard *b, const char *folder, uint64_t mark, int rank, const int *local, int n_local,
                       const int *nodes, int n_nodes) {
    pthread_t thread;
    courier.board = b;
    courier.folder = mem_strdup(folder);
    courier.mark = mark;
    courier.rank = rank;
    courier.local = local, courier.n_local = n_local;
    courier.nodes = nodes, courier.n_nodes = n_nodes;
    courier.beat = MEM_NEW(uint64_t, n_local);
    if (pthread_create(&thread, NULL, carry, NULL) == 0) pthread_detach(thread);
}

void watch_files_end(void) {
    if (!courier.folder) return;
    pthread_mutex_lock(&courier.lock);
    courier.ended = true;
    if (courier.rank == courier.local[0]) {
        char *path = path_of(courier.rank);
        unlink(path);
        rmdir(courier.folder);
        mem_free(path);
    }
    pthread_mutex_unlock(&courier.lock);
}
