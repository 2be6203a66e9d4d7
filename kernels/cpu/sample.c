// sample.c: drawing a token a row.
//
// Weights are e^((l - max) / T). Without top-k and top-p a row is summed in blocks and only the block of the draw is
// walked. With them, the kept set is found by selection, not by sorting: logits become integers of the same order, and
// three rounds of histograms (11, 11 and 10 bits, from the top) walk down to the integer at which the count (top-k) or
// the probability (top-p) is reached, and how many equals of it are still needed. Equals are kept from the lowest id
// on. Sums run in double in the order of ids.
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"

enum { BINS = 2048, BLOCK = 64 * LANES };

typedef struct {
    const float *x; // logits
    float *p;       // weights
    int64_t n;
    float max, inv_t;
} Row;

// Larger floats have larger keys; -0 counts as 0.
static uint32_t key_of(float x) {
    union {
        float f;
        uint32_t u;
    } v = {.f = x == 0.0f ? 0.0f : x};
    return v.u & 0x80000000u ? ~v.u : v.u | 0x80000000u;
}

// The largest number of a row, NaN left out; -inf if there is none.
static float largest(const float *x, int64_t n) {
    Vec m = vec_set(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) m = vec_max(m, vec_load(DS_F32, x, i));
    float best = vec_max_lane(m);
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    return best;
}

static int64_t first_equal(const float *x, int64_t n, float value) {
    for (int64_t i = 0; i < n; i++)
        if (x[i] == value) return i;
    return 0;
}

// Weights of ids [i, i + n) into p, NaN as 0; returns their sum.
static float weigh(const Row *a, int64_t i, int64_t n) {
    Vec sum = {0};
    for (int64_t j = i; j < i + n; j += LANES) {
        const Vec e = vec_exp((vec_load_n(DS_F32, a->x, j, i + n - j) - a->max) * a->inv_t);
        const Vec v = vec_select(vec_first(i + n - j), vec_select(vec_equal(e, e), e, (Vec){0}), (Vec){0});
        vec_store_n(DS_F32, a->p, j, v, i + n - j);
        sum += v;
    }
    return vec_sum(sum);
}

// ---- drawing from the whole row ----
static int64_t draw_all(const Row *a, double u) {
    double total = 0.0, sum = 0.0, goal;
    int64_t block = 0, last = 0;
    float *sums = cpu_scratch_f32(SCRATCH_B, ds_ceil_div(a->n, BLOCK));
    for (int64_t i = 0; i < a->n; i += BLOCK) total += sums[i / BLOCK] = weigh(a, i, ds_min(BLOCK, a->n - i));
    goal = u * total;
    for (int64_t i = 0; i < a->n; i += BLOCK) { // the last block with weight, if rounding leaves the goal beyond all
        if (!(sums[i / BLOCK] > 0.0f)) continue;
        block = i;
        if (sum + sums[i / BLOCK] > goal) break;
        sum += sums[i / BLOCK];
    }
    for (int64_t i = block; i < ds_min(block + BLOCK, a->n); i++) {
        if (!(a->p[i] > 0.0f)) continue;
        last = i;
        if ((sum += a->p[i]) > goal) break;
    }
    return last;
}

// ---- drawing from a kept set: a list of ids in order ----
static int64_t list_all(const Row *a, int32_t *ids) {
    int64_t n = 0;
    for (int64_t i = 0; i < a->n; i++) {
        ids[n] = (int32_t)i;
        n += a->p[i] > 0.0f; // a token without weight is never drawn
    }
    return n;
}

static double list_mass(const Row *a, const int32_t *ids, int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += a->p[ids[i]];
    return sum;
}

static int64_t draw_list(const Row *a, const int32_t *ids, int64_t n, double u) {
    const double goal = u * list_mass(a, ids, n);
    double sum = 0.0;
    int64_t i = 0;
    while (i < n - 1 && !((sum += a->p[ids[i]]) > goal)) i++;
    return ids[i];
}

