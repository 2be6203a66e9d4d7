// ckpt_save.c: writing a checkpoint, in the order that makes every moment of it safe. See ckpt_save.h.
#include "io/ckpt_save.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/watchdog.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "io/manifest.h"

// Room for what is not elements: object headers, names, hashes, the manifest.
enum { SLACK_BYTES = 4 << 20, TENSOR_BYTES = 8 << 10 };

int64_t ckpt_save_bytes(const CkptModel *models, int n_models, const Kv *state) {
    int64_t bytes = SLACK_BYTES + (state ? kv_bytes(state) : 0);
    for (int m = 0; m < n_models; m++)
        for (int i = 0; i < models[m].source.n_tensors; i++) {
            const H5Tensor *t = &models[m].source.tensors[i];
            bytes += ds_max(h5_tensor_count(t), 0) * (int64_t)dtype_bytes(t->dtype) + TENSOR_BYTES;
        }
    return bytes;
}

Err ckpt_save_check_space(const char *dir, int64_t bytes) {
    uint64_t free_bytes = 0;
    char wanted[32], there[32];
    Err err = file_free_bytes(dir, &free_bytes);
    if (err || free_bytes >= (uint64_t)bytes) return err;
    return err_set(DS_ERR_IO, "%s: a checkpoint needs %s, %s are free", dir, text_bytes(wanted, (double)bytes),
                   text_bytes(there, (double)free_bytes));
}

static char *temporary_path(const CkptOptions *o) {
    return mem_printf("%s/.tmp-%s-%06lld", o->dir, o->stage, (long long)o->step);
}

static Err begin(const CkptOptions *o, char **temporary) {
    Err err = DS_OK;
    const char *stage;
    int64_t step;
    char *path = ckpt_path(o->dir, o->stage, o->step);
    *temporary = temporary_path(o);
    DS_CHECK(o->step >= 0 && ckpt_parse(path, &stage, &step), DS_ERR_BUG, "%s: is not a checkpoint's name", path);
    DS_TRY(file_remove_tree(*temporary));
    DS_TRY(file_make_dirs(*temporary));
done:
    mem_free(path);
    return err;
}

// ---- models ----

// Manifest lines of one saved model: this rank's shard, and on rank 0 the file itself and all its rows.
static Err list_model(const Group *g, const char *temporary, const CkptModel *m, const H5Rows *rows,
                      Manifest *manifest) {
    Err err = DS_OK;
    char name[160];
    snprintf(name, sizeof name, "%.100s.shards/%05d.h5", m->name, group_rank(g));
    char *shard = mem_printf("%s/%s", temporary, name);
    watchdog_enter(WATCH_FILE, "hashing a checkpoint", temporary);
    if (file_exists(shard)) DS_TRY(manifest_add_file(manifest, temporary, name));
    if (group_rank(g) != 0) goto done;
    snprintf(name, sizeof name, "%.100s.h5", m->name);
    DS_TRY(manifest_add_file(manifest, temporary, name));
    for (int64_t i = 0; i < rows->n; i++) {
        const H5Row *r = &rows->row[i];
        manifest_add_rows(manifest, name, m->source.tensors[r->tensor].path, r->runs, r->hash);
    }
done:
    watchdog_leave();
    mem_free(shard);
    return err;
}

// Collective on g; the code is agreed.
static Err save_model(const Group *g, const char *temporary, ModelFiles files, const CkptModel *m, Manifest *manifest) {
    Err err = DS_OK;
    H5Rows rows = {0};
    char *path = ckpt_model_path(temporary, m->name);
    DS_TRY(modelfile_save(g, path, &m->source, files, &rows));
    DS_TRY(agree_err(g, list_model(g, temporary, m, &rows, manifest)));
done:
    h5_rows_free(&rows);
    mem_free(path);
    return err;
}

// ---- state, manifest, DONE ----

static Err save_state(const char *temporary, const Kv *state, Manifest *manifest) {
    Err err = DS_OK;
    H5File *file = NULL;
    char *path = mem_printf("%s/trainer.h5", temporary);
    DS_TRY(h5_create(path, &file));
    DS_TRY(kv_write(state, file));
    DS_TRY(h5_commit(&file));
    DS_TRY(manifest_add_file(manifest, temporary, "trainer.h5"));
done:
    h5_abandon(&file);
    mem_free(path);
    return err;
}

