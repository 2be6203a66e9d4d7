// test_bpe.c: ids and texts against Hugging Face tokenizers and sentencepiece (tests/refs/token_*); forms; hostile
// files.
#include "tests/unit/token_refs.h"

#include <zlib.h>

#include "base/clock.h"
#include "base/hash.h"

#define SHARED "../shared/data/"

static const char *const names[] = {"gpt2",   "smollm", "llama3",    "qwen2", "bloom",
                                    "prefix", "llama",  "metaspace", "spm"};

// ---- references ----

static void check_string(const Tokenizer *t, const char *name, int64_t i, const char *s, int64_t n, json_t *want) {
    static const struct {
        const char *how;
        int flags;
    } ways[] = {{"plain", 0}, {"special", TOK_SPECIAL}, {"ends", TOK_SPECIAL | TOK_ENDS}};
    TokIds ids = {0};
    for (int w = 0; w < DS_COUNT(ways); w++) {
        if (!json_object_get(want, ways[w].how)) continue;
        const bool plain_only = !strcmp(name, "spm"); // sentencepiece knows no special tokens in texts
        ids.n = 0;
        ok(tok_encode(t, s, n, plain_only ? ways[w].flags & ~TOK_SPECIAL : ways[w].flags, &ids));
        refs_same_ids(name, i, ways[w].how, &ids, json_object_get(want, ways[w].how));
    }
    ids.n = 0;
    ok(tok_encode(t, s, n, 0, &ids));
    char *text = tok_text(t, ids.id, ids.n);
    json_t *expected = refs_member(want, "text");
    if (memcmp(text, json_string_value(expected), json_string_length(expected) + 1))
        fail_msg("%s, string %lld: text \"%s\", expected \"%s\"", name, (long long)i, text,
                 json_string_value(expected));
    mem_free(text);
    tok_ids_free(&ids);
}

static void strings_match(void **state) {
    (void)state;
    json_t *refs = refs_read("tests/refs/token_ids.json"), *strings = refs_member(refs, "strings");
    assert_true(json_array_size(strings) > 90);
    for (int k = 0; k < DS_COUNT(names); k++) {
        Tokenizer *t = refs_tokenizer(names[k]);
        json_t *cases = refs_member(refs_member(refs, "cases"), names[k]);
        for (int round = 0; round < 2; round++) // the second comes from the cache
            for (size_t i = 0; i < json_array_size(strings); i++) {
                int64_t n;
                char *s = refs_bytes(json_array_get(strings, i), &n);
                check_string(t, names[k], (int64_t)i, s, n, json_array_get(cases, i));
                mem_free(s);
            }
        tok_free(&t);
    }
    json_decref(refs);
}

static void long_text_matches(void **state) {
    (void)state;
    json_t *refs = refs_read("tests/refs/token_ids.json");
    char *s = refs_long_text();
    for (int k = 0; k < DS_COUNT(names); k++) {
        Tokenizer *t = refs_tokenizer(names[k]);
        TokIds ids = {0};
        double start = clock_now();
        ok(tok_encode(t, s, 100000, 0, &ids));
        printf("%s: 100 kB without a blank: %lld ids in %.1f ms\n", names[k], (long long)ids.n,
               (clock_now() - start) * 1e3);
        Xxh128Hex h = hash_xxh128(ids.id, (size_t)ids.n * sizeof *ids.id);
        assert_string_equal(h.hex, json_string_value(refs_member(refs_member(refs, "long"), names[k])));
        tok_ids_free(&ids);
        tok_free(&t);
    }
    mem_free(s);
    json_decref(refs);
}

// ---- the shared data ----

typedef struct {
    const Tokenizer *t;
    TokIds all;
    int64_t bytes;
    double seconds;
} Run;