// The bin of `mass`, from the top, at which *above plus the bins reaches target; *above: what lies above it. If
// rounding leaves the target beyond all of them, the lowest bin that holds anything.
static int reach(const double mass[BINS], double target, double *above) {
    int last = 0;
    double before = *above;
    for (int bin = BINS - 1; bin >= 0; bin--) {
        if (!(mass[bin] > 0.0)) continue;
        last = bin;
        before = *above;
        if (*above + mass[bin] >= target) return bin;
        *above += mass[bin];
    }
    *above = before;
    return last;
}

// Leaves in ids[n] the smallest set of largest logits whose count (or weight) reaches target; returns its size. work:
// room for n ids.
static int64_t keep_top(const Row *a, int32_t *ids, int64_t n, bool by_weight, double target, int32_t *work) {
    static const int bits[] = {11, 11, 10};
    const int32_t *from = ids;
    double mass[BINS], above = 0.0;
    uint32_t prefix = 0;
    int64_t left = n, kept = 0;
    for (int round = 0, shift = 32; round < 3; round++) {
        shift -= bits[round];
        const uint32_t mask = (1u << bits[round]) - 1;
        memset(mass, 0, sizeof mass);
        for (int64_t i = 0; i < left; i++)
            mass[key_of(a->x[from[i]]) >> shift & mask] += by_weight ? (double)a->p[from[i]] : 1.0;
        const uint32_t bin = (uint32_t)reach(mass, target, &above);
        prefix = prefix << bits[round] | bin;
        int64_t m = 0;
        for (int64_t i = 0; i < left; i++)
            if ((key_of(a->x[from[i]]) >> shift & mask) == bin) work[m++] = from[i];
        from = work;
        left = m;
    }
    // `left` equals have the key `prefix`; each weighs the same. The 1e-9 forgives the rounding of the sums.
    const double each = by_weight ? a->p[work[0]] : 1.0;
    int64_t equals = ds_min(left, ds_max(1, (int64_t)ceil((target - above) / each - 1e-9)));
    for (int64_t i = 0; i < n; i++) {
        const uint32_t key = key_of(a->x[ids[i]]);
        if (key > prefix || (key == prefix && equals-- > 0)) ids[kept++] = ids[i];
    }
    return kept;
}

static int64_t sample_row(const float *x, int64_t valid, float u, float temperature, int64_t top_k, float top_p) {
    const float max = largest(x, valid);
    if (!(temperature > 0.0f) || top_k == 1 || !isfinite(max)) return first_equal(x, valid, max);
    const Row row = {x, cpu_scratch_f32(SCRATCH_A, valid), valid, max, 1.0f / temperature};
    if (top_k <= 0 && top_p >= 1.0f) return draw_all(&row, (double)u);
    int32_t *ids = cpu_scratch(SCRATCH_C, (size_t)valid * sizeof *ids),
            *work = cpu_scratch(SCRATCH_D, (size_t)valid * sizeof *work);
    weigh(&row, 0, valid);
    int64_t n = list_all(&row, ids);
    if (top_k > 0 && top_k < n) n = keep_top(&row, ids, n, false, (double)top_k, work);
    if (top_p < 1.0f) n = keep_top(&row, ids, n, true, (double)top_p * list_mass(&row, ids, n), work);
    return draw_list(&row, ids, n, (double)u);
}

void sample_cpu(Dev *id, const Dev *logits, const Dev *u, int64_t n, int64_t vocab, int64_t valid, float temperature,
                int64_t top_k, float top_p) {
    int32_t *out = cpu_ptr(id);
    const float *x = cpu_ptr(logits), *pu = cpu_ptr(u);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n *vocab))
    for (int64_t r = 0; r < n; r++)
        out[r] = (int32_t)sample_row(x + r * vocab, valid, pu[r], temperature, top_k, top_p);
}
