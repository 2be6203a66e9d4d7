// tok_load.c: tok_load: which form a path is; vocab.json + merges.txt; and what tokenizer_config.json says.
#include "token/tok_load.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "token/tok_norm.h"

Err load_json(const char *path, size_t flags, json_t **root) {
    Err err = DS_OK;
    char *data = NULL;
    size_t bytes = 0;
    json_error_t at;
    *root = NULL;
    DS_TRY(file_read_all(path, TOK_MAX_FILE, &data, &bytes));
    *root = json_loadb(data, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | flags, &at);
    DS_CHECK(*root, DS_ERR_DATA, "%s: line %d: %s", path, at.line, at.text);
    if (!json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        DS_FAIL(DS_ERR_DATA, "%s: expected a JSON object", path);
    }
done:
    mem_free(data);
    return err;
}

// The path of `name` in the folder that holds `path`.
static char *beside(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    return slash ? mem_printf("%.*s/%s", (int)(slash - path), path, name) : mem_strdup(name);
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

Err load_config(const char *path, json_t **root) {
    static const char *const known[] = {"tokenizer.json", "vocab.json", "encoder.json", "tokenizer.model"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    bool is_known = false;
    for (int i = 0; i < DS_COUNT(known); i++) is_known |= !strcmp(name, known[i]);
    char *config = beside(path, "tokenizer_config.json");
    *root = NULL;
    // "model_max_length": 1e30 is written as an integer there.
    Err err = is_known && file_exists(config) ? load_json(config, JSON_DECODE_INT_AS_REAL, root) : DS_OK;
    mem_free(config);
    return err;
}

// ---- merges ----

// The token that a merge names in the file's spelling, -1 if there is none.
static int32_t find_spelt(const Tokenizer *t, TokStr s) {
    int32_t id = -1;
    if (t->kind == TOK_KIND_SPM) {
        int64_t m = s.n;
        char *plain = norm_blanks(s.s, s.n, &m);
        id = vocab_find(t, plain ? plain : s.s, m);
        mem_free(plain);
    } else {
        char *bytes = mem_alloc((size_t)s.n);
        int64_t m = vocab_unprint(s.s, s.n, bytes);
        if (m >= 0) id = vocab_find(t, bytes, m);
        mem_free(bytes);
    }
    return id;
}

Err load_merge_pair(Tokenizer *t, TokStr left, TokStr right, int64_t rank, const char *what) {
    const int32_t l = find_spelt(t, left), r = find_spelt(t, right);
    const TokStr bad = l < 0 ? left : right;
    if (l < 0 || r < 0)
        return err_set(DS_ERR_DATA, "%s: merge %lld names \"%.*s\", which is no token", what, (long long)rank,
                       (int)ds_min(bad.n, 60), bad.s);
    return vocab_merge(t, l, r, rank, what);
}

Err load_merge(Tokenizer *t, const char *s, int64_t n, int64_t rank, const char *what) {
    const char *blank = n > 0 ? memchr(s, ' ', (size_t)n) : NULL;
    const int64_t k = blank ? blank - s : 0;
    if (k == 0 || k + 1 >= n || memchr(blank + 1, ' ', (size_t)(n - k - 1)))
        return err_set(DS_ERR_DATA, "%s: merge %lld is \"%.*s\", expected two tokens with a blank between", what,
                       (long long)rank, (int)ds_min(n, 60), s);
    return load_merge_pair(t, (TokStr){s, k}, (TokStr){blank + 1, n - k - 1}, rank, what);
}

// ---- tokenizer_config.json ----

static Err add_config_tokens(Tokenizer *t, const json_t *config, const char *what) {
    Err err = DS_OK;
    const char *key;
    json_t *value, *list = json_object_get(config, "added_tokens_decoder");
    const int64_t limit = t->n + (int64_t)json_object_size(list);
    json_object_foreach(list, key, value) {
        char *end;
        const long long id = strtoll(key, &end, 10);
        const json_t *content = json_object_get(value, "content");
        DS_CHECK(*key && !*end && json_is_string(content), DS_ERR_DATA,
                 "%s: tokenizer_config.json: added_tokens_decoder: \"%.40s\" is not an id with a content", what, key);
        const TokType type = json_is_true(json_object_get(value, "special")) ? TOK_CONTROL : TOK_USER;
        if (id >= 0 && id < t->n && (t->piece[id].type == TOK_CONTROL || t->piece[id].type == TOK_UNKNOWN)) continue;
        DS_TRY(vocab_set_added(t, id, limit, type, json_string_value(content), (int64_t)json_string_length(content),
                               what));
    }
done:
    return err;
}

// A name, or an object with `content`; null: none.
static Err set_named_end(Tokenizer *t, const json_t *config, const char *key, int32_t *id, const char *what) {
    Err err = DS_OK;
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (!json_is_string(value)) goto done;
    const int32_t found = vocab_search(t, json_string_value(value), (int64_t)json_string_length(value));
    DS_CHECK(found >= 0, DS_ERR_DATA, "%s: tokenizer_config.json: %s is \"%.60s\", which is no token", what, key,
             json_string_value(value));
    vocab_make_special(t, found);
    *id = found;
done:
    return err;
}

static void guess_end(Tokenizer *t, const char *const names[5], bool any, int32_t *id) {
    for (int i = 0; i < 5 && names[i] && *id < 0; i++) {
        const int32_t found = vocab_search(t, names[i], (int64_t)strlen(names[i]));
        if (found < 0 || !(any || t->piece[found].special)) continue;
        vocab_make_special(t, found);
        *id = found;
    }
}

Err load_ends(Tokenizer *t, const json_t *config, bool any, bool add_flags, const char *what) {
    static const char *const bos[5] = {"<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>", "<|endoftext|>"};
    static const char *const eos[5] = {"<|end_of_text|>", "</s>", "<eos>", "<|endoftext|>", NULL};
    static const char *const pad[5] = {"<pad>", "<|pad|>", NULL, NULL, NULL};
    static const char *const unk[5] = {"<unk>", NULL, NULL, NULL, NULL};
    Err err = DS_OK;
    DS_TRY(add_config_tokens(t, config, what));
    DS_TRY(set_named_end(t, config, "bos_token", &t->bos, what));
    DS_TRY(set_named_end(t, config, "eos_token", &t->eos, what));
    DS_TRY(set_named_end(t, config, "pad_token", &t->pad, what));
    if (t->unk < 0) DS_TRY(set_named_end(t, config, "unk_token", &t->unk, what));
    if (!config) {
        guess_end(t, bos, any, &t->bos);
        guess_end(t, eos, any, &t->eos);
        guess_end(t, pad, any, &t->pad);
        guess_end(t, unk, any, &t->unk);
    }
    const json_t *add_bos = json_object_get(config, "add_bos_token"),
                 *add_eos = json_object_get(config, "add_eos_token");
    if (add_flags && json_is_boolean(add_bos)) t->add_bos = json_is_true(add_bos);
    if (add_flags && json_is_boolean(add_eos)) t->add_eos = json_is_true(add_eos);
done:
    return err;
}

// ---- vocab.json + merges.txt ----

static Err read_vocab(Tokenizer *t, const json_t *vocab, const char *what) {
    Err err = DS_OK;
    void *at;
    json_t *root = (json_t *)vocab; // jansson's iterators take no const
    const int64_t limit = (int64_t)json_object_size(vocab);
    for (at = json_object_iter(root); at; at = json_object_iter_next(root, at)) {
        const char *key = json_object_iter_key(at);
        const json_t *id = json_object_iter_value(at);
        DS_CHECK(json_is_integer(id), DS_ERR_DATA, "%s: the id of \"%.60s\" is not an integer", what, key);
        DS_TRY(vocab_set_printed(t, json_integer_value(id), limit, key, (int64_t)strlen(key), what));
    }
done:
    return err;
}

static Err read_merges(Tokenizer *t, const char *path) {
    Err err = DS_OK;
    FileMap map = {0};
    int64_t rank = 0;
    DS_TRY(file_map(path, &map));
    const char *p = map.data, *end = p + map.bytes;
    while (p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) stop = end;
        int64_t n = stop - p;
        if (n && p[n - 1] == '\r') n--;
        if (n && !(n >= 8 && !memcmp(p, "#version", 8))) DS_TRY(load_merge(t, p, n, rank++, path));
        p = stop + (stop < end);
    }
done:
    file_unmap(&map);
    return err;
}

Err tok_load_pair(const char *vocab_path, const char *merges_path, Tokenizer **out) {
    Err err = DS_OK;
    json_t *vocab = NULL, *config = NULL;
    Tokenizer *t = vocab_create(TOK_KIND_BYTES);
    t->pretoken = PRETOKEN_GPT2;
    *out = NULL;
    DS_TRY(load_json(vocab_path, 0, &vocab));
    DS_TRY(load_config(vocab_path, &config));
    DS_TRY(read_vocab(t, vocab, vocab_path));
    DS_TRY(load_ends(t, config, true, true, vocab_path));
    if (t->bos < 0) t->add_bos = false;
    if (json_is_true(json_object_get(config, "add_prefix_space")))
        t->prefix = TOK_PREFIX_ALWAYS, t->prefix_unless_blank = true;
    DS_TRY(vocab_index(t, vocab_path));
    DS_TRY(read_merges(t, merges_path));
    DS_TRY(vocab_finish(&t, vocab_path));
    *out = t;
    t = NULL;
done:
    json_decref(vocab);
    json_decref(config);
    tok_free(&t);
    return err;
}

// ---- by path ----

static const struct {
    const char *vocab, *merges;
} pairs[] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};