// The folders of shards and `folder` itself.
static Err sync_folders(const char *folder) {
    Err err = DS_OK;
    DIR *d = opendir(folder);
    char *path = NULL;
    DS_CHECK(d, DS_ERR_IO, "%s: cannot list: %s", folder, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        mem_free(path);
        path = mem_printf("%s/%s", folder, e->d_name);
        if (file_is_dir(path)) DS_TRY(file_sync(path));
    }
    DS_TRY(file_sync(folder));
done:
    if (d) closedir(d);
    mem_free(path);
    return err;
}

static Err write_done(const char *path, Xxh128Hex hash) {
    char *name = mem_printf("%s/DONE", path), *text = mem_printf("%s\n", hash.hex);
    Err err = file_write_atomic(name, text, strlen(text));
    mem_free(text);
    mem_free(name);
    return err;
}

static Err finish(const CkptOptions *o, const char *temporary, Manifest *manifest, char **path) {
    Err err = DS_OK;
    Xxh128Hex hash;
    char *final = ckpt_path(o->dir, o->stage, o->step);
    char *aside = mem_printf("%s/.tmp-old-%s-%06lld", o->dir, o->stage, (long long)o->step);
    DS_TRY(manifest_write(manifest, temporary, &hash));
    DS_TRY(sync_folders(temporary));
    DS_TRY(file_remove_tree(aside));
    if (file_exists(final)) DS_TRY(file_rename_durable(final, aside)); // torn, or this step is saved a second time
    DS_TRY(file_rename_durable(temporary, final));
    DS_TRY(write_done(final, hash));
    DS_TRY(file_remove_tree(aside));
    watchdog_enter(WATCH_FILE, "removing old checkpoints", o->dir);
    err = ckpt_prune(o->dir, o->keep);
    watchdog_leave();
    if (path && !err) *path = mem_strdup(final);
done:
    mem_free(aside);
    mem_free(final);
    return err;
}

// ---- the whole ----

// The folder of checkpoints, and its own entry made durable.
static Err make_folder(const char *dir) {
    Err err = DS_OK;
    char *parent = mem_printf("%s/..", dir);
    DS_TRY(file_make_dirs(dir));
    DS_TRY(file_sync(parent));
done:
    mem_free(parent);
    return err;
}

// All ranks' manifest lines to rank 0. Collective on g.
static Err gather_manifest(const Group *g, Manifest *manifest) {
    Err err = DS_OK;
    size_t bytes = 0, *offset = MEM_NEW(size_t, group_size(g) + 1);
    void *all = NULL;
    char *mine = manifest_pack(manifest, &bytes);
    coll_allgatherv(g, mine, bytes, &all, offset);
    manifest_free(manifest);
    if (group_rank(g) == 0) err = manifest_unpack(manifest, all, offset[group_size(g)], "manifest");
    mem_free(all);
    mem_free(mine);
    mem_free(offset);
    return err;
}

Err ckpt_save(const Group *g, const CkptOptions *o, const CkptModel *models, int n_models, const Kv *state,
              char **path) {
    Err err = DS_OK;
    bool root = group_rank(g) == 0;
    Manifest manifest = {0};
    char *temporary = NULL;
    if (path) *path = NULL;
    DS_TRY(agree_err(g, root ? make_folder(o->dir) : DS_OK));
    DS_TRY(agree_err(g, ckpt_save_check_space(o->dir, ckpt_save_bytes(models, n_models, state))));
    if (root) err = begin(o, &temporary);
    else temporary = temporary_path(o);
    DS_TRY(agree_err(g, err));
    for (int i = 0; i < n_models; i++) DS_TRY(save_model(g, temporary, o->files, &models[i], &manifest));
    DS_TRY(agree_err(g, root ? save_state(temporary, state, &manifest) : DS_OK));
    err = gather_manifest(g, &manifest);
    if (root && !err) err = finish(o, temporary, &manifest, path);
    DS_TRY(agree_err(g, err));
    if (!root && path) *path = ckpt_path(o->dir, o->stage, o->step);
done:
    if (err && root && temporary && file_remove_tree(temporary)) log_warn("%s: could not be removed", temporary);
    manifest_free(&manifest);
    mem_free(temporary);
    return err;
}