static void run_text(Run *r, const char *s, int64_t n) {
    double start = clock_now();
    int64_t before = r->all.n;
    ok(tok_encode(r->t, s, n, 0, &r->all));
    r->seconds += clock_now() - start;
    r->bytes += n;
    if (tok_vocab_size(r->t) == 32000 && n && n < 4000) { // Llama-2 gives every text back
        char *text;
        size_t bytes;
        tok_decode(r->t, r->all.id + before, r->all.n - before, &text, &bytes);
        assert_int_equal(bytes, n);
        assert_memory_equal(text, s, bytes);
        mem_free(text);
    }
    tok_ids_push(&r->all, -1);
}

static void run_file(Run *r, const char *path, const char *const fields[2]) {
    enum { ROOM = 1 << 20 };
    gzFile f = gzopen(path, "rb");
    char *line = mem_alloc(ROOM);
    assert_non_null(f);
    while (gzgets(f, line, ROOM)) {
        size_t n = strcspn(line, "\n");
        json_t *row = json_loadb(line, n, 0, NULL);
        assert_non_null(row);
        run_text(r, line, (int64_t)n);
        for (int i = 0; i < 2; i++) {
            json_t *value = refs_member(row, fields[i]);
            run_text(r, json_string_value(value), (int64_t)json_string_length(value));
        }
        json_decref(row);
    }
    mem_free(line);
    gzclose(f);
}

static void expect_hash(json_t *want, const char *name, const char *file, const TokIds *ids) {
    char *key = mem_printf("%s %s", name, file);
    Xxh128Hex h = hash_xxh128(ids->id, (size_t)ids->n * sizeof *ids->id);
    if (strcmp(h.hex, json_string_value(refs_member(want, key)))) fail_msg("%s: other ids than the reference", key);
    mem_free(key);
}

static void run_shared(const char *path, const char *name) {
    static const char *const files[] = {"hh-harmless-test", "gsm8k-train"};
    static const char *const fields[][2] = {{"chosen", "rejected"}, {"question", "answer"}};
    if (!file_exists(path)) skip();
    json_t *want = refs_read("tests/refs/token_shared.json"), *refs = refs_read("tests/refs/token_ids.json");
    Tokenizer *t;
    size_t i;
    json_t *hex;
    ok(tok_load(path, &t));
    for (int f = 0; f < 2; f++) {
        Run r = {.t = t};
        char *file = mem_printf(SHARED "%s.jsonl.gz", files[f]);
        run_file(&r, file, fields[f]);
        expect_hash(want, name, files[f], &r.all);
        printf("%s, %s: %.1f MB in %.3f s: %.1f MB/s\n", name, files[f], (double)r.bytes * 1e-6, r.seconds,
               (double)r.bytes * 1e-6 / r.seconds);
        mem_free(file);
        tok_ids_free(&r.all);
    }
    Run nasty = {.t = t}, whole = {.t = t};
    json_array_foreach(refs_member(refs, "strings"), i, hex) {
        int64_t n;
        char *s = refs_bytes(hex, &n);
        ok(tok_encode(t, s, n, 0, &nasty.all));
        tok_ids_push(&nasty.all, -1);
        mem_free(s);
    }
    expect_hash(want, name, "nasty", &nasty.all);
    char *s = refs_long_text();
    ok(tok_encode(t, s, 100000, 0, &whole.all));
    expect_hash(want, name, "long", &whole.all);
    mem_free(s);
    tok_ids_free(&nasty.all);
    tok_ids_free(&whole.all);
    tok_free(&t);
    json_decref(want);
    json_decref(refs);
}

static void shared_gpt2(void **state) {
    (void)state;
    run_shared(SHARED "gpt2-encoder.json", "gpt2");
}
static void shared_llama2(void **state) {
    (void)state;
    run_shared(SHARED "llama2-tokenizer.model", "llama2");
}

// ---- forms ----

