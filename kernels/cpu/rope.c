// rope.c: rotary positions, and keys and values written into the cache.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

// Pairs (d, d + half): (a, b) -> (a cos - b sin, b cos + a sin); sign = -1 turns back.
VEC_INLINE void rotate(DType dt, void *p, const float *table, int64_t half, float sign) {
    for (int64_t i = 0; i < half; i += LANES) {
        const int64_t left = half - i;
        const Vec c = vec_load_n(DS_F32, table, i, left), s = sign * vec_load_n(DS_F32, table, half + i, left);
        const Vec a = vec_load_n(dt, p, i, left), b = vec_load_n(dt, p, half + i, left);
        vec_store_n(dt, p, i, vec_fma(a, c, -(b * s)), left);
        vec_store_n(dt, p, half + i, vec_fma(b, c, a * s), left);
    }
}

void rope_cpu(DType dt, HeadView x, const Dev *table, const Dev *pos, int64_t n, int64_t rot, int sign) {
    const float *rows = cpu_ptr(table);
    const int32_t *at = cpu_ptr(pos);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n *x.heads *rot))
    for (int64_t t = 0; t < n; t++) {
        for (int64_t h = 0; h < x.heads; h++) {
            void *p = elem_ptr(dt, cpu_ptr(x.p), t * x.token_stride + h * x.head_stride);
            if (dt == DS_F32) rotate(DS_F32, p, rows + at[t] * rot, rot / 2, (float)sign);
            else rotate(DS_BF16, p, rows + at[t] * rot, rot / 2, (float)sign);
        }
    }
}

static void write_token(DType dt, const KvCache *c, HeadView x, Dev *pool, int64_t dim, int64_t token, int64_t seq,
                        int64_t pos) {
    const int32_t *table = cpu_ptr(c->table);
    const int64_t block = table[seq * c->table_ld + pos / c->block], at = pos % c->block;
    for (int64_t h = 0; h < c->kv_heads; h++)
        memcpy(elem_ptr(dt, cpu_ptr(pool), ((h * c->blocks + block) * c->block + at) * dim),
               elem_at(dt, cpu_ptr(x.p), token * x.token_stride + h * x.head_stride), (size_t)dim * dtype_bytes(dt));
}

void kv_write_cpu(DType dt, KvCache cache, HeadView k, HeadView v, int64_t head_dim, const int32_t *starts,
                  int64_t n_seq, const int32_t *first) {
    if (n_seq <= 0) return;
    const int64_t rows = starts[n_seq] - starts[0];
#pragma omp parallel for schedule(static) num_threads(cpu_team(rows *cache.kv_heads *head_dim))
    for (int64_t s = 0; s < n_seq; s++) {
        for (int64_t t = starts[s]; t < starts[s + 1]; t++) {
            const int64_t pos = first[s] + (t - starts[s]);
            write_token(dt, &cache, k, cache.k, head_dim, t, s, pos);
            write_token(dt, &cache, v, cache.v, head_dim, t, s, pos);
        }
    }
}
