// kernels.h: THE contract between the program and a device: a table of typed operations that a backend fills.
//
// Rules that hold for every operation
// - Not collective. Ordered on the device's one stream: an operation sees the results of those called before it.
// copy_out,
//   sumsq, and the operations documented to fill host memory return when their result is there.
// - `Dev *` is device memory: the host passes it on and never reads through it (base/types.h). Tensors are row-major,
// dense
//   unless a stride `ld*` (in elements) is given. Arguments of host memory say so.
// - `dt` is the dtype of weights and activations: DS_F32 or DS_BF16. Statistics, log-probs, logits and gradients of
// weights
//   are fp32. Sums run in fp32 at least.
// - "=" overwrites, "+=" accumulates; in place only where said.
// - **Row exactness**: in the forward operations each output row (token) is computed by a fixed order of arithmetic
// that reads
//   that row's inputs alone: its bits do not depend on how many rows a call has, on the row's place, or on threads.
//   This is what makes the sampler's log-prob the trainer's. Backward operations are deterministic at equal shapes and
//   threads.
// - Sizes may be 0: then nothing happens. Errors of a device are bugs (err_fatal).
#ifndef DS_KERNELS_H
#define DS_KERNELS_H

#include "base/err.h"

// Heads inside a row of a matrix: element (token t, head h, dim d) is p[t * token_stride + h * head_stride + d],
// strides in elements. Lets attention and rotary work on q, k, v where the fused projection left them, in any family's
// order.
typedef struct {
    Dev *p;
    int64_t token_stride, head_stride;
    int64_t heads;
} HeadView;

typedef struct {
    int64_t head_dim;
    int64_t window;    // a query at position i sees keys j with i - window < j <= i; 0: all j <= i
    float scale;       // on q.k, before the ALiBi term
    const Dev *slopes; // fp32 [q heads]: adds slope * (j - i); NULL: none
} AttnShape;

// Blocked KV cache of one layer: K and V pools, dt [kv_heads][blocks][block][head_dim]. A sequence's keys of positions
// b*block .. are in block table[seq * table_ld + b]; where its blocks follow each other, a head's keys are one stream.
typedef struct {
    Dev *k, *v;
    int64_t kv_heads, blocks, block;
    const Dev *table; // int32 [sequences][table_ld]
    int64_t table_ld;
} KvCache;

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double correction1, correction2; // 1 - beta1^t, 1 - beta2^t
    double grad_scale;               // multiplies the gradient (clip and loss scale)
} AdamwArgs;

typedef enum { KERNEL_NORM_LN, KERNEL_NORM_RMS } KernelNorm;
typedef enum { KERNEL_ACT_RELU, KERNEL_ACT_GELU, KERNEL_ACT_GELU_TANH, KERNEL_ACT_SILU } KernelAct;

// What device memory is for.
typedef enum {
    MEM_WEIGHTS,   // and tables
    MEM_GRADIENTS, // of a micro-batch and of a step
    MEM_OPTIMIZER, // master weights, moments, moving averages
    MEM_ACTIVATIONS,
    MEM_KV,
    MEM_COMM, // staging, blocks gathered for a while
    MEM_HOST, // state that is kept off the device: the host's memory, not the device's
    MEM_TAGS
} MemTag;

