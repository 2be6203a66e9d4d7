// tok_json.c: reads Hugging Face's tokenizer.json. Every part that changes ids is either known here or refused by name.
#include <string.h>

#include "base/mem.h"
#include "token/tok_load.h"

static const char blank[] = "\xe2\x96\x81"; // U+2581

static const char *get_text(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool get_bool(const json_t *o, const char *key, bool missing) {
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

static bool is_type(const json_t *o, const char *type) { return !strcmp(get_text(o, "type"), type); }

// The steps of a part: those of a Sequence (nested ones are refused as unknown), or itself.
typedef struct {
    const json_t *one, *list;
    size_t n;
} Steps;

static Steps steps_of(const json_t *part, const char *key) {
    if (!json_is_object(part)) return (Steps){0};
    if (!is_type(part, "Sequence")) return (Steps){.one = part, .n = 1};
    const json_t *list = json_object_get(part, key);
    return (Steps){.list = list, .n = json_array_size(list)};
}

static const json_t *step_at(const Steps *s, size_t i) { return s->list ? json_array_get(s->list, i) : s->one; }

// ---- normalizer ----

static Err read_normalizer(Tokenizer *t, const json_t *root, bool *blanks, const char *what) {
    Err err = DS_OK;
    const Steps steps = steps_of(json_object_get(root, "normalizer"), "normalizers");
    for (size_t i = 0; i < steps.n; i++) {
        const json_t *s = step_at(&steps, i);
        if (is_type(s, "NFC")) {
            t->nfc = true;
        } else if (is_type(s, "Prepend") && !strcmp(get_text(s, "prepend"), blank)) {
            t->prefix = TOK_PREFIX_ALWAYS;
        } else if (is_type(s, "Replace") && !strcmp(get_text(json_object_get(s, "pattern"), "String"), " ") &&
                   !strcmp(get_text(s, "content"), blank)) {
            *blanks = true;
        } else {
            DS_FAIL(DS_ERR_DATA,
                    "%s: normalizer \"%.40s\" with these settings is not known; known are NFC, Prepend of U+2581 and "
                    "Replace of the blank by it",
                    what, get_text(s, "type"));
        }
    }
done:
    return err;
}

// ---- pre_tokenizer ----

typedef struct {
    bool bytes, digits, split, gpt2, metaspace;
    PretokenKind pattern;
} Cuts;

static Err read_metaspace(Tokenizer *t, const json_t *s, bool alone, const char *what) {
    Err err = DS_OK;
    const char *scheme = get_text(s, "prepend_scheme");
    if (!*scheme) scheme = get_bool(s, "add_prefix_space", true) ? "always" : "never";
    DS_CHECK(alone && !strcmp(get_text(s, "replacement"), blank), DS_ERR_DATA,
             "%s: pre_tokenizer Metaspace: known alone and with replacement U+2581", what);
    t->split_blanks = get_bool(s, "split", true);
    t->prefix_unless_blank = true;
    if (!strcmp(scheme, "always")) t->prefix = TOK_PREFIX_ALWAYS;
    else if (!strcmp(scheme, "first")) t->prefix = TOK_PREFIX_FIRST;
    else
        DS_CHECK(!strcmp(scheme, "never"), DS_ERR_DATA, "%s: prepend_scheme \"%.40s\", expected always, first or never",
                 what, scheme);
done:
    return err;
}

static Err read_cut(Tokenizer *t, const json_t *s, bool alone, Cuts *c, const char *what) {
    Err err = DS_OK;
    const char *type = get_text(s, "type");
    if (is_type(s, "ByteLevel") && !c->bytes) {
        c->bytes = true;
        c->gpt2 = get_bool(s, "use_regex", true);
        if (get_bool(s, "add_prefix_space", true)) t->prefix = TOK_PREFIX_ALWAYS, t->prefix_unless_blank = true;
    } else if (is_type(s, "Digits") && get_bool(s, "individual_digits", false) && !c->bytes && !c->split) {
        c->digits = true;
    } else if (is_type(s, "Split") && !c->bytes && !c->split && !c->digits) {
        c->split = true;
        DS_CHECK(!strcmp(get_text(s, "behavior"), "Isolated") && !get_bool(s, "invert", false), DS_ERR_DATA,
                 "%s: pre_tokenizer Split: behavior \"%.40s\", invert %d; known is Isolated, not inverted", what,
                 get_text(s, "behavior"), get_bool(s, "invert", false));
        DS_TRY(pretoken_by_pattern(get_text(json_object_get(s, "pattern"), "Regex"), what, &c->pattern));
    } else if (is_type(s, "Metaspace")) {
        c->metaspace = true;
        DS_TRY(read_metaspace(t, s, alone, what));
    } else {
        DS_FAIL(DS_ERR_DATA,
                "%s: pre_tokenizer \"%.40s\" is not known in this place; known are ByteLevel; Digits (individual) or "
                "Split, "
                "then ByteLevel; Metaspace",
                what, type);
    }
done:
    return err;
}

static Err read_pre_tokenizer(Tokenizer *t, const json_t *root, Cuts *c, const char *what) {
    Err err = DS_OK;
    const Steps steps = steps_of(json_object_get(root, "pre_tokenizer"), "pretokenizers");
    for (size_t i = 0; i < steps.n; i++) DS_TRY(read_cut(t, step_at(&steps, i), steps.n == 1, c, what));
    if (!c->bytes) {
        DS_CHECK(!c->digits && !c->split, DS_ERR_DATA, "%s: pre_tokenizer without ByteLevel is not known", what);
        goto done;
    }
    DS_CHECK(!(c->split && c->gpt2) && !(c->digits && !c->gpt2), DS_ERR_DATA,
             "%s: pre_tokenizer: ByteLevel %s its own pattern here is not known", what, c->gpt2 ? "with" : "without");
    t->pretoken = c->split ? c->pattern : c->digits ? PRETOKEN_SMOLLM : c->gpt2 ? PRETOKEN_GPT2 : PRETOKEN_NONE;
done:
    return err;
}

// ---- model ----

static Err check_model(const json_t *model, const char *what) {
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    Err err = DS_OK;
    const char *type = get_text(model, "type");
    DS_CHECK(!*type || !strcmp(type, "BPE"), DS_ERR_DATA, "%s: model \"%.40s\" is not read, only BPE", what, type);
    DS_CHECK(json_is_object(json_object_get(model, "vocab")) && json_is_array(json_object_get(model, "merges")),
             DS_ERR_DATA, "%s: model.vocab is not an object, or model.merges not an array", what);
    for (int i = 0; i < DS_COUNT(empty); i++)
        DS_CHECK(!*get_text(model, empty[i]), DS_ERR_DATA, "%s: model.%s = \"%.40s\" is not known; known is none", what,
                 empty[i], get_text(model, empty[i]));
    DS_CHECK(json_number_value(json_object_get(model, "dropout")) == 0, DS_ERR_DATA, "%s: model.dropout is not known",
             what);
done:
    return err;
}

static bool is_byte_name(const char *s, size_t n) { return n == 6 && !memcmp(s, "<0x", 3) && s[5] == '>'; }

static Err read_vocab(Tokenizer *t, json_t *vocab, const char *what) {
    Err err = DS_OK;
    const char *key;
    json_t *id;
    const int64_t limit = (int64_t)json_object_size(vocab);
    json_object_foreach(vocab, key, id) {
        const size_t n = strlen(key);
        DS_CHECK(json_is_integer(id), DS_ERR_DATA, "%s: model.vocab: the id of \"%.60s\" is not an integer", what, key);
        if (t->kind == TOK_KIND_BYTES)
            DS_TRY(vocab_set_printed(t, json_integer_value(id), limit, key, (int64_t)n, what));
        else
            DS_TRY(vocab_set_spm(t, json_integer_value(id), limit,
                                 t->byte_fallback && is_byte_name(key, n) ? TOK_BYTE : TOK_NORMAL, key, (int64_t)n,
                                 what));
    }
done:
    return err;
}

static TokStr view(const json_t *s) {
    return (TokStr){json_is_string(s) ? json_string_value(s) : "", (int64_t)json_string_length(s)};
}

static Err read_merges(Tokenizer *t, const json_t *merges, const char *what) {
    Err err = DS_OK;
    size_t i;
    const json_t *m;
    json_array_foreach(merges, i, m) {
        const TokStr left = view(json_array_get(m, 0)), right = view(json_array_get(m, 1)), both = view(m);
        if (json_is_array(m) && json_array_size(m) == 2) DS_TRY(load_merge_pair(t, left, right, (int64_t)i, what));
        else DS_TRY(load_merge(t, both.s, both.n, (int64_t)i, what));
    }
done:
    return err;
}

static Err read_unk(Tokenizer *t, const json_t *model, const char *what) {
    const json_t *unk = json_object_get(model, "unk_token");
    if (!json_is_string(unk) || !json_string_length(unk)) return DS_OK;
    t->unk = vocab_search(t, json_string_value(unk), (int64_t)json_string_length(unk));
    if (t->unk >= 0) return DS_OK;
    return err_set(DS_ERR_DATA, "%s: model.unk_token is \"%.60s\", which is no token", what, json_string_value(unk));
}

static Err read_added(Tokenizer *t, const json_t *added, const char *what) {
    Err err = DS_OK;
    size_t i;
    const json_t *a;
    const int64_t limit = t->n + (int64_t)json_array_size(added);
    json_array_foreach(added, i, a) {
        const TokStr content = view(json_object_get(a, "content"));
        const json_t *id = json_object_get(a, "id");
        DS_CHECK(content.n > 0 && json_is_integer(id), DS_ERR_DATA,
                 "%s: added_tokens[%zu]: expected an integer id and a content", what, i);
        DS_CHECK(!get_bool(a, "single_word", false), DS_ERR_DATA, "%s: added token \"%.60s\": single_word is not known",
                 what, content.s);
        const int64_t at = json_integer_value(id);
        DS_CHECK(at < 0 || at >= t->n || !(t->piece[at].type == TOK_CONTROL || t->piece[at].type == TOK_USER),
                 DS_ERR_DATA, "%s: added_tokens[%zu]: id %lld is that of another added token", what, i, (long long)at);
        DS_TRY(vocab_set_added(t, at, limit, get_bool(a, "special", false) ? TOK_CONTROL : TOK_USER, content.s,
                               content.n, what));
        t->piece[at].lstrip = get_bool(a, "lstrip", false);
        t->piece[at].rstrip = get_bool(a, "rstrip", false);
    }
done:
    return err;
}

// ---- post_processor ----

// The id of a special token of a template: the first of its `ids`.
static int64_t template_id(const json_t *step, const char *name) {
    const json_t *ids = json_object_get(json_object_get(json_object_get(step, "special_tokens"), name), "ids");
    const json_t *id = json_array_get(ids, 0);
    return json_array_size(ids) == 1 && json_is_integer(id) ? json_integer_value(id) : -1;
}

static Err set_end(Tokenizer *t, bool before, int64_t id, const char *name, const char *what) {
    bool *adds = before ? &t->add_bos : &t->add_eos;
    if (id < 0 || id >= t->n || *adds)
        return err_set(
            DS_ERR_DATA,
            "%s: post_processor: \"%.60s\": expected one token of this tokenizer before and one after the text", what,
            name);
    *adds = true;
    *(before ? &t->bos : &t->eos) = (int32_t)id;
    return DS_OK;
}

static Err read_template(Tokenizer *t, const json_t *step, const char *what) {
    Err err = DS_OK;
    size_t i;
    const json_t *item, *single = json_object_get(step, "single");
    bool before = true;
    DS_CHECK(json_is_array(single), DS_ERR_DATA, "%s: post_processor: TemplateProcessing without `single`", what);
    json_array_foreach(single, i, item) {
        const json_t *special = json_object_get(item, "SpecialToken");
        const char *name = get_text(special, "id");
        if (special) DS_TRY(set_end(t, before, template_id(step, name), name, what));
        else before = false;
    }
done:
    return err;
}

// Roberta's and Bert's: "cls": [text, id] before, "sep" after.
static Err read_roberta(Tokenizer *t, const json_t *step, const char *what) {
    Err err = DS_OK;
    const json_t *cls = json_array_get(json_object_get(step, "cls"), 1),
                 *sep = json_array_get(json_object_get(step, "sep"), 1);
    DS_TRY(set_end(t, true, json_is_integer(cls) ? json_integer_value(cls) : -1, "cls", what));
    DS_TRY(set_end(t, false, json_is_integer(sep) ? json_integer_value(sep) : -1, "sep", what));
done:
    return err;
}

static Err read_post_processor(Tokenizer *t, const json_t *root, const char *what) {
    Err err = DS_OK;
    const Steps steps = steps_of(json_object_get(root, "post_processor"), "processors");
    for (size_t i = 0; i < steps.n; i++) {
        const json_t *s = step_at(&steps, i);
        if (is_type(s, "ByteLevel")) continue; // moves offsets only
        if (is_type(s, "TemplateProcessing")) DS_TRY(read_template(t, s, what));
        else if (is_type(s, "RobertaProcessing") || is_type(s, "BertProcessing")) DS_TRY(read_roberta(t, s, what));
        else
            DS_FAIL(
                DS_ERR_DATA,
                "%s: post_processor \"%.40s\" is not known; known are TemplateProcessing, ByteLevel, RobertaProcessing",
                what, get_text(s, "type"));
    }
done:
    return err;
}

// ---- all ----

static Err read_kind(Tokenizer *t, const json_t *root, const json_t *model, const char *what) {
    Err err = DS_OK;
    Cuts cuts = {0};
    bool blanks = false;
    DS_TRY(read_normalizer(t, root, &blanks, what));
    DS_TRY(read_pre_tokenizer(t, root, &cuts, what));
    t->kind = cuts.bytes ? TOK_KIND_BYTES : TOK_KIND_SPM;
    DS_CHECK(cuts.bytes ? !blanks : blanks || cuts.metaspace, DS_ERR_DATA,
             "%s: neither byte-level BPE (pre_tokenizer ByteLevel) nor SentencePiece's (blanks as U+2581)", what);
    t->byte_fallback = get_bool(model, "byte_fallback", false);
    DS_CHECK(!(cuts.bytes && t->byte_fallback), DS_ERR_DATA, "%s: model.byte_fallback with ByteLevel is not known",
             what);
    t->fuse_unk = get_bool(model, "fuse_unk", false);
    t->ignore_merges = get_bool(model, "ignore_merges", false);
done:
    return err;
}

static Err read_root(Tokenizer *t, const json_t *root, const json_t *config, const char *what) {
    Err err = DS_OK;
    const json_t *model = json_object_get(root, "model");
    DS_CHECK(json_is_object(model), DS_ERR_DATA, "%s: has no model", what);
    DS_TRY(check_model(model, what));
    DS_TRY(read_kind(t, root, model, what));
    DS_TRY(read_vocab(t, json_object_get(model, "vocab"), what));
    DS_TRY(read_unk(t, model, what));
    DS_TRY(read_added(t, json_object_get(root, "added_tokens"), what));
    DS_TRY(read_post_processor(t, root, what));
    DS_TRY(load_ends(t, config, false, false, what));
    DS_TRY(vocab_index(t, what));
    DS_TRY(read_merges(t, json_object_get(model, "merges"), what));
done:
    return err;
}

Err load_tokenizer_json(const char *path, Tokenizer **out) {
    Err err = DS_OK;
    json_t *root = NULL, *config = NULL;
    Tokenizer *t = vocab_create(TOK_KIND_BYTES);
    *out = NULL;
    DS_TRY(load_json(path, 0, &root));
    DS_TRY(load_config(path, &config));
    DS_TRY(read_root(t, root, config, path));
    DS_TRY(vocab_finish(&t, path));
    *out = t;
    t = NULL;
done:
    json_decref(root);
    json_decref(config);
    tok_free(&t);
    return err;
}
