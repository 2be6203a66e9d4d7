// init.c: first values of a new model, keyed by seed and weight name: the same on every layout.
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/model.h"

enum { PIECE = 1 << 16 };

static void fill(const Weight *w, uint64_t seed, int64_t first, int64_t n, float *out) {
    const uint64_t id = hash_string(w->name);
    WeightPiece piece[WEIGHT_PIECES];
    const int pieces = weights_pieces(w, first, n, piece);
    for (int p = 0; p < pieces; p++)
        for (int64_t i = 0; i < piece[p].count; i++) {
            const uint64_t whole = (uint64_t)weights_whole(w, &piece[p], i);
            out[piece[p].at - first + i] = w->init == W_INIT_ZERO ? 0
                                           : w->init == W_INIT_ONE
                                               ? 1
                                               : (float)(w->std * rng_normal(seed, RNG_INIT, id, whole));
        }
}

void model_init_random(Model *m, uint64_t seed, int block) {
    float *buffer = MEM_NEW(float, PIECE);
    for (int i = 0; i < m->weights.n; i++) {
        const Weight *w = &m->weights.w[i];
        if (block >= 0 && w->block != block) continue;
        for (int64_t first = 0; first < w->count; first += PIECE) {
            int64_t n = ds_min(PIECE, w->count - first);
            fill(w, seed, first, n, buffer);
            model_weight_set(m, w, first, n, buffer);
        }
    }
    mem_free(buffer);
}