// The two give the same ids and hashes.
static void expect_same(const Tokenizer *a, const Tokenizer *b) {
    json_t *refs = refs_read("tests/refs/token_ids.json");
    TokIds x = {0}, y = {0};
    size_t i;
    json_t *hex;
    assert_string_equal(tok_hash(a), tok_hash(b));
    json_array_foreach(refs_member(refs, "strings"), i, hex) {
        int64_t n;
        char *s = refs_bytes(hex, &n);
        ok(tok_encode(a, s, n, TOK_SPECIAL | TOK_ENDS, &x));
        ok(tok_encode(b, s, n, TOK_SPECIAL | TOK_ENDS, &y));
        mem_free(s);
    }
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.id, y.id, (size_t)x.n * sizeof *x.id);
    tok_ids_free(&x);
    tok_ids_free(&y);
    json_decref(refs);
}

static void stored_form(void **state) {
    (void)state;
    for (int k = 0; k < DS_COUNT(names); k++) {
        Tokenizer *t = refs_tokenizer(names[k]), *again = NULL;
        char *blob;
        size_t bytes;
        ok(tok_save(t, &blob, &bytes));
        ok(tok_load_blob(blob, bytes, "blob", &again));
        Sha256Hex h = hash_sha256(blob, bytes);
        assert_string_equal(tok_hash(t), h.hex);
        expect_same(t, again);
        assert_int_equal(tok_bos(t), tok_bos(again));
        assert_int_equal(tok_eos(t), tok_eos(again));
        mem_free(blob);
        tok_free(&t);
        tok_free(&again);
    }
}

static void exported_form(void **state) {
    (void)state;
    for (int k = 0; k < DS_COUNT(names); k++) {
        if (!strcmp(names[k], "spm")) continue; // scores become ranks, which are another form of the same
        Tokenizer *t = refs_tokenizer(names[k]), *again = NULL;
        ok(file_make_dirs("build/tmp/token_export"));
        ok(tok_export_hf(t, "build/tmp/token_export"));
        ok(tok_load("build/tmp/token_export", &again));
        expect_same(t, again);
        tok_free(&t);
        tok_free(&again);
    }
    ok(file_remove_tree("build/tmp/token_export"));
}

// The arrays that a GGUF file would hold for a tokenizer.json.
typedef struct {
    TokArrays a;
    TokStr *tokens, *merges;
    int64_t *types;
} Arrays;

static TokStr json_view(const json_t *s) { return (TokStr){json_string_value(s), (int64_t)json_string_length(s)}; }

static Arrays arrays_of(json_t *root, const char *pre) {
    json_t *model = refs_member(root, "model"), *vocab = refs_member(model, "vocab"),
           *merges = refs_member(model, "merges"), *v;
    json_t *added = refs_member(root, "added_tokens");
    int64_t n = (int64_t)(json_object_size(vocab) + json_array_size(added)), m = (int64_t)json_array_size(merges),
            last = 0;
    Arrays x = {.tokens = MEM_NEW(TokStr, n), .types = MEM_NEW(int64_t, n), .merges = MEM_NEW(TokStr, m)};
    const char *key;
    size_t i;
    json_object_foreach(vocab, key, v) {
        const int64_t id = json_integer_value(v);
        x.tokens[id] = (TokStr){key, (int64_t)strlen(key)};
        x.types[id] = TOK_NORMAL;
        last = ds_max(last, id);
    }
    json_array_foreach(added, i, v) {
        const int64_t id = json_integer_value(refs_member(v, "id"));
        x.tokens[id] = json_view(refs_member(v, "content"));
        x.types[id] = json_is_true(refs_member(v, "special")) ? TOK_CONTROL : TOK_USER;
        last = ds_max(last, id);
    }
    json_array_foreach(merges, i, v) {
        char *both =
            mem_printf("%s %s", json_string_value(json_array_get(v, 0)), json_string_value(json_array_get(v, 1)));
        x.merges[i] = (TokStr){both, (int64_t)strlen(both)};
    }
    x.a = (TokArrays){.model = "gpt2",
                      .pre = pre,
                      .tokens = x.tokens,
                      .types = x.types,
                      .merges = x.merges,
                      .n_tokens = last + 1,
                      .n_merges = m,
                      .bos = 3,
                      .eos = 0,
                      .pad = -1,
                      .unk = -1,
                      .add_bos = -1,
                      .add_eos = -1,
                      .add_space_prefix = -1};
    return x;
}

