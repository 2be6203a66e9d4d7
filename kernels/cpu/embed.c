// embed.c: rows picked from and added into tables.
//
// Scatters are split over the threads by columns: each thread walks all rows in order for its own columns, so that sums
// have the order of the rows, whatever the number of threads.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

VEC_INLINE void fwd_row(DType dt, void *y, const void *a, const void *b, int64_t width) {
    for (int64_t i = 0; i < width; i += LANES) {
        Vec v = a ? vec_load_n(dt, a, i, width - i) : (Vec){0};
        if (b) v += vec_load_n(dt, b, i, width - i);
        vec_store_n(dt, y, i, v, width - i);
    }
}

void embed_fwd_cpu(DType dt, Dev *y, const Dev *table, int64_t first, int64_t rows, const Dev *ids,
                   const Dev *pos_table, const Dev *pos, int64_t pos_offset, int64_t n, int64_t width) {
    const int32_t *id = cpu_ptr(ids), *at = cpu_ptr(pos);
    const void *tok_rows = cpu_ptr(table), *pos_rows = cpu_ptr(pos_table);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n *width))
    for (int64_t r = 0; r < n; r++) {
        const void *a = id[r] >= first && id[r] - first < rows ? elem_at(dt, tok_rows, (id[r] - first) * width) : NULL,
                   *b = pos_rows ? elem_at(dt, pos_rows, (at[r] + pos_offset) * width) : NULL;
        void *out = elem_ptr(dt, cpu_ptr(y), r * width);
        if (dt == DS_F32) fwd_row(DS_F32, out, a, b, width);
        else fwd_row(DS_BF16, out, a, b, width);
    }
}

void gather_rows_cpu(DType dt, Dev *y, const Dev *x, const Dev *rows, int64_t n, int64_t width) {
    embed_fwd_cpu(dt, y, x, 0, INT64_MAX, rows, NULL, NULL, 0, n, width);
}

// y += x, columns [first, last) of one row.
VEC_INLINE void add_row(DType y_dt, void *y, DType x_dt, const void *x, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += LANES)
        vec_store_n(y_dt, y, i, vec_load_n(y_dt, y, i, last - i) + vec_load_n(x_dt, x, i, last - i), last - i);
}

// y[to[r] + offset] += x[r] where that is one of its rows
static void scatter(DType y_dt, void *y, int64_t rows, DType x_dt, const void *x, const int32_t *to, int64_t offset,
                    int64_t n, int64_t width) {
    const int team = cpu_team(n * width);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int part = 0; part < team; part++) {
        int64_t first, last;
        cpu_share_flat(width, team, part, &first, &last);
        for (int64_t r = 0; r < n; r++) {
            if (to[r] + offset < 0 || to[r] + offset >= rows) continue;
            void *d = elem_ptr(y_dt, y, (to[r] + offset) * width);
            const void *s = elem_at(x_dt, x, r * width);
            if (x_dt == DS_F32) add_row(DS_F32, d, DS_F32, s, first, last);
            else if (y_dt == DS_F32) add_row(DS_F32, d, DS_BF16, s, first, last);
            else add_row(DS_BF16, d, DS_BF16, s, first, last);
        }
    }
}

void embed_bwd_cpu(DType dt, Dev *dtable, int64_t rows, const Dev *dy, const Dev *ids, int64_t offset, int64_t n,
                   int64_t width) {
    scatter(DS_F32, cpu_ptr(dtable), rows, dt, cpu_ptr(dy), cpu_ptr(ids), offset, n, width);
}

void scatter_rows_cpu(DType dt, Dev *y, const Dev *x, const Dev *rows, int64_t n, int64_t width) {
    scatter(dt, cpu_ptr(y), INT64_MAX, dt, cpu_ptr(x), cpu_ptr(rows), 0, n, width);
}
