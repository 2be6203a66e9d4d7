// dry.c: the backend that only counts. A block is a note of its size; addresses into it are never read.
#include "base/mem.h"
#include "kernels/kernels.h"

typedef struct {
    size_t bytes;
    MemTag tag;
} Note;

static Dev *mem_create(size_t bytes, MemTag tag) {
    Note *note = MEM_NEW(Note, 1);
    *note = (Note){bytes, tag};
    kernels_mem_count(tag, (int64_t)bytes);
    return (Dev *)note;
}

static void mem_destroy(Dev *p) {
    Note *note = (Note *)p;
    if (note) kernels_mem_count(note->tag, -(int64_t)note->bytes);
    mem_free(note);
}

static void *host_create(size_t bytes) {
    kernels_mem_count(MEM_HOST, (int64_t)bytes);
    return MEM_NEW(char, 1);
}

static void host_destroy(void *p, size_t bytes) {
    kernels_mem_count(MEM_HOST, -(int64_t)bytes);
    mem_free(p);
}

static void copy_in(Dev *dst, const void *src_host, size_t bytes) { (void)dst, (void)src_host, (void)bytes; }
static void copy(Dev *dst, const Dev *src, size_t bytes) { (void)dst, (void)src, (void)bytes; }
static void copy_2d(Dev *dst, size_t dst_pitch, const Dev *src, size_t src_pitch, size_t width_bytes, int64_t rows) {
    (void)dst, (void)dst_pitch, (void)src, (void)src_pitch, (void)width_bytes, (void)rows;
}
static void zero(Dev *dst, size_t bytes) { (void)dst, (void)bytes; }
static void low_rank_fwd(DType dt, Dev *y, const Dev *w, const Dev *b, const Dev *a, float scale, int64_t out,
                         int64_t rank, int64_t in) {
    (void)dt, (void)y, (void)w, (void)b, (void)a, (void)scale, (void)out, (void)rank, (void)in;
}
static void low_rank_bwd(DType dt, Dev *db, Dev *da, const Dev *dy, const Dev *b, const Dev *a, float scale,
                         int64_t out, int64_t rank, int64_t in) {
    (void)dt, (void)db, (void)da, (void)dy, (void)b, (void)a, (void)scale, (void)out, (void)rank, (void)in;
}
static void axpy(Dev *y, float a, const Dev *x, int64_t n) { (void)y, (void)a, (void)x, (void)n; }
static void add(DType dt, Dev *y, const Dev *x, int64_t n) { (void)dt, (void)y, (void)x, (void)n; }
static void quantize(int bits, Dev *packet, DType dt, const Dev *x, int64_t n) {
    (void)bits, (void)packet, (void)dt, (void)x, (void)n;
}
static void dequantize(int bits, DType dt, Dev *x, const Dev *packet, int64_t n) {
    (void)bits, (void)dt, (void)x, (void)packet, (void)n;
}

const Kernels kernels_dry = {.name = "dry",
                             .mem_create = mem_create,
                             .mem_destroy = mem_destroy,
                             .host_create = host_create,
                             .host_destroy = host_destroy,
                             .copy_in = copy_in,
                             .copy = copy,
                             .copy_2d = copy_2d,
                             .zero = zero,
                             .add = add,
                             .axpy = axpy,
                             .low_rank_fwd = low_rank_fwd,
                             .low_rank_bwd = low_rank_bwd,
                             .quantize = quantize,
                             .dequantize = dequantize};
