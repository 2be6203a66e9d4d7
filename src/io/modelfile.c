// modelfile.c: see modelfile.h.
#include "io/modelfile.h"

#include <stdio.h>
#include <string.h>

#include "arch/weights.h"
#include "base/mem.h"
#include "io/filetype.h"
#include "io/h5_attr.h"

enum { FORMAT_VERSION = 1, MAX_TOKENIZER = 1 << 28 };
#define WEIGHTS "/weights"

void modelfile_tensors(const Arch *arch, DType dtype, H5Tensor **tensors, int *n_tensors) {
    WeightList list;
    weights_build(arch, &list);
    *tensors = MEM_NEW(H5Tensor, list.n);
    for (int i = 0; i < list.n; i++) {
        const Weight *w = &list.w[i];
        H5Tensor *t = &(*tensors)[i];
        *t = (H5Tensor){.dtype = dtype, .ndim = w->ndim, .shape = {w->shape[0], w->shape[1], 1, 1}};
        snprintf(t->path, sizeof t->path, WEIGHTS "/%s", w->name);
    }
    *n_tensors = list.n;
    weights_free(&list);
}

// ---- writing ----

static Err write_arch(H5File *file, const Arch *arch) {
    Err err = DS_OK;
    DS_TRY(h5_make_group(file, "/config"));
    DS_TRY(h5_attr_put_i64(file, "/config", "format_version", FORMAT_VERSION));
    for (int i = 0; i < arch_field_count(); i++) {
        double v = arch_field_get(arch, i);
        DS_TRY(arch_field_is_real(i) ? h5_attr_put_f64(file, "/config", arch_field_name(i), v)
                                     : h5_attr_put_i64(file, "/config", arch_field_name(i), (int64_t)v));
    }
done:
    return err;
}

static Err write_pairs(H5File *file, const char *group, const ModelPair *pairs, int n) {
    Err err = DS_OK;
    DS_TRY(h5_make_group(file, group));
    for (int i = 0; i < n; i++) DS_TRY(h5_attr_put_str(file, group, pairs[i].key, pairs[i].value));
done:
    return err;
}

Err modelfile_write_meta(H5File *file, const ModelMeta *meta) {
    Err err = DS_OK;
    DS_TRY(write_arch(file, meta->arch));
    DS_TRY(write_pairs(file, "/origin", meta->origin, meta->n_origin));
    if (meta->n_texts) DS_TRY(write_pairs(file, "/texts", meta->texts, meta->n_texts));
    if (meta->tokenizer) {
        int64_t n = (int64_t)meta->tokenizer_bytes;
        DS_TRY(h5_write_new(file, "/tokenizer", DS_U8, 1, &n, meta->tokenizer));
        DS_TRY(h5_attr_put_str(file, "/tokenizer", "sha256", hash_sha256(meta->tokenizer, meta->tokenizer_bytes).hex));
    }
done:
    return err;
}

struct ModelWriter {
    H5File *file;
    H5Tensor *tensors;
    int n_tensors;
    H5Rows rows;
};

Err modelfile_create(const char *path, const ModelMeta *meta, DType dtype, ModelWriter **writer) {
    Err err = DS_OK;
    ModelWriter *w = *writer = MEM_NEW(ModelWriter, 1);
    modelfile_tensors(meta->arch, dtype, &w->tensors, &w->n_tensors);
    DS_TRY(h5_create(path, &w->file));
    DS_TRY(modelfile_write_meta(w->file, meta));
    DS_TRY(h5_parts_create(w->file, w->tensors, w->n_tensors));
done:
    if (err) modelfile_abandon(writer);
    return err;
}

Err modelfile_put(ModelWriter *w, int tensor, int64_t first, int64_t count, const void *data) {
    if (tensor < 0 || tensor >= w->n_tensors)
        return err_set(DS_ERR_BUG, "%s: there is no weight number %d", h5_path(w->file), tensor);
    const H5Piece piece = {.tensor = tensor, .first = first, .count = count, .data = data};
    return h5_parts_put(w->file, w->tensors, &piece, &w->rows);
}