static void arrays_free(Arrays *x) {
    for (int64_t i = 0; i < x->a.n_merges; i++) mem_free((char *)x->merges[i].s);
    mem_free(x->tokens);
    mem_free(x->types);
    mem_free(x->merges);
}

static void gguf_arrays(void **state) {
    (void)state;
    static const char *const both[][2] = {
        {"smollm", "smollm"}, {"llama3", "llama-bpe"}, {"qwen2", "qwen2"}, {"gpt2", "gpt-2"}};
    for (int k = 0; k < DS_COUNT(both); k++) {
        char *path = mem_printf("tests/refs/token_%s.json", both[k][0]);
        json_t *root = refs_read(path);
        Arrays x = arrays_of(root, both[k][1]);
        Tokenizer *want = refs_tokenizer(both[k][0]), *t = NULL;
        ok(tok_load_arrays(&x.a, "a.gguf", &t));
        expect_same(want, t);
        tok_free(&t);
        x.a.pre = "falcon";
        refused(tok_load_arrays(&x.a, "a.gguf", &t), DS_ERR_DATA, "\"falcon\" is not known; known are gpt-2");
        x.a.pre = both[k][1], x.a.bos = x.a.n_tokens;
        refused(tok_load_arrays(&x.a, "a.gguf", &t), DS_ERR_DATA, "bos is token");
        x.a.bos = 0, x.types[1] = 77;
        refused(tok_load_arrays(&x.a, "a.gguf", &t), DS_ERR_DATA, "of type 77");
        arrays_free(&x);
        tok_free(&want);
        json_decref(root);
        mem_free(path);
    }
}

static void write_file(const char *path, const char *data, size_t n) {
    ok(file_make_dirs("build/tmp/token"));
    ok(file_write_atomic(path, data, n));
}

// A folder with vocab.json + merges.txt, as OPT has it.
static void pair_with_config(void **state) {
    (void)state;
    const char *vocab =
        "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"a\":4,\"b\":5,\"\\u0120\":6,\"ab\":7,\"\\u0120ab\":8}";
    const char *merges = "#version: 0.2\na b\n\xc4\xa0 ab\n";
    const char *config = "{\"bos_token\":{\"content\":\"</s>\"},\"eos_token\":\"</s>\",\"add_bos_token\":true,"
                         "\"model_max_length\":1000000000000000019884624838656}";
    write_file("build/tmp/token/vocab.json", vocab, strlen(vocab));
    write_file("build/tmp/token/merges.txt", merges, strlen(merges));
    write_file("build/tmp/token/tokenizer_config.json", config, strlen(config));
    Tokenizer *t;
    TokIds ids = {0};
    ok(tok_load("build/tmp/token", &t));
    ok(tok_encode(t, "ab ab</s>ba", 11, TOK_SPECIAL | TOK_ENDS, &ids));
    static const int32_t want[] = {2, 7, 8, 2, 5, 4};
    assert_int_equal(ids.n, DS_COUNT(want));
    assert_memory_equal(ids.id, want, sizeof want);
    assert_true(tok_adds_bos(t) && tok_bos(t) == 2 && tok_special_id(t, "</s>", 4) == 2 &&
                tok_special_id(t, "ab", 2) == -1);
    TokStr piece = tok_piece(t, 8);
    assert_true(piece.n == 3 && !memcmp(piece.s, " ab", 3) && tok_piece(t, 99).n == 0 && tok_piece(t, -5).n == 0);
    tok_ids_free(&ids);
    tok_free(&t);
    ok(file_remove_tree("build/tmp/token"));
}