typedef struct Kernels {
    const char *name; // "cpu"

    // ---- memory ----
    // Zeroed device memory, 64-byte aligned (huge pages where it helps). Never NULL; no memory is fatal.
    Dev *(*mem_create)(size_t bytes, MemTag tag);
    void (*mem_destroy)(Dev *p);
    // Zeroed host memory from which copies to the device are fast (pinned where there is such a thing). Counted as
    // MEM_HOST.
    void *(*host_create)(size_t bytes);
    void (*host_destroy)(void *p, size_t bytes);
    void (*copy_in)(Dev *dst, const void *src_host, size_t bytes);
    void (*copy_out)(void *dst_host, const Dev *src, size_t bytes);
    void (*copy)(Dev *dst, const Dev *src, size_t bytes); // no overlap
    // Columns: `rows` rows of width_bytes, one row every *_pitch bytes. No overlap.
    void (*copy_2d)(Dev *dst, size_t dst_pitch, const Dev *src, size_t src_pitch, size_t width_bytes, int64_t rows);
    void (*zero)(Dev *dst, size_t bytes);
    // dst[n] (dst_dt) = src[n] (src_dt); fp32 <-> bf16 round to nearest even.
    void (*cast)(DType dst_dt, Dev *dst, DType src_dt, const Dev *src, int64_t n);

    // ---- embedding ----
    // y dt [n, width] = table[ids[r] - first] (+ pos_table[pos[r] + pos_offset] if pos_table). The table has the rows
    // of ids first .. first + rows, others count as zero. ids, pos: int32 [n] device.
    void (*embed_fwd)(DType dt, Dev *y, const Dev *table, int64_t first, int64_t rows, const Dev *ids,
                      const Dev *pos_table, const Dev *pos, int64_t pos_offset, int64_t n, int64_t width);
    // dtable[ids[r] + offset] += dy[r]; fp32 [rows, width] (NULL: nothing happens), rows outside it are left out; in
    // the order of r for each row of the table. Also for the position table (ids = pos).
    void (*embed_bwd)(DType dt, Dev *dtable, int64_t rows, const Dev *dy, const Dev *ids, int64_t offset, int64_t n,
                      int64_t width);

    // ---- norms ----
    // y = LN(x) * w + b or RMS(x) * w, per row; stats fp32 [n, 2] = (mean or 0, 1/deviation), NULL when not kept. b
    // NULL for RMS. y may be x.
    void (*norm_fwd)(DType dt, KernelNorm kind, Dev *y, Dev *stats, const Dev *x, const Dev *w, const Dev *b, int64_t n,
                     int64_t width, float eps);
    // dx = or (accumulate) +=; dw, db fp32 += (each NULL: none). x is the norm's input. dx may be dy.
    void (*norm_bwd)(DType dt, KernelNorm kind, Dev *dx, bool accumulate, Dev *dw, Dev *db, const Dev *dy, const Dev *x,
                     const Dev *w, const Dev *stats, int64_t n, int64_t width);
    // RMSNorm of each head of each token, in place (Qwen3's q and k norm); keeps raw dt [n, heads, head_dim] (copy of
    // the input) and rstd fp32 [n, heads] when not NULL.
    void (*head_norm_fwd)(DType dt, HeadView x, Dev *raw, Dev *rstd, const Dev *w, int64_t n, int64_t head_dim,
                          float eps);
    // In place on the gradient dx; dw fp32 [head_dim] +=.
    void (*head_norm_bwd)(DType dt, HeadView dx, Dev *dw, const Dev *raw, const Dev *rstd, const Dev *w, int64_t n,
                          int64_t head_dim);

    // ---- linear ----
    // y (y_dt: dt or DS_F32) [m, out] = x dt [m, in] w dt [out, in]^T + bias dt [out] (NULL: none). Row exact.
    void (*linear_fwd)(DType dt, DType y_dt, Dev *y, const Dev *x, const Dev *w, const Dev *bias, int64_t m,
                       int64_t out, int64_t in);
    // dx dt [m, in] = or (accumulate) += dy dt [m, out] w dt [out, in].
    void (*linear_bwd_x)(DType dt, Dev *dx, bool accumulate, const Dev *dy, const Dev *w, int64_t m, int64_t out,
                         int64_t in);
    // dw fp32 [out, in] += dy^T x; dbias fp32 [out] += column sums of dy (each NULL: none).
    void (*linear_bwd_w)(DType dt, Dev *dw, Dev *dbias, const Dev *dy, const Dev *x, int64_t m, int64_t out,
                         int64_t in);

    // ---- low-rank adapters (arch/adapters.h) ----
    // y dt [out, in] = w + scale b a; w dt [out, in], b dt [out, rank], a dt [rank, in]; summed in fp32 and rounded
    // once. y may be w.
    void (*low_rank_fwd)(DType dt, Dev *y, const Dev *w, const Dev *b, const Dev *a, float scale, int64_t out,
                         int64_t rank, int64_t in);
    // From dy fp32 [out, in]: db fp32 [out, rank] += scale dy a^T, da fp32 [rank, in] += scale b^T dy.
    void (*low_rank_bwd)(DType dt, Dev *db, Dev *da, const Dev *dy, const Dev *b, const Dev *a, float scale,
                         int64_t out, int64_t rank, int64_t in);

    // ---- rotary ----
    // Rotates the leading `rot` dims of each head in place, half-split pairs (d, d + rot/2), by angle pos * freq:
    // table fp32 [positions, rot] = cos of rot/2 pairs, then sin. sign = -1: the inverse (backward).
    void (*rope)(DType dt, HeadView x, const Dev *table, const Dev *pos, int64_t n, int64_t rot, int sign);

    // ---- attention, packed and causal ----
    // Sequence s is the rows starts[s] .. starts[s+1] (host int32 [n_seq + 1]); its positions are first[s] + 0, 1, ...
    // and keys of positions < first[s] are read from `past` (NULL, or first NULL: every first is 0). o dt [n, q heads,
    // head_dim] dense; lse fp32 [q heads, n], NULL when not kept. q heads are a multiple of kv heads (grouped query).
    // Softmax in fp32, its probabilities rounded to bf16 where a CPU multiplies pairs of those; keys in order of
    // position, in blocks of positions counted from position 0, so that a row is the same bits whether its keys come
    // from the packed rows or from the cache. Row exact.
    void (*attn_fwd)(DType dt, AttnShape a, Dev *o, Dev *lse, HeadView q, HeadView k, HeadView v, const int32_t *starts,
                     int64_t n_seq, const int32_t *first, const KvCache *past);
    // dq, dk, dv = (views like q, k, v). delta: scratch fp32 [q heads, n]. No past.
    void (*attn_bwd)(DType dt, AttnShape a, HeadView dq, HeadView dk, HeadView dv, Dev *delta, const Dev *do_,
                     const Dev *o, const Dev *lse, HeadView q, HeadView k, HeadView v, const int32_t *starts,
                     int64_t n_seq);
    // Writes k and v rows of packed sequences into the cache at positions first[s] + 0, 1, ... (host starts, first).
    void (*kv_write)(DType dt, KvCache cache, HeadView k, HeadView v, int64_t head_dim, const int32_t *starts,
                     int64_t n_seq, const int32_t *first);

    // ---- element-wise ----
    void (*add)(DType dt, Dev *y, const Dev *x, int64_t n);                                    // y += x
    void (*act_fwd)(DType dt, KernelAct act, Dev *y, const Dev *x, int64_t n);                 // y may be x
    void (*act_bwd)(DType dt, KernelAct act, Dev *dx, const Dev *dy, const Dev *x, int64_t n); // dx may be dy
    // y [n, ffn] = act(x[:, 0:ffn]) * x[:, ffn:2 ffn]; x is [n, 2 ffn] (gate, then up).
    void (*glu_fwd)(DType dt, KernelAct act, Dev *y, const Dev *x, int64_t n, int64_t ffn);
    void (*glu_bwd)(DType dt, KernelAct act, Dev *dx, const Dev *dy, const Dev *x, int64_t n,
                    int64_t ffn); // dx [n, 2 ffn] =
    void (*gather_rows)(DType dt, Dev *y, const Dev *x, const Dev *rows, int64_t n,
                        int64_t width); // y[i] = x[rows[i]], int32
    void (*scatter_rows)(DType dt, Dev *y, const Dev *x, const Dev *rows, int64_t n,
                         int64_t width); // y[rows[i]] += x[i]

    // ---- LM head ----
    // For each row of logits fp32 [n, vocab], scaled by inv_temperature: lse[r] = log sum exp, logp[r] = ln
    // p(target[r]), entropy[r] in nats (NULL: not wanted). target int32 device; outside 0 .. valid - 1: logp is -inf.
    // Row exact. Columns >= valid (padding rows of the embedding) count as -inf.
    void (*logprob_fwd)(Dev *logp, Dev *lse, Dev *entropy, const Dev *logits, const Dev *target, int64_t n,
                        int64_t vocab, int64_t valid, float inv_temperature);
    // dlogits dt [n, vocab] = inv_temperature * (dlogp (1[v = target] - p_v) + dentropy (-p_v (ln p_v + entropy))).
    // dlogp, dentropy, entropy: fp32 [n] (the last two NULL: no entropy term). dlogits may be logits when dt is fp32.
    void (*logprob_bwd)(DType dt, Dev *dlogits, const Dev *logits, const Dev *lse, const Dev *target, const Dev *dlogp,
                        const Dev *dentropy, const Dev *entropy, int64_t n, int64_t vocab, int64_t valid,
                        float inv_temperature);
    // Draws a token a row. u fp32 [n] in (0, 1); temperature <= 0 or greedy: arg max (lowest id of equals). top_k = 0
    // and top_p = 1: off. The kept set: the top_k largest, then the smallest set of largest probabilities whose sum
    // reaches top_p (equals: lower id first); the draw walks ids upwards through the renormalised kept set. id int32
    // [n] =. Row exact.
    void (*sample)(Dev *id, const Dev *logits, const Dev *u, int64_t n, int64_t vocab, int64_t valid, float temperature,
                   int64_t top_k, float top_p);

    // ---- optimizer ----
    // A master weight is fp32 and lies in two halves: its bf16 w, to which it rounds (to nearest even), and 16 bits
    // `rest`, so that together they are as large as it. Its bits are those of w, as fp32, plus rest, as a whole number
    // of -32768 .. 32767. One that is in the middle above an even w would be 32768 above it: split takes the fp32 just
    // below instead.
    void (*master_split)(Dev *w, Dev *rest, const Dev *x, int64_t n);      // w bf16, rest [n] = x fp32
    void (*master_join)(Dev *x, const Dev *w, const Dev *rest, int64_t n); // x fp32 [n] = w and rest
    // AdamW with decoupled decay [n]: g = grad * grad_scale; m, v, w = (all fp32). w: fp32, then rest is NULL; or bf16
    // (dt) with rest.
    void (*adamw)(DType dt, Dev *w, Dev *rest, Dev *m, Dev *v, const Dev *grad, int64_t n, AdamwArgs a);
    // host out[c] = sum of squares, in double, of x[c * chunk .. (c + 1) * chunk) (fp32, the last chunk shorter). Not
    // finite: NaN or inf.
    void (*sumsq)(double *out_host, const Dev *x, int64_t n, int64_t chunk);
    void (*ema)(Dev *ema, const Dev *w, int64_t n, float beta); // fp32 [n]: ema = beta ema + (1 - beta) w
    void (*axpy)(Dev *y, float a, const Dev *x, int64_t n);     // fp32 [n]: y += a x
    void (*scale)(Dev *y, float a, int64_t n);                  // fp32 [n]: y *= a

    // ---- what travels quantized ----
    // A packet holds n elements in blocks of KERNEL_QUANT_BLOCK: an fp32 scale, then a whole number q an element, of
    // `bits` (8 or 4) in two's complement, or (4) plus 8, byte i holding elements i (low half) and i + 128. The last
    // block is filled up with zeros: a packet of whole blocks can be cut between blocks, and packets put end to end.
    // scale = max|x| / (2^(bits-1) - 1), or the smallest normal number if that is larger; q = x / scale rounded to
    // nearest even. A block with NaN or infinity has a NaN scale, and is all NaN after the trip.
    void (*quantize)(int bits, Dev *packet, DType dt, const Dev *x, int64_t n);
    // x = scale q (dt fp32 or bf16): |error| <= scale / 2, before the rounding of scale q to dt.
    void (*dequantize)(int bits, DType dt, Dev *x, const Dev *packet, int64_t n);
} Kernels;