Err modelfile_commit(ModelWriter **writer) {
    Err err = DS_OK;
    ModelWriter *w = *writer;
    DS_TRY(h5_parts_finish(w->file, w->tensors, w->n_tensors, &w->rows));
    DS_TRY(h5_commit(&w->file));
done:
    modelfile_abandon(writer);
    return err;
}

void modelfile_abandon(ModelWriter **writer) {
    ModelWriter *w = *writer;
    if (!w) return;
    h5_abandon(&w->file);
    h5_rows_free(&w->rows);
    mem_free(w->tensors);
    MEM_FREE(*writer);
}

Err modelfile_write_master(const char *path, const ModelMeta *meta, const H5Tensor *tensors, int n_tensors,
                           H5Rows *rows) {
    Err err = DS_OK;
    H5File *file = NULL;
    DS_TRY(h5_create(path, &file));
    if (meta) DS_TRY(modelfile_write_meta(file, meta));
    DS_TRY(h5_parts_write_virtual(file, tensors, n_tensors, rows));
    DS_TRY(h5_commit(&file));
done:
    h5_abandon(&file);
    return err;
}

// ---- reading ----

struct ModelFile {
    H5File *file;
    Arch arch;
    WeightList list;
    H5Tensor *tensors; // [list.n], the order of arch/weights.h
    H5Parts *parts;
};

static Err read_arch(const H5File *file, Arch *arch) {
    Err err = DS_OK;
    int64_t version = 0, whole = 0;
    double real = 0;
    DS_CHECK(h5_is_group(file, "/config"), DS_ERR_DATA, "%s: has no /config, so it is not a model%s", h5_path(file),
             h5_is_group(file, "/samples") ? " but a data set" : "");
    DS_TRY(h5_attr_get_i64(file, "/config", "format_version", &version));
    DS_CHECK(version == FORMAT_VERSION, DS_ERR_DATA, "%s: has format version %lld, this program reads %d",
             h5_path(file), (long long)version, FORMAT_VERSION);
    *arch = (Arch){0};
    for (int i = 0; i < arch_field_count(); i++) {
        if (arch_field_is_real(i)) DS_TRY(h5_attr_get_f64(file, "/config", arch_field_name(i), &real));
        else {
            DS_TRY(h5_attr_get_i64(file, "/config", arch_field_name(i), &whole));
            real = (double)whole;
        }
        arch_field_set(arch, i, real);
    }
    DS_TRY(arch_check(arch, h5_path(file)));
done:
    return err;
}

// Every weight of the list is there with its shape and a type we compute with.
static Err match_weights(ModelFile *m) {
    Err err = DS_OK;
    H5Names names = {0};
    int n;
    modelfile_tensors(&m->arch, DS_F32, &m->tensors, &n);
    for (int i = 0; i < n; i++)
        DS_CHECK(h5_exists(m->file, m->tensors[i].path), DS_ERR_DATA, "%s: weight %s is missing", h5_path(m->file),
                 m->tensors[i].path);
    DS_TRY(h5_parts_open(m->file, m->tensors, n, &m->parts));
    for (int i = 0; i < n; i++) {
        DType stored = h5_parts_stored(m->parts, i);
        DS_CHECK(stored == DS_F32 || stored == DS_BF16, DS_ERR_DATA, "%s: %s holds %s, expected fp32 or bf16",
                 h5_path(m->file), m->tensors[i].path, dtype_name(stored));
        m->tensors[i].dtype = stored;
    }
    DS_TRY(h5_list(m->file, WEIGHTS, &names));
    for (int64_t i = 0; i < names.n; i++)
        DS_CHECK(weights_find_name(&m->list, names.name[i]), DS_ERR_DATA,
                 "%s: holds the weight %s, which a %s model with this config does not have", h5_path(m->file),
                 names.name[i], arch_family_name((ArchFamily)m->arch.family));
done:
    h5_names_free(&names);
    return err;
}