// What the ids of `in` say, special tokens left out, is `out`.
static void expect_text(const Tokenizer *t, const char *in, const char *out) {
    TokIds ids = {0};
    ok(tok_encode(t, in, (int64_t)strlen(in), TOK_SPECIAL, &ids));
    char *text = tok_text(t, ids.id, ids.n);
    if (strcmp(text, out)) fail_msg("\"%s\" becomes \"%s\", expected \"%s\"", in, text, out);
    mem_free(text);
    tok_ids_free(&ids);
}

// A special token that takes the white space beside it: on its left (lstrip), on its right (rstrip), none of the other
// side. What is white space was asked of Hugging Face tokenizers 0.23, as were the last two texts.
static void check_strips(const char *side, bool left) {
    static const char *const white[] = {"\t",           "\n",           "\v",
                                        "\f",           "\r",           " ",
                                        "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80",
                                        "\xe2\x80\x80", "\xe2\x80\x8a", "\xe2\x80\xa8",
                                        "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f",
                                        "\xe3\x80\x80"},
                             *const other[] = {
                                 "\b",       "\x0e",         "\x1c",         "\x1f",         "!",           "\xc2\x84",
                                 "\xc2\xa1", "\xe1\xa0\x8e", "\xe2\x80\x8b", "\xe2\x81\xa0", "\xef\xbb\xbf"};
    json_t *root = refs_read("tests/refs/token_gpt2.json"), *v;
    Tokenizer *t;
    size_t i;
    json_array_foreach(refs_member(root, "added_tokens"), i,
                       v) if (!strcmp(json_string_value(refs_member(v, "content")), "<|im_end|>"))
        json_object_set(v, side, json_true());
    char *text = json_dumps(root, 0);
    write_file("build/tmp/token/strips.json", text, strlen(text));
    free(text); // lint: jansson's memory
    json_decref(root);
    ok(tok_load("build/tmp/token/strips.json", &t));
    for (int k = 0; k < DS_COUNT(white) + DS_COUNT(other); k++) {
        const bool taken = k < DS_COUNT(white);
        const char *c = taken ? white[k] : other[k - DS_COUNT(white)];
        char *in = mem_printf("x%s%s<|im_end|>%s%sy", c, c, c, c);
        const char *one = taken && left ? "" : c, *two = taken && !left ? "" : c;
        char *out = mem_printf("x%s%s%s%sy", one, one, two, two);
        expect_text(t, in, out);
        mem_free(in);
        mem_free(out);
    }
    expect_text(t, "a \t\n<|im_end|> \xe3\x80\x80\tb <|im_start|> c  <|im_end|>",
                left ? "a \xe3\x80\x80\tb  c" : "a \t\nb  c  ");
    tok_free(&t);
}

static void strips(void **state) {
    (void)state;
    check_strips("lstrip", true);
    check_strips("rstrip", false);
}

// ---- hostile files ----

static void refuse_text(const char *name, const char *text, size_t n, const char *words) {
    char *path = mem_printf("build/tmp/token/%s", name);
    Tokenizer *t = NULL;
    write_file(path, text, n);
    err_clear();
    Err err = tok_load(path, &t);
    if (err != DS_ERR_DATA || !strstr(err_text(), words))
        fail_msg("%.200s: error %d \"%s\", expected \"%s\"", text, err, err_text(), words);
    assert_null(t);
    err_clear();
    mem_free(path);
}

#define HEAD "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
#define MODEL(vocab, merges) "\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}}"

