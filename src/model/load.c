// load.c: weight by weight, in pieces.
#include "model/load.h"

#include "base/mem.h"
#include "base/watchdog.h"
#include "token/bpe.h"

enum { PIECE = 1 << 22 };

Err load_arch(const ModelFile *file, const char *path, int head, Arch *arch) {
    *arch = *modelfile_arch(file);
    if (head < 0 || arch->head == head) return DS_OK;
    if (head == ARCH_HEAD_LM)
        return err_set(DS_ERR_DATA,
                       "%s: is a model with a scalar head (reward model, critic); expected a language model", path);
    arch->head = head;
    arch->score_mean = 0;
    arch->score_std = 1;
    return DS_OK;
}

static Err read_weight(Model *m, const ModelFile *file, const Weight *w, const char *path, float *buffer) {
    Err err = DS_OK;
    int i = modelfile_find(file, w->name);
    if (i < 0 && w->role == W_V_HEAD) return DS_OK;
    DS_CHECK(i >= 0, DS_ERR_DATA, "%s: has no weight %s", path, w->name);
    for (int64_t first = 0; first < w->count; first += PIECE) {
        const int64_t n = ds_min(PIECE, w->count - first);
        WeightPiece piece[WEIGHT_PIECES];
        const int pieces = weights_pieces(w, first, n, piece);
        for (int p = 0; p < pieces; p++)
            DS_TRY(modelfile_read_runs(file, i, DS_F32, piece[p].whole, piece[p].count, piece[p].run,
                                       buffer + piece[p].at - first));
        model_weight_set(m, w, first, n, buffer);
        watchdog_tick();
    }
done:
    return err;
}

Err load_weights(Model *m, const ModelFile *file, const char *path) {
    Err err = DS_OK;
    float *buffer = MEM_NEW(float, PIECE);
    watchdog_enter(WATCH_FILE, "reading a model", path);
    for (int i = 0; i < m->weights.n; i++)
        if (model_keeps(m, &m->weights.w[i])) DS_TRY(read_weight(m, file, &m->weights.w[i], path, buffer));
done:
    watchdog_leave();
    mem_free(buffer);
    return err;
}

Err load_tokenizer(const ModelFile *file, const char *path, Tokenizer **tok) {
    Err err = DS_OK;
    char *blob = NULL;
    size_t bytes = 0;
    *tok = NULL;
    DS_TRY(modelfile_tokenizer(file, &blob, &bytes));
    if (blob) DS_TRY(tok_load_blob(blob, bytes, path, tok));
done:
    mem_free(blob);
    return err;
}