enum { KERNEL_QUANT_BLOCK = 256 };
size_t kernels_quant_bytes(int bits, int64_t n); // of a packet

// The instruction sets for which the CPU's kernels are built, each with what the one before it has: "generic", "avx2",
// "avx512", "avx512_bf16", "amx"; "generic" runs everywhere. NULL: no such number. Bits differ from set to set.
const char *kernels_isa_name(int isa);
// Whether this CPU (and its system) can run set `isa`.
bool kernels_isa_runs(int isa);
// Whether set `isa` multiplies bf16, on whatever CPU this is; without it bf16 models are computed in fp32.
bool kernels_isa_has_bf16(int isa);
// *isa = the number of `wish`; of "auto": of the environment's DSCHAT_ISA, or without it the last one that runs here.
// Not collective: ranks on unlike CPUs get unlike answers. DS_ERR_PARAMS: no such set, or this CPU lacks it.
Err kernels_isa(const char *wish, int *isa);

// Picks and checks the backend ("cpu"); an empty slot is an error. isa: as kernels_isa, for the process. threads:
// OpenMP threads of this process. Not collective. DS_ERR_PARAMS if the program was built without it, or the CPU lacks
// the set.
Err kernels_open(const char *device, const char *isa, int threads, const Kernels **out);

// After kernels_open: its threads stay where cpus[n] says (the system's numbers of hardware threads, n >= threads),
// each but the calling one on its own part of them. Without it the system places them.
void kernels_bind(const int *cpus, int n);

// Whether the open kernels multiply bf16 in hardware; if not, callers compute bf16 models in fp32 and say so.
bool kernels_has_bf16(void);

// What the kernels run on, for provenance: "cpu avx512_bf16, oneDNN 2.6.3". Valid for the life of the process.
const char *kernels_describe(void);

// The real address of device memory for a collective library of the same device (src/comm only).
void *kernels_comm_ptr(const Dev *p);

// ---- accounts of device memory ----
const char *kernels_mem_name(MemTag tag); // "weights", ...
int64_t kernels_mem_peak(MemTag tag);     // the most bytes asked for at any time since kernels_mem_forget
void kernels_mem_forget(void);            // the peak is what is held now
// For backends: `bytes` more (or, negative, fewer).
void kernels_mem_count(MemTag tag, int64_t bytes);

// A backend that computes nothing and takes no memory: mem_create only counts. For planning: objects are made as a run
// would make them, and nobody calls their arithmetic.
extern const Kernels kernels_dry;

#endif
