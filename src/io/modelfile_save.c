// modelfile_save.c: see modelfile_save.h. Sharded: each rank writes its pieces, the rows of all travel, rank 0 writes
// the master. One file: the pieces travel, a part of at most H5_ROW_MAX elements at a time, and rank 0 writes them.
#include "io/modelfile_save.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"

// ---- a shard a rank ----

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

// Collective on g; the code is agreed.
static Err save_sharded(const Group *g, const char *path, const ModelSource *m, H5Rows *rows) {
    Err err = DS_OK;
    DS_TRY(agree_err(g, group_rank(g) == 0 ? remove_shards(path, true) : DS_OK));
    DS_TRY(agree_err(g, h5_parts_write_shard(path, group_rank(g), m->tensors, m->n_tensors, m->pieces, m->n_pieces,
                                             m->fetch, m->context, rows)));
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
    int64_t tensor, first, count;
} PartHead;

// Rank `root` shows one part to all, rank 0 writes it. A rank in error goes on, so that the others do not wait for it.
// Collective.
static Err pass_part(OneWriter *w, int root, PartHead head, Err err) {
    const H5Tensor *t = &w->m->tensors[head.tensor];
    coll_bcast(w->g, w->staging, (size_t)head.count * dtype_bytes(t->dtype), root);
    if (group_rank(w->g) != 0 || err) return err;
    return h5_parts_put(w->file, w->m->tensors, (int)head.tensor, head.first, head.count, w->staging, &w->rows);
}

// Fills staging with elements of this rank's piece.
static Err load_part(OneWriter *w, int index, int64_t at, int64_t n) {
    const H5Piece *p = &w->m->pieces[index];
    size_t size = dtype_bytes(w->m->tensors[p->tensor].dtype);
    if (p->data) memcpy(w->staging, (const char *)p->data + (size_t)at * size, (size_t)n * size);
    else return w->m->fetch(w->m->context, index, at, n, w->staging);
    return DS_OK;
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
        for (int64_t at = 0; at < p->count; at += H5_ROW_MAX) {
            head = (PartHead){p->tensor, p->first + at, ds_min(H5_ROW_MAX, p->count - at)};
            if (!err) err = load_part(w, i, at, head.count);
            coll_bcast(w->g, &head, sizeof head, me);
            err = pass_part(w, me, head, err);
        }
    }
    head.count = 0;
    coll_bcast(w->g, &head, sizeof head, me);
    return err;
}

static Err take_parts(OneWriter *w, int root, Err err) {
    PartHead head = {0};
    for (;;) {
        coll_bcast(w->g, &head, sizeof head, root);
        if (head.count == 0) return err;
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
