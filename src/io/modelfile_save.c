// modelfile_save.c: see modelfile_save.h. Sharded: each rank writes its pieces (or the first of those that share a
// shard, to which the others send), the rows of all travel, rank 0 writes the master. One file: the pieces travel, a
// part of at most H5_ROW_MAX elements at a time, and rank 0 writes them.
#include "io/modelfile_save.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"

// ---- shards ----

// All ranks' rows on every rank, instead of its own. Collective on g.
static void gather_rows(const Group *g, H5Rows *rows) {
    void *all = NULL;
    size_t *offset = MEM_NEW(size_t, group_size(g) + 1);
    coll_allgatherv(g, rows->row, (size_t)rows->n * sizeof *rows->row, &all, offset);
    mem_free(rows->row);
    *rows = (H5Rows){.n = (int64_t)(offset[group_size(g)] / sizeof *rows->row), .row = all};
    mem_free(offset);
}

// Removes the shards of an older model of that name and, first, the master over them: it must never stand over others.
static Err remove_shards(const char *path, bool master_too) {
    Err err = DS_OK;
    char *folder = NULL;
    DS_TRY(h5_parts_shard_path(path, -1, &folder));
    if (!file_exists(folder)) goto done;
    if (master_too) DS_TRY(file_remove_tree(path));
    DS_TRY(file_remove_tree(folder));
done:
    mem_free(folder);
    return err;
}

// The first of n elements that is not finite; n: none. The exponent of such a one is all ones.
static int64_t find_not_finite(DType dtype, const void *data, int64_t n) {
    int64_t bad = 0;
    if (dtype == DS_F32) {
        const uint32_t *x = data;
        for (int64_t i = 0; i < n; i++) bad += (x[i] & 0x7f800000u) == 0x7f800000u;
        for (int64_t i = 0; bad && i < n; i++)
            if ((x[i] & 0x7f800000u) == 0x7f800000u) return i;
    } else if (dtype == DS_BF16) {
        const uint16_t *x = data;
        for (int64_t i = 0; i < n; i++) bad += (x[i] & 0x7f80u) == 0x7f80u;
        for (int64_t i = 0; bad && i < n; i++)
            if ((x[i] & 0x7f80u) == 0x7f80u) return i;
    }
    return n;
}

// Elements of one of this rank's pieces. DS_ERR_NUMERIC: one is NaN or infinite.
static Err load_part(const ModelSource *m, int index, int64_t at, int64_t n, void *out) {
    Err err = DS_OK;
    const H5Piece *p = &m->pieces[index];
    const H5Tensor *t = &m->tensors[p->tensor];
    const int64_t cols = h5_runs_cols(t->ndim, t->shape);
    size_t size = dtype_bytes(t->dtype);
    if (p->data) memcpy(out, (const char *)p->data + (size_t)at * size, (size_t)n * size);
    else DS_TRY(m->fetch(m->context, index, at, n, out));
    int64_t k = find_not_finite(t->dtype, out, n);
    DS_CHECK(k == n, DS_ERR_NUMERIC, "%s: element %lld is not a finite number, so nothing is written", t->path,
             (long long)h5_runs_part((H5Runs){p->first, p->count, p->run}, cols, at + k, 1).first);
done:
    return err;
}

// The same as an H5Fetch.
static Err load_own(void *context, int index, int64_t at, int64_t n, void *out) {
    return load_part(context, index, at, n, out);
}

// Ranks that share a shard: the first asks for a part, its owner shows it to all; count = 0 ends the shard.
typedef struct {
    int32_t owner, index, tensor; // piece `index` of rank `owner`
    int64_t at, count;
} PartWish;

typedef struct {
    const ModelSource *m;
    PartWish *wish; // [pieces of all]: whole pieces
    Err err;        // of loading this rank's own parts; it goes on, so that nobody waits for it
} Sharing;

static void show_part(Sharing *s, const PartWish *wish, void *out) {
    const Group *g = s->m->sharing;
    if (wish->owner == group_rank(g) && !s->err) s->err = load_part(s->m, wish->index, wish->at, wish->count, out);
    coll_bcast(g, out, (size_t)wish->count * dtype_bytes(s->m->tensors[wish->tensor].dtype), wish->owner);
}