// `path` ends in `own`: the file that ends in `other` there instead. Owner: caller, mem_free.
static char *partner(const char *path, const char *own, const char *other) {
    return mem_printf("%.*s%s", (int)(strlen(path) - strlen(own)), path, other);
}

static Err load_file(const char *path, Tokenizer **out) {
    for (int i = 0; i < DS_COUNT(pairs); i++) {
        const bool vocab = ends_with(path, pairs[i].vocab), merges = ends_with(path, pairs[i].merges);
        if (!vocab && !merges) continue;
        char *other =
            vocab ? partner(path, pairs[i].vocab, pairs[i].merges) : partner(path, pairs[i].merges, pairs[i].vocab);
        Err err = vocab ? tok_load_pair(path, other, out) : tok_load_pair(other, path, out);
        mem_free(other);
        return err;
    }
    if (ends_with(path, ".json")) return load_tokenizer_json(path, out);
    if (ends_with(path, ".model")) return load_sentencepiece(path, out);
    return err_set(
        DS_ERR_DATA,
        "%s: not a tokenizer that is known by its name: a folder, *.json, *.model, *vocab.json + *merges.txt, "
        "*encoder.json + *vocab.bpe",
        path);
}

Err tok_load(const char *path, Tokenizer **out) {
    static const char *const names[] = {"tokenizer.json", "vocab.json", "encoder.json", "tokenizer.model"};
    *out = NULL;
    if (!file_is_dir(path)) return load_file(path, out);
    for (int i = 0; i < DS_COUNT(names); i++) {
        char *file = mem_printf("%s/%s", path, names[i]);
        const bool there = file_exists(file);
        Err err = there ? load_file(file, out) : DS_OK;
        mem_free(file);
        if (there) return err;
    }
    return err_set(DS_ERR_DATA,
                   "%s: holds no tokenizer: tokenizer.json, vocab.json + merges.txt, encoder.json + vocab.bpe or "
                   "tokenizer.model",
                   path);
}
