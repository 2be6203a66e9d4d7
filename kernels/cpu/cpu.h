// cpu.h: what the CPU kernels share: the address behind a Dev *, threads, scratch memory.
//
// The files of this folder are compiled once for each instruction set, and joined so that only the set's CpuSet is seen
// from outside (Makefile); kernels.c picks one. So nothing here may be shared between sets but what kernels.c holds.
#ifndef DS_CPU_H
#define DS_CPU_H

#include "kernels/kernels.h"

// The guard mode of the design: with DSCHAT_GUARD=1 in the environment every address handed out is the real one plus
// cpu_bias, which lands in the kernel's half of the address space: host code that reads through a Dev * crashes at
// once, as it would with a GPU. Kernels (cpu_ptr) and collectives (kernels_comm_ptr) take the bias off. Without the
// guard it is 0. Set by kernels_open, before any memory is created, and not changed while some is alive.
#define CPU_GUARD_BIAS ((uintptr_t)0xffff800000000000u)
extern uintptr_t cpu_bias;

// OpenMP threads of this process.
extern int cpu_threads;

static inline void *cpu_ptr(const Dev *p) { return p ? (void *)((uintptr_t)p - cpu_bias) : NULL; }

// Threads for a loop over n elements: few elements stay on one thread (a fork costs more than they do).
static inline int cpu_team(int64_t n) { return n < 16384 ? 1 : cpu_threads; }

// Scratch of the calling thread, one buffer a slot, 64-byte aligned, contents undefined. Grows when asked for more and
// is kept until the process ends, so that a step after the first allocates nothing.
typedef enum {
    SCRATCH_X,
    SCRATCH_W,
    SCRATCH_ACC,
    SCRATCH_A,
    SCRATCH_B,
    SCRATCH_C,
    SCRATCH_D,
    SCRATCH_E,
    SCRATCH_SLOTS
} Scratch;
void *cpu_scratch(Scratch slot, size_t bytes);

static inline float *cpu_scratch_f32(Scratch slot, int64_t n) { return cpu_scratch(slot, (size_t)n * sizeof(float)); }

// What part `i` of `parts` has of n items: [*first, *last), as even as it goes.
static inline void cpu_share(int64_t n, int64_t parts, int64_t i, int64_t *first, int64_t *last) {
    *first = n * i / parts;
    *last = n * (i + 1) / parts;
}

// The same for flat buffers, in whole cache lines.
static inline void cpu_share_flat(int64_t n, int64_t parts, int64_t i, int64_t *first, int64_t *last) {
    cpu_share(ds_ceil_div(n, 64), parts, i, first, last);
    *first *= 64;
    *last = ds_min(*last * 64, n);
}

// ---- the operations, one file each; contracts in kernels.h ----
Dev *mem_create_cpu(size_t bytes, MemTag tag);
void mem_destroy_cpu(Dev *p);
void *host_create_cpu(size_t bytes);
void host_destroy_cpu(void *p, size_t bytes);
void copy_in_cpu(Dev *dst, const void *src_host, size_t bytes);
void copy_out_cpu(void *dst_host, const Dev *src, size_t bytes);
void copy_cpu(Dev *dst, const Dev *src, size_t bytes);
void copy_2d_cpu(Dev *dst, size_t dst_pitch, const Dev *src, size_t src_pitch, size_t width_bytes, int64_t rows);
void zero_cpu(Dev *dst, size_t bytes);
void cast_cpu(DType dst_dt, Dev *dst, DType src_dt, const Dev *src, int64_t n);

void embed_fwd_cpu(DType dt, Dev *y, const Dev *table, int64_t first, int64_t rows, const Dev *ids,
                   const Dev *pos_table, const Dev *pos, int64_t pos_offset, int64_t n, int64_t width);
void embed_bwd_cpu(DType dt, Dev *dtable, int64_t rows, const Dev *dy, const Dev *ids, int64_t offset, int64_t n,
                   int64_t width);
void gather_rows_cpu(DType dt, Dev *y, const Dev *x, const Dev *rows, int64_t n, int64_t width);
void scatter_rows_cpu(DType dt, Dev *y, const Dev *x, const Dev *rows, int64_t n, int64_t width);

void norm_fwd_cpu(DType dt, KernelNorm kind, Dev *y, Dev *stats, const Dev *x, const Dev *w, const Dev *b, int64_t n,
                  int64_t width, float eps);
void norm_bwd_cpu(DType dt, KernelNorm kind, Dev *dx, bool accumulate, Dev *dw, Dev *db, const Dev *dy, const Dev *x,
                  const Dev *w, const Dev *stats, int64_t n, int64_t width);
void head_norm_fwd_cpu(DType dt, HeadView x, Dev *raw, Dev *rstd, const Dev *w, int64_t n, int64_t head_dim, float eps);
void head_norm_bwd_cpu(DType dt, HeadView dx, Dev *dw, const Dev *raw, const Dev *rstd, const Dev *w, int64_t n,
                       int64_t head_dim);

