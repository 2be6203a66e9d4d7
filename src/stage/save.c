// save.c: the table of pieces. Every tensor of a kind (weights, first and second moment, average) is cut to what this
// rank owns; where every rank owns everything (ZeRO stage 0) the ranks take equal shares of the writing.
#include "stage/save.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/watchdog.h"
#include "comm/agree.h"
#include "io/ckpt_save.h"

enum { KIND_WEIGHT, KIND_M, KIND_V, KIND_EMA, KINDS };
static const char *const kind_group[KINDS] = {"/weights", "/adam_m", "/adam_v", "/ema"};

typedef struct {
    const Weight *w;
    int kind;
    int64_t first; // within this rank's part of the weight
} PieceRef;

// What a shard's writer asks for at once comes by one lease (zero_state.c).
_Static_assert((int)H5_ROW_MAX <= (int)STORE_LEASE, "a part of a file is more than a lease");

// The tensors and this rank's pieces of one model.
typedef struct {
    const Model *model;
    const Optim *optim;
    DType dtype; // in the file
    H5Tensor *tensors;
    H5Piece *pieces;
    PieceRef *refs;
    int n_tensors, n_pieces;
    bool own_data; // the pieces' data are the table's
    float *buffer; // [H5_ROW_MAX], for conversions
} Table;

static void set_tensor(H5Tensor *t, const Weight *w, const char *group, DType dtype) {
    *t = (H5Tensor){.dtype = dtype, .ndim = w->ndim, .shape = {w->shape[0], w->shape[1]}};
    snprintf(t->path, sizeof t->path, "%s/%s", group, w->name);
}

// Elements [first, first + n) of this rank's part of w.
static void add_pieces(Table *t, const Weight *w, int kind, int64_t first, int64_t n) {
    WeightPiece piece[WEIGHT_PIECES];
    const int pieces = weights_pieces(w, first, n, piece);
    for (int i = 0; i < pieces; i++) {
        const WeightPiece *p = &piece[i];
        t->pieces[t->n_pieces] = (H5Piece){.tensor = t->n_tensors, .first = p->whole, .count = p->count, .run = p->run};
        t->refs[t->n_pieces++] = (PieceRef){w, kind, p->at};
    }
}

// Adds the tensor of kind `kind` (stored as `as`) of every weight. whole: this rank takes all of it where it owns all
// (reading).
static void add_kind(Table *t, const Run *run, int kind, int as, bool whole) {
    const ZeroState *z = &t->model->zero; // with adapters: what is trained
    const Group *data = run->layout.data;
    const int copies = group_size(data) / z->map.shards, copy = group_rank(data) / z->map.shards;
    for (int i = 0; i < z->weights->n; i++) {
        const Weight *w = &z->weights->w[i];
        int64_t first, n;
        shard_cut(&z->map, w->block, z->shard, w->offset, w->count, &first, &n);
        if (!whole) { // the data ranks that have the same share the writing, of tensor ranks the first does it
            const int64_t from = n * copy / copies;
            n = w->mine ? n * (copy + 1) / copies - from : 0;
            first += from;
        }
        set_tensor(&t->tensors[t->n_tensors], w, kind_group[as], t->dtype);
        add_pieces(t, w, kind, first, n);
        t->n_tensors++;
    }
}

static void table_create(Table *t, const Model *m, const Optim *o, DType dtype) {
    const int64_t n = (int64_t)ds_max(m->weights.n, m->zero.weights->n) * KINDS;
    *t = (Table){.model = m,
                 .optim = o,
                 .dtype = dtype,
                 .tensors = MEM_NEW(H5Tensor, n),
                 .pieces = MEM_NEW(H5Piece, n * WEIGHT_PIECES),
                 .refs = MEM_NEW(PieceRef, n * WEIGHT_PIECES),
                 .buffer = MEM_NEW(float, H5_ROW_MAX)};
}

static void table_destroy(Table *t) {
    for (int i = 0; t->own_data && i < t->n_pieces; i++) mem_free((void *)(uintptr_t)t->pieces[i].data);
    mem_free(t->tensors);
    mem_free(t->pieces);
    mem_free(t->refs);
    mem_free(t->buffer);
}

