// export.c: see export.h. The weights go through memory one at a time.
#include "io/export.h"

#include <string.h>

#include "arch/arch_hf.h"
#include "arch/weights.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/export_dir.h"
#include "io/export_meta.h"
#include "io/modelfile.h"
#include "io/safetensors.h"

// Our [rows][cols] -> Hugging Face's [cols][rows].
static void transpose(const char *src, int64_t rows, int64_t cols, size_t size, char *out) {
    for (int64_t c = 0; c < cols; c++)
        for (int64_t r = 0; r < rows; r++) {
            const char *from = src + (size_t)(r * cols + c) * size;
            if (size == 4) memcpy(out, from, 4);
            else memcpy(out, from, 2);
            out += size;
        }
}

static Err copy_weights(const ModelFile *model, const WeightList *list, DType dtype, SafetensorsWriter *writer) {
    Err err = DS_OK;
    int64_t largest = 0, written = 0;
    double started = clock_now();
    for (int i = 0; i < list->n; i++) largest = ds_max(largest, list->w[i].count);
    char *weight = mem_array(largest, dtype_bytes(dtype)), *turned = mem_array(largest, dtype_bytes(dtype));
    for (int i = 0; i < list->n; i++) {
        const Weight *w = &list->w[i];
        size_t bytes = (size_t)w->count * dtype_bytes(dtype);
        DS_TRY(modelfile_read(model, i, dtype, 0, w->count, weight));
        if (w->hf_transposed) transpose(weight, w->shape[0], w->shape[1], dtype_bytes(dtype), turned);
        DS_TRY(safetensors_write(writer, w->hf_transposed ? turned : weight, bytes));
        written += (int64_t)bytes;
        double seconds = clock_now() - started;
        if (seconds > 2)
            log_progress("export", i + 1, list->n, (double)written / seconds / 0x1p20, "MiB/s", w->name, false);
    }
done:
    mem_free(weight);
    mem_free(turned);
    return err;
}

static Err export_weights(const ModelFile *model, const char *dir, double max_shard_bytes) {
    Err err = DS_OK;
    WeightList list;
    SafetensorsWriter *writer = NULL;
    DType dtype = modelfile_tensor(model, 0)->dtype;
    weights_build(modelfile_arch(model), &list);
    SafeSpec *specs = MEM_NEW(SafeSpec, list.n);
    for (int i = 0; i < list.n; i++) {
        const Weight *w = &list.w[i];
        specs[i] = (SafeSpec){.name = w->name, .ndim = w->ndim};
        specs[i].shape[0] = w->shape[w->hf_transposed];
        specs[i].shape[1] = w->shape[!w->hf_transposed];
    }
    DS_TRY(safetensors_create(dir, specs, list.n, dtype, (size_t)max_shard_bytes, &writer));
    DS_TRY(copy_weights(model, &list, dtype, writer));
    DS_TRY(safetensors_finish(writer));
done:
    safetensors_destroy(&writer);
    mem_free(specs);
    weights_free(&list);
    return err;
}

// What it writes, or what would be taken for part of the model.
static const char *const own_files[] = {"config.json",           "model.safetensors*",    "model-*",
                                        "tokenizer.json",        "tokenizer_config.json", "chat_template.jinja",
                                        "generation_config.json"};

static Err write_files(const ModelFile *model, const char *dir, double max_shard_bytes) {
    Err err = DS_OK;
    char *config = NULL, *path = mem_printf("%s/config.json", dir);
    ExportTokens ids;
    DS_TRY(export_meta_write(model, dir, &ids));
    DS_TRY(arch_hf_print(modelfile_arch(model), modelfile_tensor(model, 0)->dtype, ids.bos, ids.eos, &config));
    DS_TRY(export_weights(model, dir, max_shard_bytes));
    DS_TRY(file_write_atomic(path, config, strlen(config)));
done:
    mem_free(config);
    mem_free(path);
    return err;
}

Err export_model(const char *path, const char *dir, double max_shard_bytes) {
    Err err = DS_OK;
    ModelFile *model = NULL;
    ExportDir out = {0};
    DS_TRY(modelfile_open(path, &model));
    DS_TRY(export_dir_begin(dir, own_files, DS_COUNT(own_files), &out));
    DS_TRY(write_files(model, out.work, max_shard_bytes));
    DS_TRY(export_dir_commit(&out));
    log_info("%s: a %s model for transformers, %s", dir, arch_family_name((ArchFamily)modelfile_arch(model)->family),
             dtype_name(modelfile_tensor(model, 0)->dtype));
done:
    export_dir_end(&out);
    modelfile_close(&model);
    return err;
}
