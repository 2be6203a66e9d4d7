// h5.c: an HDF5 file from a stranger: inspected, and where it is accepted all of it is read, also as a model and as a
// data set. The inspection is a process of its own for each input (lib/inspect.c), so this target is slow.
#include "data/dataset.h"
#include "fuzz.h"
#include "io/h5_attr.h"
#include "io/modelfile.h"

static void look_at_attributes(const H5File *f, const char *object) {
    H5Names names = {0};
    if (h5_attr_list(f, object, &names) == DS_OK)
        for (int64_t i = 0; i < names.n; i++) {
            int64_t integer;
            double real;
            char *text = NULL;
            h5_attr_get_i64(f, object, names.name[i], &integer);
            h5_attr_get_f64(f, object, names.name[i], &real);
            if (h5_attr_get_str(f, object, names.name[i], &text) == DS_OK) mem_free(text);
            err_clear();
        }
    h5_names_free(&names);
    err_clear();
}

static void look_at_data(const H5File *f, const char *object) {
    H5Info info;
    if (h5_info(f, object, &info) == DS_OK && info.count <= 1 << 16) {
        void *x = mem_array(info.count + 1, 8);
        h5_read(f, object, info.dtype, 0, info.count, x);
        mem_free(x);
    }
    err_clear();
}

static void look(const H5File *f, const char *group) {
    H5Names names = {0};
    look_at_attributes(f, group);
    if (h5_list(f, group, &names) == DS_OK)
        for (int64_t i = 0; i < names.n && i < 100; i++) {
            char *path = mem_printf("%s/%s", strcmp(group, "/") ? group : "", names.name[i]);
            if (h5_is_group(f, path)) look(f, path);
            else look_at_attributes(f, path), look_at_data(f, path);
            mem_free(path);
        }
    h5_names_free(&names);
    err_clear();
}

static void look_at_model(const ModelFile *m) {
    char *text = NULL, *tokenizer = NULL;
    size_t bytes;
    Tokenizer *t = NULL;
    for (int i = 0; i < modelfile_count(m); i++) {
        const H5Tensor *x = modelfile_tensor(m, i);
        FUZZ_HOLDS(modelfile_find(m, x->path + strlen("/weights/")) == i);
        int64_t count = 1;
        for (int d = 0; d < x->ndim; d++) count *= x->shape[d];
        if (count > 1 << 16) continue;
        float *values = MEM_NEW(float, count);
        modelfile_read(m, i, DS_F32, 0, count, values);
        if (x->ndim == 2) modelfile_read_runs(m, i, DS_F32, 0, x->shape[0], 1, values);
        mem_free(values);
        err_clear();
    }
    modelfile_verify(m, 0, 1);
    err_clear();
    if (modelfile_text(m, "template", &text) == DS_OK) mem_free(text);
    err_clear();
    if (modelfile_origin(m, "commit", &text) == DS_OK) mem_free(text);
    err_clear();
    if (modelfile_tokenizer(m, &tokenizer, &bytes) == DS_OK && tokenizer &&
        tok_load_blob(tokenizer, bytes, "fuzz", &t) == DS_OK)
        tok_free(&t);
    mem_free(tokenizer);
}

static void look_at_rows(Dataset *d) {
    const int64_t *spans;
    for (int64_t row = 0; row < dataset_rows(d) && row < 100; row++) {
        int32_t *ids = NULL;
        int64_t n = 0;
        for (int64_t i = 0, k = dataset_spans(d, row, &spans); i < k; i++)
            FUZZ_HOLDS(0 <= spans[2 * i] && spans[2 * i] <= spans[2 * i + 1] &&
                       spans[2 * i + 1] <= dataset_length(d, row));
        FUZZ_HOLDS(dataset_counted(d, row) <= dataset_length(d, row));
        if (dataset_prompt(d, row, &ids, &n) == DS_OK) FUZZ_HOLDS(n == dataset_prompt_length(d, row));
        mem_free(ids);
        if (dataset_length(d, row) <= 1 << 16) {
            ids = MEM_NEW(int32_t, dataset_length(d, row));
            dataset_read(d, &row, 1, ids);
            mem_free(ids);
        }
        err_clear();
    }
}

static void look_at_dataset(Dataset *d) {
    Tokenizer *t = NULL;
    look_at_rows(d);
    for (int kind = 0; kind < DATA_KINDS; kind++) {
        dataset_longest(d, (DataKind)kind);
        dataset_mean(d, (DataKind)kind);
        dataset_check_positions(d, (DataKind)kind, 4, "fuzz");
        err_clear();
        for (int eval = 0; eval < 2; eval++)
            for (int64_t i = 0; i < dataset_count(d, (DataKind)kind, eval) && i < 100; i++) {
                int64_t chosen = dataset_record(d, (DataKind)kind, eval, i), rejected = chosen;
                if (kind == DATA_RM) dataset_pair(d, chosen, &chosen, &rejected);
                FUZZ_HOLDS(0 <= chosen && chosen < dataset_rows(d) && 0 <= rejected && rejected < dataset_rows(d));
            }
    }
    if (dataset_tokenizer(d, &t) == DS_OK) tok_free(&t);
    chat_text_roles(dataset_template(d));
}

// What a master of shards may name.
static void make_shard(void) {
    static const uint8_t zeros[4096];
    static bool there;
    char *folder = mem_printf("%s/model.shards", fuzz_folder());
    if (!there && file_make_dirs(folder)) abort();
    if (!there) fuzz_file("model.shards/00000.h5", zeros, sizeof zeros);
    there = true;
    mem_free(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    make_shard();
    const char *path = fuzz_file("model.h5", data, n);
    H5File *f = NULL;
    ModelFile *m = NULL;
    Dataset *d = NULL;
    if (h5_open_checked(path, &f) == DS_OK) {
        look(f, "/");
        h5_close(&f);
        if (modelfile_open(path, &m) == DS_OK) look_at_model(m);
        modelfile_close(&m);
        err_clear();
        if (dataset_open(path, &d) == DS_OK) look_at_dataset(d);
        dataset_close(&d);
    }
    err_clear();
    return 0;
}