void linear_fwd_cpu(DType dt, DType y_dt, Dev *y, const Dev *x, const Dev *w, const Dev *bias, int64_t m, int64_t out,
                    int64_t in);
void linear_bwd_x_cpu(DType dt, Dev *dx, bool accumulate, const Dev *dy, const Dev *w, int64_t m, int64_t out,
                      int64_t in);
void linear_bwd_w_cpu(DType dt, Dev *dw, Dev *dbias, const Dev *dy, const Dev *x, int64_t m, int64_t out, int64_t in);
// bf16 products of the backward pass by oneDNN; contracts as in kernels.h. Used where the hardware multiplies bf16.
void linear_bf16_bwd_x(uint16_t *dx, bool accumulate, const uint16_t *dy, const uint16_t *w, int64_t m, int64_t out,
                       int64_t in);
void linear_bf16_bwd_w(float *dw, const uint16_t *dy, const uint16_t *x, int64_t m, int64_t out, int64_t in);

void low_rank_fwd_cpu(DType dt, Dev *y, const Dev *w, const Dev *b, const Dev *a, float scale, int64_t out,
                      int64_t rank, int64_t in);
void low_rank_bwd_cpu(DType dt, Dev *db, Dev *da, const Dev *dy, const Dev *b, const Dev *a, float scale, int64_t out,
                      int64_t rank, int64_t in);
void rope_cpu(DType dt, HeadView x, const Dev *table, const Dev *pos, int64_t n, int64_t rot, int sign);
void attn_fwd_cpu(DType dt, AttnShape a, Dev *o, Dev *lse, HeadView q, HeadView k, HeadView v, const int32_t *starts,
                  int64_t n_seq, const int32_t *first, const KvCache *past);
void attn_bwd_cpu(DType dt, AttnShape a, HeadView dq, HeadView dk, HeadView dv, Dev *delta, const Dev *do_,
                  const Dev *o, const Dev *lse, HeadView q, HeadView k, HeadView v, const int32_t *starts,
                  int64_t n_seq);
void kv_write_cpu(DType dt, KvCache cache, HeadView k, HeadView v, int64_t head_dim, const int32_t *starts,
                  int64_t n_seq, const int32_t *first);

void add_cpu(DType dt, Dev *y, const Dev *x, int64_t n);
void act_fwd_cpu(DType dt, KernelAct act, Dev *y, const Dev *x, int64_t n);
void act_bwd_cpu(DType dt, KernelAct act, Dev *dx, const Dev *dy, const Dev *x, int64_t n);
void glu_fwd_cpu(DType dt, KernelAct act, Dev *y, const Dev *x, int64_t n, int64_t ffn);
void glu_bwd_cpu(DType dt, KernelAct act, Dev *dx, const Dev *dy, const Dev *x, int64_t n, int64_t ffn);

void logprob_fwd_cpu(Dev *logp, Dev *lse, Dev *entropy, const Dev *logits, const Dev *target, int64_t n, int64_t vocab,
                     int64_t valid, float inv_temperature);
void logprob_bwd_cpu(DType dt, Dev *dlogits, const Dev *logits, const Dev *lse, const Dev *target, const Dev *dlogp,
                     const Dev *dentropy, const Dev *entropy, int64_t n, int64_t vocab, int64_t valid,
                     float inv_temperature);
void sample_cpu(Dev *id, const Dev *logits, const Dev *u, int64_t n, int64_t vocab, int64_t valid, float temperature,
                int64_t top_k, float top_p);

void master_split_cpu(Dev *w, Dev *rest, const Dev *x, int64_t n);
void master_join_cpu(Dev *x, const Dev *w, const Dev *rest, int64_t n);
void adamw_cpu(DType dt, Dev *w, Dev *rest, Dev *m, Dev *v, const Dev *grad, int64_t n, AdamwArgs a);
void sumsq_cpu(double *out_host, const Dev *x, int64_t n, int64_t chunk);
void ema_cpu(Dev *ema, const Dev *w, int64_t n, float beta);
void axpy_cpu(Dev *y, float a, const Dev *x, int64_t n);
void scale_cpu(Dev *y, float a, int64_t n);

void quantize_cpu(int bits, Dev *packet, DType dt, const Dev *x, int64_t n);
void dequantize_cpu(int bits, DType dt, Dev *x, const Dev *packet, int64_t n);

// One instruction set's kernels.
typedef struct {
    const Kernels *table;
    bool has_bf16;                // multiplies bf16 in hardware
    void (*start)(void);          // before the first operation
    const char *(*library)(void); // what multiplies in the backward pass: "oneDNN 2.6.3"
} CpuSet;

#endif
