// cpu.c: the CPU's table of operations, and its name.
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

#include "kernels/cpu/cpu.h"

const Kernels cpu_kernels = {
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
    .adamw = adamw_cpu,
    .sumsq = sumsq_cpu,
    .ema = ema_cpu,
    .axpy = axpy_cpu,
    .scale = scale_cpu,
    .quantize = quantize_cpu,
    .dequantize = dequantize_cpu,
};

static const char *isa_name(void) {
#if defined(__AVX512F__)
    return "avx512";
#elif defined(__AVX2__)
    return "avx2";
#else
    return "generic";
#endif
}

const char *cpu_describe(void) {
    static char text[96];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "cpu %s, oneDNN %d.%d.%d", isa_name(), v->major, v->minor, v->patch);
    return text;
}
