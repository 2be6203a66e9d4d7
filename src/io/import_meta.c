// import_meta.c: see import_meta.h.
#include "io/import_meta.h"

#include <jansson.h>
#include <libgen.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "token/bpe.h"

char *import_meta_beside(const char *path, const char *name) {
    if (file_is_dir(path)) return mem_printf("%s/%s", path, name);
    char *copy = mem_strdup(path), *out = mem_printf("%s/%s", dirname(copy), name);
    mem_free(copy);
    return out;
}

// A JSON object beside the model; *root = NULL if there is no such file. text (may be NULL): the file as it is. Owner:
// caller, json_decref and mem_free.
static Err read_json(const char *path, const char *name, json_t **root, char **text) {
    Err err = DS_OK;
    json_error_t at;
    char *json = NULL, *file = import_meta_beside(path, name);
    size_t bytes = 0;
    *root = NULL;
    if (!file_exists(file)) goto done;
    DS_TRY(file_read_all(file, IMPORT_META_MAX, &json, &bytes));
    *root = json_loadb(json, bytes, 0, &at);
    DS_CHECK(*root, DS_ERR_DATA, "%s: line %d: %s", file, at.line, at.text);
    DS_CHECK(json_is_object(*root), DS_ERR_DATA, "%s: expected a JSON object", file);
    if (text) *text = json, json = NULL;
done:
    mem_free(json);
    mem_free(file);
    return err;
}

// chat_template of a JSON file: a string, or a list of named ones, of which the one called default counts.
static Err read_json_template(const char *path, const char *name, char **text) {
    json_t *root = NULL, *one;
    size_t i;
    Err err = read_json(path, name, &root, NULL);
    const json_t *value = json_object_get(root, "chat_template");
    json_array_foreach(value, i, one) {
        const char *called = json_string_value(json_object_get(one, "name"));
        if (!called || strcmp(called, "default") != 0) continue;
        value = json_object_get(one, "template");
        break;
    }
    if (!err && json_is_string(value)) *text = mem_strdup(json_string_value(value));
    json_decref(root);
    return err;
}

static Err read_template(const char *path, const Gguf *gguf, char **text) {
    size_t bytes = 0;
    if (gguf) {
        *text = gguf_get_string(gguf, "tokenizer.chat_template");
        return DS_OK;
    }
    Err err = DS_OK;
    char *jinja = import_meta_beside(path, "chat_template.jinja");
    if (file_exists(jinja)) err = file_read_all(jinja, IMPORT_META_MAX, text, &bytes);
    if (!err && !*text) err = read_json_template(path, "tokenizer_config.json", text);
    if (!err && !*text) err = read_json_template(path, "chat_template.json", text);
    mem_free(jinja);
    return err;
}

// ---- tokenizer ----

static Err check_length(const Gguf *g, const char *key, int64_t n, int64_t tokens) {
    if (n == tokens) return DS_OK;
    return err_set(DS_ERR_DATA, "%s: %s has %lld entries, tokenizer.ggml.tokens has %lld", g->path, key, (long long)n,
                   (long long)tokens);
}

static Err read_token_strings(const Gguf *g, const char *key, TokStr **out, int64_t *n) {
    GgufString *views = NULL;
    Err err = gguf_get_strings(g, key, &views, n);
    if (err) return err;
    *out = MEM_NEW(TokStr, *n);
    for (int64_t i = 0; i < *n; i++) (*out)[i] = (TokStr){views[i].s, views[i].n};
    mem_free(views);
    return DS_OK;
}

static int64_t number_or(const Gguf *g, const char *key, int64_t missing) {
    double v;
    return gguf_get_number(g, key, &v) && v >= 0 && v <= INT32_MAX ? (int64_t)v : missing;
}

static Err build_gguf_tokenizer(const Gguf *g, const char *model, Tokenizer **out) {
    Err err = DS_OK;
    TokStr *tokens = NULL, *merges = NULL;
    int64_t *types = NULL, n = 0;
    float *scores = NULL;
    TokArrays a = {.model = model,
                   .bos = number_or(g, "tokenizer.ggml.bos_token_id", -1),
                   .eos = number_or(g, "tokenizer.ggml.eos_token_id", -1),
                   .pad = number_or(g, "tokenizer.ggml.padding_token_id", -1),
                   .unk = number_or(g, "tokenizer.ggml.unknown_token_id", -1),
                   .add_bos = (int)number_or(g, "tokenizer.ggml.add_bos_token", -1),
                   .add_eos = (int)number_or(g, "tokenizer.ggml.add_eos_token", -1),
                   .add_space_prefix = (int)number_or(g, "tokenizer.ggml.add_space_prefix", -1)};
    char *pre = gguf_get_string(g, "tokenizer.ggml.pre");
    DS_TRY(read_token_strings(g, "tokenizer.ggml.tokens", &tokens, &a.n_tokens));
    if (gguf_find(g, "tokenizer.ggml.merges"))
        DS_TRY(read_token_strings(g, "tokenizer.ggml.merges", &merges, &a.n_merges));
    if (gguf_find(g, "tokenizer.ggml.token_type")) {
        DS_TRY(gguf_get_ints(g, "tokenizer.ggml.token_type", &types, &n));
        DS_TRY(check_length(g, "tokenizer.ggml.token_type", n, a.n_tokens));
    }
    if (gguf_find(g, "tokenizer.ggml.scores")) {
        DS_TRY(gguf_get_floats(g, "tokenizer.ggml.scores", &scores, &n));
        DS_TRY(check_length(g, "tokenizer.ggml.scores", n, a.n_tokens));
    }
    a.pre = pre, a.tokens = tokens, a.merges = merges, a.types = types, a.scores = scores;
    DS_TRY(tok_load_arrays(&a, g->path, out));
done:
    mem_free(pre);
    mem_free(tokens);
    mem_free(merges);
    mem_free(types);
    mem_free(scores);
    return err;
}

