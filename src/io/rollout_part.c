// rollout_part.c: see rollout_part.h.
#include "io/rollout_part.h"

#include <math.h>

#include "base/mem.h"
#include "io/recordsum.h"

void part_alloc(RolloutPart *p, int64_t n, int64_t width, int n_vars) {
    size_t row_bytes = 0, var_bytes = 0;
    if (!mem_mul((size_t)width, sizeof(float), &row_bytes) || !mem_mul((size_t)n, row_bytes, &var_bytes))
        err_fatal("%lld answers of %lld tokens are too many", (long long)n, (long long)width);
    *p = (RolloutPart){.n = n, .width = width};
    p->begin = MEM_NEW(int64_t, n + 1);
    p->first = MEM_NEW(int64_t, n);
    p->iteration = MEM_NEW(int, n);
    p->length = MEM_NEW(int, n);
    p->sum = MEM_NEW(int, n);
    p->sample = mem_array(n, sizeof *p->sample);
    p->token = mem_alloc(var_bytes);
    p->value = mem_array(n_vars, var_bytes);
}

void part_free(RolloutPart *p) {
    void *all[] = {p->begin, p->first, p->iteration, p->length, p->sum, p->sample, p->token, p->value};
    for (int i = 0; i < DS_COUNT(all); i++) mem_free(all[i]);
}

void part_set(RolloutPart *p, int64_t i, const RolloutAnswer *a, int iteration, int n_vars) {
    p->iteration[i] = iteration;
    p->length[i] = (int)a->length;
    p->sample[i] = a->sample;
    uint32_t *token = p->token + i * p->width;
    for (int64_t t = 0; t < p->width; t++) token[t] = t < a->length ? a->tokens[t] : UINT32_MAX;
    for (int v = 0; v < n_vars; v++) {
        float *row = p->value + (v * p->n + i) * p->width;
        for (int64_t t = 0; t < p->width; t++) row[t] = t < a->length ? a->values[v][t] : NAN;
    }
}

// Of every answer of the part, in the order of the file.
void part_sums(RolloutPart *p, const Xxh128Hex *header, int n_vars) {
    static const int zero;
    RecordSum r;
    recordsum_open(&r, header,
                   3 * sizeof(int) + sizeof *p->sample + (size_t)(1 + n_vars) * (size_t)p->width * sizeof(float));
    for (int64_t i = 0; i < p->n; i++) {
        recordsum_add(&r, p->iteration + i, 1, sizeof(int));
        recordsum_add(&r, p->sample + i, 1, sizeof *p->sample);
        recordsum_add(&r, p->length + i, 1, sizeof(int));
        recordsum_add(&r, &zero, 1, sizeof zero);
        recordsum_add(&r, p->token + i * p->width, p->width, sizeof *p->token);
        for (int v = 0; v < n_vars; v++)
            recordsum_add(&r, p->value + (v * p->n + i) * p->width, p->width, sizeof(float));
        p->sum[i] = recordsum_take(&r);
    }
    recordsum_free(&r);
}