// Elements of an open weight in the file's dtype. Owner: caller, mem_free.
static void *copy_weight(const Table *t, const Weight *w, int64_t first, int64_t n) {
    float *values = MEM_NEW(float, n);
    model_weight_get(t->model, w, first, n, values);
    if (t->dtype == DS_F32) return values;
    uint16_t *half = MEM_NEW(uint16_t, n);
    for (int64_t i = 0; i < n; i++) half[i] = f32_to_bf16(values[i]);
    mem_free(values);
    return half;
}

// The effective weights of a model with adapters, which nobody keeps: made block by block, each data rank copies its
// share. Collective on the model's groups.
static void add_effective(Table *t, const Run *run) {
    const Model *m = t->model;
    const int copies = group_size(run->layout.data), copy = group_rank(run->layout.data);
    t->own_data = true;
    for (int i = 0; i < m->weights.n; i++) {
        const Weight *w = &m->weights.w[i];
        const int64_t from = w->count * copy / copies, to = w->count * (copy + 1) / copies;
        int piece = t->n_pieces;
        if (i == 0 || w->block != m->weights.w[i - 1].block) model_open(m, w->block, -1);
        set_tensor(&t->tensors[t->n_tensors], w, kind_group[KIND_WEIGHT], t->dtype);
        add_pieces(t, w, KIND_WEIGHT, from, w->mine ? to - from : 0);
        for (; piece < t->n_pieces; piece++)
            t->pieces[piece].data = copy_weight(t, w, t->refs[piece].first, t->pieces[piece].count);
        t->n_tensors++;
    }
}

static void training_table(Table *t, const Run *run, const StageModel *m, bool whole) {
    table_create(t, m->model, m->optim, DS_F32);
    for (int kind = 0; kind < KINDS; kind++)
        if (kind != KIND_EMA || m->optim->ema.data) add_kind(t, run, kind, kind, whole);
}

static Dev *piece_at(const Table *t, int piece, int64_t offset, int64_t n) {
    const PieceRef *r = &t->refs[piece];
    return optim_lease(t->optim, r->kind, r->w->block, r->w->offset + r->first + offset, n);
}

static Err fetch(void *context, int piece, int64_t offset, int64_t count, void *out) {
    Table *t = context;
    watchdog_tick();
    const size_t bytes = (size_t)count * sizeof(float);
    if (t->dtype == DS_F32) {
        t->model->k->copy_out(out, piece_at(t, piece, offset, count), bytes);
        return DS_OK;
    }
    t->model->k->copy_out(t->buffer, piece_at(t, piece, offset, count), bytes);
    for (int64_t i = 0; i < count; i++) ((uint16_t *)out)[i] = f32_to_bf16(t->buffer[i]);
    return DS_OK;
}

static Err put_back(void *context, int piece, int64_t offset, int64_t count, const void *data) {
    Table *t = context;
    const PieceRef *r = &t->refs[piece];
    watchdog_tick();
    t->model->k->copy_in(piece_at(t, piece, offset, count), data, (size_t)count * sizeof(float));
    optim_return(t->optim, r->kind, r->w->block, r->w->offset + r->first + offset, count);
    return DS_OK;
}

// The tokenizer, template and origin that every model file carries.
typedef struct {
    ModelMeta meta;
    ModelPair pairs[ORIGIN_MAX], texts[1 + CHAT_FIELDS];
    char *blob;
} Meta;

static Err meta_fill(Meta *x, const Run *run, const Arch *arch) {
    Err err = DS_OK;
    *x = (Meta){.meta = {.arch = arch}};
    for (int i = 0; i < run->origin->n; i++)
        x->pairs[i] = (ModelPair){run->origin->entries[i].name, run->origin->entries[i].value};
    x->meta.origin = x->pairs;
    x->meta.n_origin = run->origin->n;
    x->meta.texts = x->texts;
    x->texts[x->meta.n_texts++] = (ModelPair){"template", run->template.name};
    for (int i = 0; i < CHAT_FIELDS; i++)
        if (run->template.field[i]) x->texts[x->meta.n_texts++] = (ModelPair){chat_field(i), run->template.field[i]};
    if (run->tok) {
        DS_TRY(tok_save(run->tok, &x->blob, &x->meta.tokenizer_bytes));
        x->meta.tokenizer = x->blob;
    }
done:
    return err;
}