static void hostile_json(void **state) {
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "line"},
        {"[]", "expected a JSON object"},
        {"{}", "has no model"},
        {"{\"model\":3}", "has no model"},
        {"{\"model\":{\"type\":\"Unigram\"}}", "only BPE"},
        {HEAD "\"model\":{\"vocab\":[],\"merges\":[]}}", "model.vocab is not an object"},
        {HEAD MODEL("", ""), "no tokens"},
        {HEAD MODEL("\"a\":0,\"b\":0", ""), "id 0 stands for"},
        {HEAD MODEL("\"a\":0,\"a\":1", ""), "duplicate"},
        {HEAD MODEL("\"a\":-1", ""), "id -1, expected 0"},
        {HEAD MODEL("\"a\":4000000000", ""), "id 4000000000"},
        {HEAD MODEL("\"a\":9223372036854775807", ""), "id 9223372036854775807"},
        {HEAD MODEL("\"a\":99999999999999999999", ""), "too big integer"},
        {HEAD MODEL("\"a\":1.5", ""), "not an integer"},
        {HEAD MODEL("\"a\":\"0\"", ""), "not an integer"},
        {HEAD MODEL("\"a\":0,\"b\":1", "\"a c\""), "merge 0 names \"c\", which is no token"},
        {HEAD MODEL("\"a\":0,\"b\":1", "\"a b\""), "merge 0 gives \"ab\", which is no token"},
        {HEAD MODEL("\"a\":0,\"b\":1,\"ab\":2", "\"a b\",\"a b\""), "merge 1 repeats"},
        {HEAD MODEL("\"a\":0", "\"a\""), "expected two tokens"},
        {HEAD MODEL("\"a\":0", "\"a \""), "expected two tokens"},
        {HEAD MODEL("\"a\":0", "7"), "expected two tokens"},
        {HEAD MODEL("\"a\":0", "[\"a\",7]"), "names \"\""},
        {HEAD MODEL("\"a\":0", "[\"a\"]"), "expected two tokens"},
        {HEAD "\"added_tokens\":[{\"id\":-4,\"content\":\"<x>\"}]," MODEL("\"a\":0", ""), "id -4"},
        {HEAD "\"added_tokens\":[{\"id\":0,\"content\":\"<x>\"}]," MODEL("\"a\":0", ""),
         "stands for \"a\" and for \"<x>\""},
        {HEAD "\"added_tokens\":[{\"content\":\"<x>\"}]," MODEL("\"a\":0", ""), "expected an integer id"},
        {HEAD "\"added_tokens\":[{\"id\":1,\"content\":\"<x>\"},{\"id\":1,\"content\":\"<y>\"}]," MODEL("\"a\":0", ""),
         "another added"},
        {HEAD "\"added_tokens\":[{\"id\":1,\"content\":\"x\",\"single_word\":true}]," MODEL("\"a\":0", ""),
         "single_word"},
        {"{\"pre_tokenizer\":{\"type\":\"Whitespace\"}," MODEL("\"a\":0", ""), "\"Whitespace\" is not known"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"\\\\d\"}}," MODEL(
             "\"a\":0", ""),
         "pattern \"\\d\" is not known; known are those of gpt2"},
        {"{\"normalizer\":{\"type\":\"Lowercase\"}," MODEL("\"a\":0", ""), "\"Lowercase\""},
        {HEAD "\"post_processor\":{\"type\":\"Odd\"}," MODEL("\"a\":0", ""), "\"Odd\" is not known"},
        {HEAD
         "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]}," MODEL(
             "\"a\":0", ""),
         "expected one token"},
        {MODEL("\"a\":0", ""), "line 1"},
    };
    for (int i = 0; i < DS_COUNT(bad); i++) refuse_text("bad.json", bad[i].text, strlen(bad[i].text), bad[i].words);
    char *deep = mem_alloc(1000001);
    memset(deep, '[', 1000000);
    refuse_text("deep.json", deep, 1000000, "maximum parsing depth");
    mem_free(deep);
    refuse_text("odd.bin", "x", 1, "not a tokenizer that is known by its name");
}

