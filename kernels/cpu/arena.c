// arena.c: device memory on a CPU, copies and casts.
//
// A block: [64 bytes: Head][the caller's bytes, 64-byte aligned]. Large blocks are mapped (huge pages asked for, zero
// pages given by the system when first touched), small ones come from malloc. The guard's bias is added to what is
// handed out.
#include "kernels/cpu/cpu.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "kernels/cpu/vec.h"

enum { HEAD_BYTES = 64, HUGE_PAGE = 1 << 21 };

typedef struct {
    void *map;        // start of the mapping; NULL: from malloc
    size_t map_bytes; // its length
    size_t bytes;     // as asked for
    int tag;          // MemTag; -1: scratch, which is not counted
} Head;

// At least bytes + HEAD_BYTES with the address after the head on a huge page.
static char *map_block(size_t bytes) {
    size_t room;
    if (!mem_add(bytes, 2 * (size_t)HUGE_PAGE, &room)) err_fatal("device memory of %zu bytes overflows", bytes);
    char *map = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) err_fatal("out of memory: %zu bytes of device memory asked for", bytes);
    const uintptr_t at = ((uintptr_t)map + HEAD_BYTES + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    madvise((void *)at, bytes, MADV_HUGEPAGE); // a wish: without huge pages it is slower, not wrong
    char *p = (char *)at;
    *(Head *)(p - HEAD_BYTES) = (Head){.map = map, .map_bytes = room, .tag = -1};
    return p;
}

static void *block_create(size_t bytes) {
    if (bytes >= HUGE_PAGE) return map_block(bytes);
    char *p = mem_alloc(bytes + HEAD_BYTES);
    *(Head *)p = (Head){.tag = -1};
    return p + HEAD_BYTES;
}

static void block_destroy(void *p) {
    if (!p) return;
    char *start = (char *)p - HEAD_BYTES;
    const Head h = *(const Head *)start;
    if (h.map) munmap(h.map, h.map_bytes);
    else mem_free(start);
}

Dev *mem_create_cpu(size_t bytes, MemTag tag) {
    char *p = block_create(bytes);
    Head *h = (Head *)(p - HEAD_BYTES);
    h->bytes = bytes;
    h->tag = (int)tag;
    kernels_mem_count(tag, (int64_t)bytes);
    return (Dev *)((uintptr_t)p + cpu_bias);
}

void mem_destroy_cpu(Dev *p) {
    if (!p) return;
    const Head *h = (const Head *)((const char *)cpu_ptr(p) - HEAD_BYTES);
    kernels_mem_count((MemTag)h->tag, -(int64_t)h->bytes);
    block_destroy(cpu_ptr(p));
}

void *host_create_cpu(size_t bytes) {
    kernels_mem_count(MEM_HOST, (int64_t)bytes);
    return block_create(bytes);
}

void host_destroy_cpu(void *p, size_t bytes) {
    if (p) kernels_mem_count(MEM_HOST, -(int64_t)bytes);
    block_destroy(p);
}

// What each thread keeps; freed when it ends (the main thread's is not).
static _Thread_local struct {
    void *p;
    size_t bytes;
} kept[SCRATCH_SLOTS];
static pthread_key_t at_end;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_kept(void *unused) {
    (void)unused;
    for (int i = 0; i < SCRATCH_SLOTS; i++) block_destroy(kept[i].p);
}

static void make_key(void) {
    if (pthread_key_create(&at_end, free_kept)) err_fatal("no key for what threads keep");
}

void *cpu_scratch(Scratch slot, size_t bytes) {
    if (kept[slot].bytes < bytes || !kept[slot].p) {
        pthread_once(&once, make_key);
        pthread_setspecific(at_end, kept);
        block_destroy(kept[slot].p);
        kept[slot].bytes = bytes + bytes / 4;
        kept[slot].p = block_create(kept[slot].bytes);
    }
    return kept[slot].p;
}

// ---- copies: large ones are split over the threads ----
static void copy_bytes(char *dst, const char *src, size_t bytes) {
    const int parts = cpu_team((int64_t)(bytes / 16));
    if (parts == 1) {
        memcpy(dst, src, bytes);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(parts)
    for (int i = 0; i < parts; i++) {
        int64_t first, last;
        cpu_share_flat((int64_t)bytes, parts, i, &first, &last);
        memcpy(dst + first, src + first, (size_t)(last - first));
    }
}

void copy_in_cpu(Dev *dst, const void *src_host, size_t bytes) {
    if (bytes) copy_bytes(cpu_ptr(dst), src_host, bytes);
}
void copy_out_cpu(void *dst_host, const Dev *src, size_t bytes) {
    if (bytes) copy_bytes(dst_host, cpu_ptr(src), bytes);
}
void copy_cpu(Dev *dst, const Dev *src, size_t bytes) {
    if (bytes) copy_bytes(cpu_ptr(dst), cpu_ptr(src), bytes);
}

void copy_2d_cpu(Dev *dst, size_t dst_pitch, const Dev *src, size_t src_pitch, size_t width_bytes, int64_t rows) {
    char *to = cpu_ptr(dst);
    const char *from = cpu_ptr(src);
#pragma omp parallel for schedule(static) num_threads(cpu_team(rows *(int64_t)(width_bytes / 16)))
    for (int64_t r = 0; r < rows; r++) memcpy(to + (size_t)r * dst_pitch, from + (size_t)r * src_pitch, width_bytes);
}

void zero_cpu(Dev *dst, size_t bytes) {
    char *p = cpu_ptr(dst);
    const int parts = cpu_team((int64_t)(bytes / 16));
    if (!bytes) return;
#pragma omp parallel for schedule(static) num_threads(parts)
    for (int i = 0; i < parts; i++) {
        int64_t first, last;
        cpu_share_flat((int64_t)bytes, parts, i, &first, &last);
        memset(p + first, 0, (size_t)(last - first));
    }
}

VEC_INLINE void cast_range(DType dst_dt, void *dst, DType src_dt, const void *src, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += LANES)
        vec_store_n(dst_dt, dst, i, vec_load_n(src_dt, src, i, last - i), last - i);
}

void cast_cpu(DType dst_dt, Dev *dst, DType src_dt, const Dev *src, int64_t n) {
    void *d = cpu_ptr(dst);
    const void *s = cpu_ptr(src);
    const int team = cpu_team(n);
    if (n <= 0) return;
    if (dst_dt == src_dt) {
        copy_bytes(d, s, (size_t)n * dtype_bytes(dst_dt));
        return;
    }
#pragma omp parallel for schedule(static) num_threads(team)
    for (int part = 0; part < team; part++) {
        int64_t first, last;
        cpu_share_flat(n, team, part, &first, &last);
        if (dst_dt == DS_F32) cast_range(DS_F32, d, DS_BF16, s, first, last);
        else cast_range(DS_BF16, d, DS_F32, s, first, last);
    }
}