// *out stays NULL if the file has no tokenizer ("none", "no_vocab" are llama.cpp's words for that).
static Err load_gguf_tokenizer(const Gguf *g, Tokenizer **out) {
    char *model = gguf_get_string(g, "tokenizer.ggml.model");
    Err err = DS_OK;
    if (model && strcmp(model, "none") != 0 && strcmp(model, "no_vocab") != 0)
        err = build_gguf_tokenizer(g, model, out);
    mem_free(model);
    return err;
}

// *out stays NULL if the folder holds none of the files that a tokenizer is read from.
static Err load_hf_tokenizer(const char *path, Tokenizer **out) {
    static const char *const files[] = {"tokenizer.json", "vocab.json", "encoder.json", "tokenizer.model"};
    bool found = false;
    for (int i = 0; i < DS_COUNT(files); i++) {
        char *file = import_meta_beside(path, files[i]);
        found = found || file_exists(file);
        mem_free(file);
    }
    if (!found) return DS_OK;
    char *folder = import_meta_beside(path, ".");
    Err err = tok_load(folder, out);
    mem_free(folder);
    return err;
}

static Err read_tokenizer(const char *path, const Gguf *gguf, int64_t vocab, ImportMeta *meta) {
    Err err = DS_OK;
    Tokenizer *t = NULL;
    DS_TRY(gguf ? load_gguf_tokenizer(gguf, &t) : load_hf_tokenizer(path, &t));
    if (!t) goto done;
    if (tok_vocab_size(t) > vocab)
        log_warn("%s: the tokenizer has ids up to %lld, the model has %lld embeddings: texts that need the others are "
                 "refused",
                 path, (long long)tok_vocab_size(t) - 1, (long long)vocab);
    DS_TRY(tok_save(t, &meta->tokenizer, &meta->tokenizer_bytes));
done:
    tok_free(&t);
    return err;
}

// ---- origin ----

// SHA-256 of the file, or, for shards, of their hashes (in hexadecimal) in the order of their names.
static Sha256Hex hash_source(const Gguf *gguf, const Safetensors *st) {
    if (gguf) return hash_sha256(gguf->map.data, gguf->map.bytes);
    if (st->files == 1) return hash_sha256(st->maps[0].data, st->maps[0].bytes);
    char *all = mem_alloc((size_t)st->files * 64);
    for (int i = 0; i < st->files; i++) memcpy(all + 64 * i, hash_sha256(st->maps[i].data, st->maps[i].bytes).hex, 64);
    Sha256Hex hash = hash_sha256(all, (size_t)st->files * 64);
    mem_free(all);
    return hash;
}

static void fill_origin(const char *path, const Gguf *gguf, const Safetensors *st, ImportMeta *meta) {
    const OriginLib libs[] = {{"hdf5", h5_library_version()}, {"jansson", jansson_version_str()}};
    char *copy = mem_strdup(path);
    origin_fill(&meta->entries, "dschat-model", libs, DS_COUNT(libs));
    origin_add(&meta->entries, "source", basename(copy));
    origin_add(&meta->entries, "source_sha256", hash_source(gguf, st).hex);
    mem_free(copy);
    for (int i = 0; i < meta->entries.n; i++)
        meta->origin[i] = (ModelPair){meta->entries.entries[i].name, meta->entries.entries[i].value};
    meta->n_origin = meta->entries.n;
}

Err import_meta_read(const char *path, const Gguf *gguf, const Safetensors *st, int64_t vocab, ImportMeta *meta) {
    Err err = DS_OK;
    json_t *generation = NULL; // kept as text
    *meta = (ImportMeta){0};
    fill_origin(path, gguf, st, meta);
    DS_TRY(read_template(path, gguf, &meta->chat_template));
    if (!gguf) DS_TRY(read_json(path, "generation_config.json", &generation, &meta->generation));
    if (meta->chat_template) meta->texts[meta->n_texts++] = (ModelPair){"chat_template", meta->chat_template};
    if (meta->generation) meta->texts[meta->n_texts++] = (ModelPair){"generation_config", meta->generation};
    DS_TRY(read_tokenizer(path, gguf, vocab, meta));
done:
    json_decref(generation);
    if (err) import_meta_free(meta);
    return err;
}

void import_meta_free(ImportMeta *meta) {
    mem_free(meta->tokenizer);
    mem_free(meta->chat_template);
    mem_free(meta->generation);
    origin_clear(&meta->entries);
    *meta = (ImportMeta){0};
}