static void truncated_files(void **state) {
    (void)state;
    static const char *const files[] = {"tests/refs/token_gpt2.json", "tests/refs/token_spm.model"};
    for (int k = 0; k < 2; k++) {
        char *data, *blob;
        size_t n, bytes;
        Tokenizer *t = NULL;
        ok(file_read_all(files[k], 1 << 20, &data, &n));
        for (size_t cut = 1; cut < n; cut += 1 + n / 40) {
            char *path = mem_printf("build/tmp/token/cut%s", strrchr(files[k], '.'));
            write_file(path, data, cut);
            err_clear();
            assert_int_equal(tok_load(path, &t), DS_ERR_DATA);
            assert_true(strlen(err_text()) > 10);
            mem_free(path);
        }
        mem_free(data);
        ok(tok_load(files[k], &t));
        ok(tok_save(t, &blob, &bytes));
        tok_free(&t);
        for (size_t cut = 0; cut < bytes; cut += 1 + bytes / 97) {
            err_clear();
            assert_int_equal(tok_load_blob(blob, cut, "blob", &t), DS_ERR_DATA);
            assert_null(t);
        }
        // One byte changed: refused, or a tokenizer that works; never a crash.
        for (size_t at = 0; at < bytes; at += at < 64 ? 1 : 211) {
            char keep = blob[at];
            blob[at] = (char)(keep ^ 0x81);
            err_clear();
            if (tok_load_blob(blob, bytes, "blob", &t) == DS_OK) {
                TokIds ids = {0};
                (void)tok_encode(t, "The quick <|endoftext|> \xf0\x9f", 27, TOK_SPECIAL | TOK_ENDS, &ids);
                tok_ids_free(&ids);
                tok_free(&t);
            }
            blob[at] = keep;
        }
        mem_free(blob);
    }
    err_clear();
}

static void hostile_protobuf(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *words;
    } bad[] = {
        {"", 0, "has no tokens"},
        {"\x0a\xff\xff\xff\xff\x0f", 6, "4294967295 bytes"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "18446744073709551615 bytes"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11, "a number does not end"},
        {"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12, "a number does not end"},
        {"\x0a\x02\x0a\x05", 4, "field 1 of 5 bytes, 0 are there"},
        {"\x0a\x03\x0a\x01"
         "a"
         "\x0a",
         6, "a number does not end"},
        {"\x0a\x02\x18\x63", 4, "of type 99"},
        {"\x0a\x02\x18\x01", 4, "token 0 has no text"},
        {"\x0a\x02\x10\x01", 4, "score has wire type 0"},
        {"\x08\x01", 2, "a message has wire type 0"},
        {"\x0b\x0b\x0b", 3, "not a field"},
        {"\x00", 1, "not a field"},
        {"\x12\x02\x18\x01\x0a\x03\x0a\x01"
         "a",
         9, "type unigram"},
        {"\x12\x02\x18\x02\x0a\x03\x0a\x01"
         "a",
         9, "remove_extra_whitespaces"},
        {"\x12\x02\x18\x02\x1a\x02\x20\x00\x0a\x03\x0a\x01"
         "a",
         13, "bos is token 1"},
        {"\x12\x02\x18\x02\x1a\x02\x20\x00\x0a\x03\x0a\x01"
         "a\x0a\x03\x0a\x01"
         "a\x0a\x03\x0a\x01"
         "b",
         23, "are both \"a\""},
        {"\x12\x02\x18\x02\x1a\x02\x20\x00\x0a\x05\x0a\x01"
         "a\x18\x06",
         15, "not like <0x0A>"},
    };
    for (int i = 0; i < DS_COUNT(bad); i++) refuse_text("bad.model", bad[i].bytes, bad[i].n, bad[i].words);
    ok(file_remove_tree("build/tmp/token"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_match), cmocka_unit_test(long_text_matches), cmocka_unit_test(shared_gpt2),
        cmocka_unit_test(shared_llama2), cmocka_unit_test(stored_form),       cmocka_unit_test(exported_form),
        cmocka_unit_test(gguf_arrays),   cmocka_unit_test(pair_with_config),  cmocka_unit_test(strips),
        cmocka_unit_test(hostile_json),  cmocka_unit_test(truncated_files),   cmocka_unit_test(hostile_protobuf)};
    return cmocka_run_group_tests_name("bpe", tests, NULL, NULL);
}