static ModelFiles files_of(const Run *run) {
    return run->p->checkpoint.files == FILES_ONE ? MODEL_FILES_ONE : MODEL_FILES_SHARDS;
}

static ModelSource source_of(const Run *run, Table *t, const ModelMeta *meta) {
    return (ModelSource){.meta = meta,
                         .tensors = t->tensors,
                         .n_tensors = t->n_tensors,
                         .pieces = t->pieces,
                         .n_pieces = t->n_pieces,
                         .fetch = fetch,
                         .context = t,
                         .sharing = run->sharing};
}

Err save_checkpoint(Run *run, const char *stage, int64_t step, const StageModel *models, int n, const Kv *kv) {
    Err err = DS_OK;
    Table tables[STAGE_MODELS] = {0};
    Meta metas[STAGE_MODELS] = {0};
    CkptModel list[STAGE_MODELS] = {0};
    char *dir = mem_printf("%s/checkpoints", run->p->job.out);
    watchdog_enter(WATCH_FILE, "writing a checkpoint", dir);
    for (int i = 0; i < n; i++) {
        training_table(&tables[i], run, &models[i], false);
        DS_TRY(meta_fill(&metas[i], run, &models[i].model->arch));
        // What is trained beside a frozen model is not a model by itself.
        const ModelMeta *meta = models[i].model->lora ? NULL : &metas[i].meta;
        list[i] = (CkptModel){.name = models[i].name, .source = source_of(run, &tables[i], meta)};
    }
    CkptOptions options = {
        .dir = dir, .stage = stage, .step = step, .files = files_of(run), .keep = (int)run->p->checkpoint.keep};
    DS_TRY(ckpt_save(run->world, &options, list, n, kv, NULL));
done:
    watchdog_leave();
    for (int i = 0; i < n; i++) {
        table_destroy(&tables[i]);
        mem_free(metas[i].blob);
    }
    mem_free(dir);
    return err;
}

static Err restore_model(Run *run, const char *path, const StageModel *m) {
    Err err = DS_OK;
    H5File *file = NULL;
    Table t = {0};
    char *name = ckpt_model_path(path, m->name);
    training_table(&t, run, m, true);
    DS_TRY(h5_open_own(name, &file));
    DS_TRY(h5_parts_read(file, t.tensors, t.n_tensors, t.pieces, t.n_pieces, put_back, &t));
done:
    h5_close(&file);
    table_destroy(&t);
    mem_free(name);
    return err;
}

Err save_restore(Run *run, const char *path, const StageModel *models, int n, Kv **kv) {
    Err err = DS_OK;
    watchdog_enter(WATCH_FILE, "reading a checkpoint", path);
    for (int i = 0; i < n && !err; i++) err = restore_model(run, path, &models[i]);
    if (!err) err = ckpt_read_state(path, kv);
    DS_TRY(agree_err(run->world, err));
    for (int i = 0; i < n; i++) zero_weights_changed(&models[i].model->zero);
done:
    watchdog_leave();
    return err;
}

Err save_model(Run *run, const char *name, const Model *m, Optim *optim, bool ema, DType dtype) {
    Err err = DS_OK;
    Meta meta = {0};
    Table t = {0};
    char *path = stage_model_path(run, name), *dir = mem_printf("%s/models", run->p->job.out);
    watchdog_enter(WATCH_FILE, "writing a model", path);
    DS_TRY(agree_err(run->world, file_make_dirs(dir)));
    DS_TRY(meta_fill(&meta, run, &m->arch));
    table_create(&t, m, optim, dtype);
    if (m->lora) {
        if (ema) optim_swap_ema(optim);
        add_effective(&t, run);
        if (ema) optim_swap_ema(optim);
    } else add_kind(&t, run, ema ? KIND_EMA : KIND_WEIGHT, KIND_WEIGHT, false);
    ModelSource source = source_of(run, &t, &meta.meta);
    DS_TRY(modelfile_save(run->world, path, &source, files_of(run), NULL));
done:
    watchdog_leave();
    table_destroy(&t);
    mem_free(meta.blob);
    mem_free(path);
    mem_free(dir);
    return err;
}
