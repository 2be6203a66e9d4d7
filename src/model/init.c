// init.c: first values of a new model, keyed by seed and weight name: the same on every layout.
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/watchdog.h"
#include "model/lora.h"

enum { PIECE = 1 << 20 }; // enough for all threads to write a part of: memory is then near to each of them

// `n` elements from `whole` on of the whole weight.
static void first_values(const Weight *w, uint64_t seed, uint64_t id, uint64_t whole, int64_t n, float *out) {
    switch (w->init) {
    case W_INIT_ZERO:
    case W_INIT_ONE:
        for (int64_t i = 0; i < n; i++) out[i] = w->init == W_INIT_ONE;
        return;
    case W_INIT_UNIFORM:
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)(w->std * (2 * rng_uniform(seed, RNG_INIT, id, whole + (uint64_t)i) - 1));
        return;
    default: rng_normals(seed, RNG_INIT, id, whole, n, w->std, out);
    }
}

// Elements [first, first + n) of this rank's part.
static void fill(const Weight *w, uint64_t seed, int64_t first, int64_t n, float *out) {
    const uint64_t id = hash_string(w->name);
    WeightPiece piece[WEIGHT_PIECES];
    const int pieces = weights_pieces(w, first, n, piece);
    for (int p = 0; p < pieces; p++)
        for (int64_t i = 0; i < piece[p].count; i += piece[p].run)
            first_values(w, seed, id, (uint64_t)weights_whole(w, &piece[p], i),
                         ds_min(piece[p].run, piece[p].count - i), out + piece[p].at - first + i);
}

static void init_weight(Model *m, const Weight *w, uint64_t seed, float *buffer) {
    for (int64_t first = 0; first < w->count; first += PIECE) {
        const int64_t n = ds_min(PIECE, w->count - first);
        watchdog_tick();
        fill(w, seed, first, n, buffer);
        model_weight_set(m, w, first, n, buffer);
    }
}

void model_init_random(Model *m, uint64_t seed, int block) {
    float *buffer = MEM_NEW(float, PIECE);
    for (int i = 0; i < m->weights.n; i++)
        if (block < 0 || m->weights.w[i].block == block) init_weight(m, &m->weights.w[i], seed, buffer);
    for (int i = 0; m->lora && i < m->lora->trained.n; i++)
        if (m->lora->trained.w[i].adapter) init_weight(m, &m->lora->trained.w[i], seed, buffer);
    mem_free(buffer);
}