// An H5Fetch for the rank that writes.
static Err ask_part(void *context, int piece, int64_t at, int64_t n, void *out) {
    Sharing *s = context;
    PartWish wish = s->wish[piece];
    wish.at = at;
    wish.count = n;
    coll_bcast(s->m->sharing, &wish, sizeof wish, 0);
    show_part(s, &wish, out);
    return DS_OK;
}

static void answer_parts(Sharing *s) {
    PartWish wish;
    void *staging = h5_parts_staging(s->m->tensors, s->m->n_tensors);
    for (;;) {
        coll_bcast(s->m->sharing, &wish, sizeof wish, 0);
        if (wish.count == 0) break;
        show_part(s, &wish, staging);
    }
    mem_free(staging);
}

// The pieces of all, on every rank of the group. Owner: caller, mem_free both.
static int all_pieces(Sharing *s, H5Piece **pieces) {
    const Group *g = s->m->sharing;
    void *all = NULL;
    size_t *offset = MEM_NEW(size_t, group_size(g) + 1);
    coll_allgatherv(g, s->m->pieces, (size_t)s->m->n_pieces * sizeof **pieces, &all, offset);
    int n = (int)(offset[group_size(g)] / sizeof **pieces);
    *pieces = all;
    s->wish = MEM_NEW(PartWish, n);
    for (int r = 0, i = 0; r < group_size(g); r++)
        for (int first = i; (size_t)i * sizeof **pieces < offset[r + 1]; i++) {
            (*pieces)[i].data = NULL; // an address of another rank
            s->wish[i] = (PartWish){.owner = r, .index = i - first, .tensor = (*pieces)[i].tensor};
        }
    mem_free(offset);
    return n;
}

// Collective on m->sharing.
static Err write_shared(const char *path, int shard, const ModelSource *m, H5Rows *rows) {
    H5Piece *pieces;
    Sharing s = {.m = m};
    Err err = h5_parts_check_pieces(path, m->tensors, m->n_tensors, m->pieces, m->n_pieces, m->fetch != NULL);
    err = agree_err(m->sharing, err);
    if (err) return err;
    int n = all_pieces(&s, &pieces);
    if (group_rank(m->sharing) == 0) {
        err = h5_parts_write_shard(path, shard, m->tensors, m->n_tensors, pieces, n, ask_part, &s, rows);
        coll_bcast(m->sharing, &(PartWish){.count = 0}, sizeof(PartWish), 0);
    } else answer_parts(&s);
    mem_free(pieces);
    mem_free(s.wish);
    return err ? err : s.err;
}

// Each rank for itself; every element goes through load_part.
static Err write_own(const char *path, int shard, const ModelSource *m, H5Rows *rows) {
    Err err = h5_parts_check_pieces(path, m->tensors, m->n_tensors, m->pieces, m->n_pieces, m->fetch != NULL);
    if (err) return err;
    H5Piece *pieces = MEM_NEW(H5Piece, m->n_pieces);
    for (int i = 0; i < m->n_pieces; i++) pieces[i] = m->pieces[i], pieces[i].data = NULL;
    err = h5_parts_write_shard(path, shard, m->tensors, m->n_tensors, pieces, m->n_pieces, load_own,
                               (void *)(uintptr_t)m, rows);
    mem_free(pieces);
    return err;
}

static Err write_shard(const Group *g, const char *path, const ModelSource *m, H5Rows *rows) {
    int shard = group_rank(g);
    if (!m->sharing) return write_own(path, shard, m, rows);
    coll_bcast(m->sharing, &shard, sizeof shard, 0); // named after the rank that writes it
    return write_shared(path, shard, m, rows);
}

// Collective on g; the code is agreed.
static Err save_sharded(const Group *g, const char *path, const ModelSource *m, H5Rows *rows) {
    Err err = DS_OK;
    DS_TRY(agree_err(g, group_rank(g) == 0 ? remove_shards(path, true) : DS_OK));
    DS_TRY(agree_err(g, write_shard(g, path, m, rows)));
    gather_rows(g, rows);
    if (group_rank(g) == 0) err = modelfile_write_master(path, m->meta, m->tensors, m->n_tensors, rows);
    DS_TRY(agree_err(g, err));
done:
    return err;
}

