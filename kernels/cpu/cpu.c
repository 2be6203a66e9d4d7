// cpu.c: the table of operations of one instruction set. The Makefile gives the set as CPU_ISA.
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tile.h"

static const Kernels table = {
    .name = "cpu",
    .mem_create = mem_create_cpu,
    .host_create = host_create_cpu,
    .host_destroy = host_destroy_cpu,
    .mem_destroy = mem_destroy_cpu,
    .copy_in = copy_in_cpu,
    .copy_out = copy_out_cpu,
    .copy = copy_cpu,
    .copy_2d = copy_2d_cpu,
    .zero = zero_cpu,
    .cast = cast_cpu,
    .embed_fwd = embed_fwd_cpu,
    .embed_bwd = embed_bwd_cpu,
    .norm_fwd = norm_fwd_cpu,
    .norm_bwd = norm_bwd_cpu,
    .head_norm_fwd = head_norm_fwd_cpu,
    .head_norm_bwd = head_norm_bwd_cpu,
    .linear_fwd = linear_fwd_cpu,
    .linear_bwd_x = linear_bwd_x_cpu,
    .linear_bwd_w = linear_bwd_w_cpu,
    .low_rank_fwd = low_rank_fwd_cpu,
    .low_rank_bwd = low_rank_bwd_cpu,
    .rope = rope_cpu,
    .attn_fwd = attn_fwd_cpu,
    .attn_bwd = attn_bwd_cpu,
    .kv_write = kv_write_cpu,
    .add = add_cpu,
    .act_fwd = act_fwd_cpu,
    .act_bwd = act_bwd_cpu,
    .glu_fwd = glu_fwd_cpu,
    .glu_bwd = glu_bwd_cpu,
    .gather_rows = gather_rows_cpu,
    .scatter_rows = scatter_rows_cpu,
    .logprob_fwd = logprob_fwd_cpu,
    .logprob_bwd = logprob_bwd_cpu,
    .sample = sample_cpu,
    .master_split = master_split_cpu,
    .master_join = master_join_cpu,
    .adamw = adamw_cpu,
    .sumsq = sumsq_cpu,
    .ema = ema_cpu,
    .axpy = axpy_cpu,
    .scale = scale_cpu,
    .quantize = quantize_cpu,
    .dequantize = dequantize_cpu,
};

// oneDNN must not use more than this set, or its bits would not be the set's. (It obeys before its first product: a
// process that opens a second set keeps the first one's limit.)
static void start(void) {
#if defined(__AMX_BF16__)
    dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_amx);
#elif defined(__AVX512BF16__)
    dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
#elif defined(__AVX512F__)
    dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core);
#elif defined(__AVX2__)
    dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
#elif defined(__x86_64__)
    dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
#endif
}

static const char *library(void) {
    static char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

#define JOIN(a, b) a##b
#define SET_OF(isa) JOIN(cpu_set_, isa)
const CpuSet SET_OF(CPU_ISA) = {.table = &table, .has_bf16 = TILE_HAS_PAIRS, .start = start, .library = library};