Err modelfile_open(const char *path, ModelFile **model) {
    Err err = DS_OK;
    ModelFile *m = *model = MEM_NEW(ModelFile, 1);
    DS_TRY(filetype_expect(path, FILETYPE_MODEL));
    DS_TRY(h5_open_checked(path, &m->file));
    DS_TRY(read_arch(m->file, &m->arch));
    weights_build(&m->arch, &m->list);
    DS_TRY(match_weights(m));
done:
    if (m->file && h5_trouble(m->file)) err = h5_trouble(m->file); // which may be why something was not there
    if (err) modelfile_close(model);
    return err;
}

void modelfile_close(ModelFile **model) {
    ModelFile *m = *model;
    if (!m) return;
    h5_parts_close(&m->parts);
    h5_close(&m->file);
    if (m->list.w) weights_free(&m->list);
    mem_free(m->tensors);
    MEM_FREE(*model);
}

const Arch *modelfile_arch(const ModelFile *m) { return &m->arch; }
int modelfile_count(const ModelFile *m) { return m->list.n; }
const H5Tensor *modelfile_tensor(const ModelFile *m, int i) { return &m->tensors[i]; }

int modelfile_find(const ModelFile *m, const char *name) {
    const Weight *w = weights_find_name(&m->list, name);
    return w ? (int)(w - m->list.w) : -1;
}

Err modelfile_read_runs(const ModelFile *m, int i, DType as, int64_t first, int64_t count, int64_t run, void *out) {
    if (as != DS_F32 && as != DS_BF16)
        return err_set(DS_ERR_BUG, "weights are read as fp32 or bf16, not %s", dtype_name(as));
    return h5_parts_get(m->parts, i, as, (H5Runs){first, count, run}, out);
}

Err modelfile_read(const ModelFile *m, int i, DType as, int64_t first, int64_t count, void *out) {
    return modelfile_read_runs(m, i, as, first, count, 0, out);
}

Err modelfile_verify(const ModelFile *m, int part, int parts) {
    return h5_parts_verify(m->file, m->tensors, m->list.n, part, parts);
}

Err modelfile_verify_until(const ModelFile *m, int part, int parts, H5Verified *v) {
    return h5_parts_verify_until(m->file, m->tensors, m->list.n, part, parts, v);
}

Err modelfile_tokenizer(const ModelFile *m, char **data, size_t *bytes) {
    Err err = DS_OK;
    H5Info info;
    char *sha = NULL;
    *data = NULL, *bytes = 0;
    if (!h5_exists(m->file, "/tokenizer")) return h5_trouble(m->file);
    DS_TRY(h5_info(m->file, "/tokenizer", &info));
    DS_CHECK(info.dtype == DS_U8 && info.ndim == 1 && info.count <= MAX_TOKENIZER, DS_ERR_DATA,
             "%s: /tokenizer is not a row of at most %d bytes", h5_path(m->file), MAX_TOKENIZER);
    DS_TRY(h5_attr_get_str(m->file, "/tokenizer", "sha256", &sha));
    *data = mem_alloc((size_t)info.count + 1);
    DS_TRY(h5_read(m->file, "/tokenizer", DS_U8, 0, info.count, *data));
    DS_CHECK(!strcmp(hash_sha256(*data, (size_t)info.count).hex, sha), DS_ERR_DATA,
             "%s: /tokenizer is damaged: its bytes do not have the SHA-256 they were written with", h5_path(m->file));
    *bytes = (size_t)info.count;
done:
    mem_free(sha);
    if (err) MEM_FREE(*data);
    return err;
}

static Err read_pair(const ModelFile *m, const char *group, const char *key, char **value) {
    *value = NULL;
    return h5_attr_exists(m->file, group, key) ? h5_attr_get_str(m->file, group, key, value) : h5_trouble(m->file);
}

Err modelfile_text(const ModelFile *m, const char *key, char **value) { return read_pair(m, "/texts", key, value); }
Err modelfile_origin(const ModelFile *m, const char *key, char **value) { return read_pair(m, "/origin", key, value); }