// ---- one file ----

typedef struct {
    const Group *g;
    const ModelSource *m;
    H5File *file;
    H5Rows rows;
    void *staging;
} OneWriter;

// What travels before each part: which elements follow; count = 0 ends a rank's turn.
typedef struct {
    int64_t tensor;
    H5Runs runs;
} PartHead;

// Rank `root` shows one part to all, rank 0 writes it. A rank in error goes on, so that the others do not wait for it.
// Collective.
static Err pass_part(OneWriter *w, int root, PartHead head, Err err) {
    const H5Tensor *t = &w->m->tensors[head.tensor];
    const H5Runs r = head.runs;
    coll_bcast(w->g, w->staging, (size_t)r.count * dtype_bytes(t->dtype), root);
    if (group_rank(w->g) != 0 || err) return err;
    const H5Piece part = {(int)head.tensor, r.first, r.count, r.run, w->staging};
    return h5_parts_put(w->file, w->m->tensors, &part, &w->rows);
}

// This rank's turn: its pieces, part by part; none if they are not legal. Collective on g.
static Err give_parts(OneWriter *w, const char *path, Err err) {
    int me = group_rank(w->g);
    PartHead head = {0};
    const ModelSource *m = w->m;
    Err bad = h5_parts_check_pieces(path, m->tensors, m->n_tensors, m->pieces, m->n_pieces, m->fetch != NULL);
    if (bad && !err) err = bad;
    for (int i = 0; !bad && i < m->n_pieces; i++) {
        const H5Piece *p = &m->pieces[i];
        for (int64_t at = 0; at < p->count; at += head.runs.count) {
            head = (PartHead){p->tensor, h5_parts_row(&m->tensors[p->tensor], p, at)};
            if (!err) err = load_part(m, i, at, head.runs.count, w->staging);
            coll_bcast(w->g, &head, sizeof head, me);
            err = pass_part(w, me, head, err);
        }
    }
    head.runs.count = 0;
    coll_bcast(w->g, &head, sizeof head, me);
    return err;
}

static Err take_parts(OneWriter *w, int root, Err err) {
    PartHead head = {0};
    for (;;) {
        coll_bcast(w->g, &head, sizeof head, root);
        if (head.runs.count == 0) return err;
        err = pass_part(w, root, head, err);
    }
}

static Err open_one(OneWriter *w, const char *path) {
    Err err = DS_OK;
    DS_TRY(h5_create(path, &w->file));
    if (w->m->meta) DS_TRY(modelfile_write_meta(w->file, w->m->meta));
    DS_TRY(h5_parts_create(w->file, w->m->tensors, w->m->n_tensors));
done:
    return err;
}

// Collective on g; the code is agreed.
static Err save_one(const Group *g, const char *path, const ModelSource *m, H5Rows *rows) {
    Err err = DS_OK;
    bool root = group_rank(g) == 0;
    OneWriter w = {.g = g, .m = m, .staging = h5_parts_staging(m->tensors, m->n_tensors)};
    if (root) err = open_one(&w, path);
    for (int r = 0; r < group_size(g); r++)
        err = r == group_rank(g) ? give_parts(&w, path, err) : take_parts(&w, r, err);
    err = agree_err(g, err); // the first failure's words, not those of the hole that it leaves
    if (root && !err) err = h5_parts_finish(w.file, m->tensors, m->n_tensors, &w.rows);
    if (root && !err) err = h5_commit(&w.file);
    if (root && !err) err = remove_shards(path, false);
    h5_abandon(&w.file);
    mem_free(w.staging);
    *rows = w.rows;
    return agree_err(g, err);
}

Err modelfile_save(const Group *g, const char *path, const ModelSource *source, ModelFiles files, H5Rows *rows) {
    H5Rows mine = {0};
    Err err = files == MODEL_FILES_ONE ? save_one(g, path, source, &mine) : save_sharded(g, path, source, &mine);
    if (rows && !err) *rows = mine;
    else h5_rows_free(&mine);
    return err;
}
