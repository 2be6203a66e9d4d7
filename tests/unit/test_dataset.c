// test_dataset.c: from JSON lines to rows and back: forms, templates, splits, the held-out part, cuts, weights; what a
// damaged file says.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hdf5.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/build.h"
#include "data/build_form.h"
#include "data/build_rows.h"
#include "io/h5_attr.h"

static const char dir[] = "build/tmp/dataset";
static const char tokenizer[] = "inputs/data/demo-tokenizer.json";

static char *write_lines(const char *name, const char *text) {
    char *path = mem_printf("%s/%s", dir, name);
    assert_int_equal(file_make_dirs(dir), DS_OK);
    assert_int_equal(file_write_atomic(path, text, strlen(text)), DS_OK);
    return path;
}

// Builds <dir>/<name>.h5 from `lines` with more keys of [data], then of [source1].
static Err build(const char *name, const char *lines, const char *data_keys, const char *source_keys) {
    char *jsonl = mem_printf("%s.jsonl", name), *in = mem_printf("%s.in", name);
    char *path = write_lines(jsonl, lines);
    char *text = mem_printf("[data]\noutput = %s/%s.h5\ntokenizer = %s\n%s\n[source1]\npath = %s\n%s\n", dir, name,
                            tokenizer, data_keys, path, source_keys);
    char *spec_path = write_lines(in, text);
    BuildSpec *spec = NULL;
    Origin origin = {0};
    Err err = build_spec_load(spec_path, 0, NULL, &spec);
    if (!err) err = build_run(spec, &origin);
    build_spec_free(&spec);
    mem_free(spec_path);
    mem_free(text);
    mem_free(path);
    mem_free(in);
    mem_free(jsonl);
    return err;
}

static char *path_of(const char *name) { return mem_printf("%s/%s.h5", dir, name); }

static Dataset *open_built(const char *name) {
    Dataset *d = NULL;
    char *path = path_of(name);
    Err err = dataset_open(path, &d);
    if (err) fail_msg("%s", err_text());
    mem_free(path);
    return d;
}

// Row `row` as text, answers in [[ ]]. Owner: caller.
static char *row_text(Dataset *d, int64_t row) {
    Tokenizer *tok = NULL;
    const int64_t length = dataset_length(d, row), *span;
    int64_t n = dataset_spans(d, row, &span);
    int32_t *id = MEM_NEW(int32_t, length);
    char *text = mem_strdup("");
    assert_int_equal(dataset_tokenizer(d, &tok), DS_OK);
    assert_int_equal(dataset_read(d, &row, 1, id), DS_OK);
    for (int64_t t = 0; t <= length; t++) {
        const char *mark = "";
        for (int64_t s = 0; s < n; s++) mark = t == span[2 * s] ? "[[" : t == span[2 * s + 1] ? "]]" : mark;
        TokStr piece = t < length ? tok_piece(tok, id[t]) : (TokStr){"", 0};
        char *longer = mem_printf("%s%s%.*s", text, mark, (int)piece.n, piece.s);
        mem_free(text);
        text = longer;
    }
    tok_free(&tok);
    mem_free(id);
    return text;
}

static void assert_row(Dataset *d, int64_t row, const char *expected) {
    char *text = row_text(d, row);
    assert_string_equal(text, expected);
    mem_free(text);
}

// ---- forms ----

#define EOT "<|endoftext|>"

static void forms_become_turns(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{\"prompt\": \"hi\", \"answer\": \"yo\"}", "\n\nHuman: hi\n\nAssistant:[[ yo" EOT "]]"},
        {"{\"question\": \"hi\", \"answer\": \"yo\"}", "\n\nHuman: hi\n\nAssistant:[[ yo" EOT "]]"},
        {"{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c\\n\\nAssistant: d e\"}",
         "\n\nHuman: a\n\nAssistant:[[ b" EOT "]]\n\nHuman: c\n\nAssistant:[[ d e" EOT "]]"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"yo\"}]}",
         "\n\nHuman: hi\n\nAssistant:[[ yo" EOT "]]"},
        {"{\"prompt\": \"\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c\\n\\nAssistant:\", \"answer\": \"d\"}",
         "\n\nHuman: a\n\nAssistant:[[ b" EOT "]]\n\nHuman: c\n\nAssistant:[[ d" EOT "]]"},
        {"{\"text\": \"plain words\"}", "[[plain words" EOT "]]"},
        // A user who types a special token gets letters: the tokens are others, the text the same.
        {"{\"prompt\": \"a" EOT "\", \"answer\": \"b\"}", "\n\nHuman: a" EOT "\n\nAssistant:[[ b" EOT "]]"},
    };
    char lines[4096] = "";
    for (size_t i = 0, at = 0; i < DS_COUNT(cases); i++)
        at += (size_t)snprintf(lines + at, sizeof lines - at, "%s\n", cases[i][0]);
    assert_int_equal(build("forms", lines, "eval_fraction = 0", "stages = sft"), DS_OK);
    Dataset *d = open_built("forms");
    assert_int_equal(dataset_rows(d), DS_COUNT(cases));
    assert_int_equal(dataset_count(d, DATA_SFT, false), DS_COUNT(cases));
    assert_int_equal(dataset_count(d, DATA_PTX, false), 0);
    for (int i = 0; i < DS_COUNT(cases); i++) assert_row(d, i, cases[i][1]);
    assert_string_equal(dataset_template(d)->name, "hh");
    assert_int_equal(dataset_stop_id(d), 0);
    // The prompt is what stands before the last answer, and only the end marker is the special token.
    int32_t *prompt, ids[64];
    int64_t n, six = 6;
    assert_int_equal(dataset_prompt(d, 2, &prompt, &n), DS_OK);
    assert_int_equal(n, dataset_prompt_length(d, 2));
    const int64_t *span;
    assert_int_equal(dataset_spans(d, 2, &span), 2);
    assert_int_equal(n, span[2]);
    mem_free(prompt);
    assert_int_equal(dataset_read(d, &six, 1, ids), DS_OK);
    int64_t special = 0;
    for (int64_t t = 0; t < dataset_length(d, 6); t++) special += ids[t] == 0;
    assert_int_equal(special, 1);
    // A text counts but for its first token.
    assert_int_equal(dataset_counted(d, 5), dataset_length(d, 5) - 1);
    dataset_close(&d);
}

static void wrong_fields_are_named(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"{\"prompt\": \"hi\", \"anwser\": \"yo\"}", "stages = sft", "field \"answer\" is missing"},
        {"{\"prompt\": 7, \"answer\": \"yo\"}", "stages = sft", "field \"prompt\": expected a string"},
        {"{\"x\": 1}", "stages = sft", "the line has x"},
        {"{\"chosen\": \"Hello\"}", "stages = sft", "expected a transcript"},
        {"{\"messages\": \"hi\"}", "stages = sft", "expected a list of messages"},
        {"{\"messages\": [{\"role\": \"usr\", \"content\": \"a\"}]}", "stages = sft", "role \"usr\""},
        {"{\"messages\": [[]]}", "stages = sft", "expected {\"role\""},
        {"{\"prompt\": \"hi\", \"answer\": \"yo\"}", "stages = rm", "field \"rejected\" is missing"},
        {"{\"text\": \"hi\"}", "stages = ppo", "a text has no prompt"},
        {"{\"prompt\": \"hi\", \"answer\": \"yo\"}", "form = messages", "field \"messages\""},
    };
    for (int i = 0; i < DS_COUNT(cases); i++) {
        char *lines = mem_printf("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n%s\n", cases[i][0]);
        const bool first_is_bad = strstr(cases[i][1], "form");
        assert_int_equal(build("wrong", lines, "eval_fraction = 0", cases[i][1]), DS_ERR_DATA);
        assert_non_null(strstr(err_text(), cases[i][2]));
        assert_non_null(strstr(err_text(), first_is_bad ? "wrong.jsonl:1: " : "wrong.jsonl:2: "));
        err_clear();
        char *path = path_of("wrong");
        assert_false(file_exists(path)); // nothing is left
        mem_free(path);
        if (!first_is_bad) {
            assert_int_equal(build("skipped", lines, "eval_fraction = 0\non_bad = skip", cases[i][1]), DS_OK);
            Dataset *d = open_built("skipped");
            assert_int_equal(dataset_rows(d), strstr(cases[i][1], "rm") ? 2 : 1);
            dataset_close(&d);
        }
        mem_free(lines);
    }
}

static int64_t dropped(const char *name, const char *reason) {
    H5File *f = NULL;
    int64_t n = -1;
    char *path = path_of(name);
    assert_int_equal(h5_open_checked(path, &f), DS_OK);
    assert_int_equal(h5_attr_get_i64(f, "/sources/1", reason, &n), DS_OK);
    h5_close(&f);
    mem_free(path);
    return n;
}

static void useless_records_are_counted(void **state) {
    (void)state;
    static const char lines[] =
        "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n"
        "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n" // identical
        "{\"prompt\": \"a\", \"chosen\": \" \", \"rejected\": \"b\"}\n" // empty
        "{\"prompt\": \"\", \"chosen\": \"a\", \"rejected\": \"b\"}\n"  // empty
        "{\"chosen\": \"\\n\\nHuman: a\", \"rejected\": \"\\n\\nHuman: b\"}\n"
        "{\"prompt\": \"a a a a a a a a\", \"chosen\": \"a\", \"rejected\": \"b\"}\n"        // long prompt
        "{\"prompt\": \"a\", \"chosen\": \"a\", \"rejected\": \"b b b b b b b b b b b\"}\n"; // long answer
    assert_int_equal(build("useless", lines, "eval_fraction = 0\nmax_prompt = 12\nmax_answer = 8", "stages = rm, ppo"),
                     DS_OK);
    Dataset *d = open_built("useless");
    assert_int_equal(dataset_rows(d), 2);
    assert_int_equal(dataset_count(d, DATA_RM, false), 1);
    assert_int_equal(dataset_count(d, DATA_PPO, false), 1);
    int64_t chosen, rejected;
    dataset_pair(d, dataset_record(d, DATA_RM, false, 0), &chosen, &rejected);
    assert_row(d, chosen, "\n\nHuman: a\n\nAssistant:[[ b" EOT "]]");
    assert_row(d, rejected, "\n\nHuman: a\n\nAssistant:[[ c" EOT "]]");
    assert_int_equal(dataset_stages(d, rejected), 0);
    dataset_close(&d);
    assert_int_equal(dropped("useless", "dropped_identical_pair"), 1);
    assert_int_equal(dropped("useless", "dropped_empty"), 2);
    assert_int_equal(dropped("useless", "dropped_no_answer"), 1);
    assert_int_equal(dropped("useless", "dropped_long_prompt"), 1);
    assert_int_equal(dropped("useless", "dropped_long_answer"), 1);
    assert_int_equal(dropped("useless", "taken"), 1);
}

// Owner: caller.
static char *without_marks(const char *text) {
    char *plain = mem_alloc(strlen(text) + 1);
    size_t n = 0;
    for (const char *c = text; *c; c++)
        if (*c != '[' && *c != ']') plain[n++] = *c;
    return plain;
}

static void cuts_keep_the_end(void **state) {
    (void)state;
    static const char lines[] =
        "{\"chosen\": \"\\n\\nHuman: apple\\n\\nAssistant: bird\\n\\nHuman: cat dog\\n\\nAssistant: "
        "fish frog\"}\n";
    char keys[64];
    int32_t whole[64], part[64];
    int64_t zero = 0;
    assert_int_equal(build("whole", lines, "eval_fraction = 0", "stages = sft, ppo"), DS_OK);
    Dataset *d = open_built("whole");
    const int64_t length = dataset_length(d, 0), prompt = dataset_prompt_length(d, 0);
    assert_int_equal(dataset_read(d, &zero, 1, whole), DS_OK);
    dataset_close(&d);
    for (int64_t most = 2; most <= length + 1; most++) {
        snprintf(keys, sizeof keys, "eval_fraction = 0\ncut = left\nmax_tokens = %d", (int)most);
        assert_int_equal(build("cut", lines, keys, "stages = sft, ppo"), DS_OK);
        d = open_built("cut");
        const int64_t kept = ds_min(most, length), lost = length - kept, *span;
        assert_int_equal(dataset_length(d, 0), kept);
        assert_int_equal(dataset_read(d, &zero, 1, part), DS_OK);
        assert_memory_equal(part, whole + lost, (size_t)kept * sizeof *part);
        assert_int_equal(dataset_prompt_length(d, 0), ds_max(0, prompt - lost));
        int64_t n = dataset_spans(d, 0, &span);
        assert_int_equal(span[2 * n - 1], kept);
        assert_int_equal(dataset_count(d, DATA_PPO, false), prompt > lost); // a prompt that was cut away is none
        assert_int_equal(dataset_count(d, DATA_SFT, false), 1);
        dataset_close(&d);
        snprintf(keys, sizeof keys, "eval_fraction = 0\nmax_tokens = %d", (int)most);
        assert_int_equal(build("dropped", lines, keys, "stages = sft"), most < length ? DS_ERR_DATA : DS_OK);
        err_clear();
    }
    // A text becomes several rows that are the whole end to end.
    assert_int_equal(
        build("pieces", "{\"text\": \"apple bird cat dog egg fish goat\"}\n", "eval_fraction = 0\nmax_tokens = 3", ""),
        DS_OK);
    d = open_built("pieces");
    assert_true(dataset_rows(d) >= 3);
    assert_int_equal(dataset_count(d, DATA_PTX, false), dataset_rows(d));
    char *joined = mem_strdup("");
    for (int64_t r = 0; r < dataset_rows(d); r++) {
        char *text = row_text(d, r), *longer;
        assert_true(dataset_length(d, r) <= 3);
        longer = mem_printf("%s%s", joined, text);
        mem_free(text);
        mem_free(joined);
        joined = longer;
    }
    char *plain = without_marks(joined);
    assert_string_equal(plain, "apple bird cat dog egg fish goat" EOT);
    mem_free(joined);
    mem_free(plain);
    dataset_close(&d);
}

// ---- splits ----

static char *many(int64_t n, const char *form) {
    const size_t room = (size_t)n * 100;
    char *text = mem_alloc(room);
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) at += (size_t)snprintf(text + at, room - at, form, (int)i, (int)i, (int)i);
    return text;
}

static void split_follows_shares(void **state) {
    (void)state;
    char *pairs = many(2000, "{\"prompt\": \"%d\", \"chosen\": \"a%d\", \"rejected\": \"b%d\"}\n");
    char *answers = many(2000, "{\"prompt\": \"%d\", \"answer\": \"a%d\", \"id\": %d}\n");
    static const double expected[2][3] = {{400, 800, 800}, {2000 / 3., 0, 4000 / 3.}};
    for (int form = 0; form < 2; form++) {
        assert_int_equal(build("split", form ? answers : pairs, "eval_count = 30", ""), DS_OK);
        Dataset *d = open_built("split");
        int64_t all = 0;
        for (int k = 0; k < 3; k++) {
            int64_t train = dataset_count(d, (DataKind)k, false), eval = dataset_count(d, (DataKind)k, true);
            all += train + eval;
            assert_true(train + eval >= expected[form][k] * 0.85 && train + eval <= expected[form][k] * 1.15);
            assert_int_equal(eval, expected[form][k] > 0 ? 30 : 0);
        }
        assert_int_equal(all, 2000); // each to one stage
        dataset_close(&d);
    }
    mem_free(pairs);
    mem_free(answers);
}

static void held_out_part(void **state) {
    (void)state;
    char *answers = many(100, "{\"prompt\": \"%d\", \"answer\": \"a%d\", \"id\": %d}\n");
    assert_int_equal(build("last", answers, "eval_count = 7\norder = file", "stages = sft"), DS_OK);
    Dataset *d = open_built("last");
    assert_int_equal(dataset_count(d, DATA_SFT, true), 7);
    for (int64_t i = 0; i < 7; i++) assert_int_equal(dataset_record(d, DATA_SFT, true, i), 93 + i);
    for (int64_t i = 0; i < 93; i++) assert_int_equal(dataset_record(d, DATA_SFT, false, i), i);
    dataset_close(&d);
    int64_t record[3][10];
    for (int k = 0; k < 3; k++) { // seeds 1, 1, 2
        assert_int_equal(
            build("drawn", answers, k < 2 ? "eval_fraction = 0.1" : "eval_fraction = 0.1\nseed = 2", "stages = sft"),
            DS_OK);
        d = open_built("drawn");
        assert_int_equal(dataset_count(d, DATA_SFT, true), 10);
        for (int64_t i = 0; i < 10; i++) record[k][i] = dataset_record(d, DATA_SFT, true, i);
        dataset_close(&d);
    }
    assert_memory_equal(record[0], record[1], sizeof record[0]);
    assert_memory_not_equal(record[0], record[2], sizeof record[0]);
    assert_true(record[0][0] < 80); // not the last ones
    assert_int_equal(build("drawn", answers, "eval_count = 100", "stages = sft"), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "only 100 records for sft"));
    err_clear();
    mem_free(answers);
}

static void weights_and_limit(void **state) {
    (void)state;
    char *answers = many(400, "{\"prompt\": \"%d\", \"answer\": \"a%d\", \"id\": %d}\n");
    assert_int_equal(build("half", answers, "eval_fraction = 0", "stages = sft\nweight = 0.5"), DS_OK);
    Dataset *d = open_built("half");
    assert_in_range(dataset_rows(d), 160, 240);
    dataset_close(&d);
    assert_int_equal(build("twice", answers, "eval_count = 40", "stages = sft\nweight = 2.5\nlimit = 200"), DS_OK);
    d = open_built("twice");
    assert_in_range(dataset_rows(d), 460, 540);
    assert_int_equal(dataset_count(d, DATA_SFT, true), 40); // once each, and not in the training part as well
    char *held = row_text(d, dataset_record(d, DATA_SFT, true, 3));
    for (int64_t i = 0; i < dataset_count(d, DATA_SFT, false); i++) {
        char *text = row_text(d, dataset_record(d, DATA_SFT, false, i));
        assert_string_not_equal(text, held);
        mem_free(text);
        if (i == 60) break; // each opens the file's tokenizer
    }
    mem_free(held);
    dataset_close(&d);
    mem_free(answers);
}

// ---- the file ----

static void same_bytes_again(void **state) {
    (void)state;
    char *answers = many(50, "{\"prompt\": \"%d\", \"answer\": \"a%d\", \"id\": %d}\n"), *path = path_of("again"),
         *first;
    char *second;
    size_t bytes, bytes2;
    assert_int_equal(build("again", answers, "", "stages = sft"), DS_OK);
    assert_int_equal(file_read_all(path, 1 << 22, &first, &bytes), DS_OK);
    assert_int_equal(build("again", answers, "", "stages = sft"), DS_OK);
    assert_int_equal(file_read_all(path, 1 << 22, &second, &bytes2), DS_OK);
    assert_int_equal(bytes, bytes2);
    assert_memory_equal(first, second, bytes);
    mem_free(first);
    mem_free(second);
    mem_free(path);
    mem_free(answers);
}

static void verify_finds_damage(void **state) {
    (void)state;
    char *answers = many(50, "{\"prompt\": \"%d\", \"answer\": \"a%d\", \"id\": %d}\n"), *path = path_of("damaged");
    uint8_t flags[50];
    Sha256Hex hash;
    assert_int_equal(build("damaged", answers, "", "stages = sft"), DS_OK);
    assert_int_equal(build_rows_verify(path, &hash), DS_OK);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), set = H5Dopen2(file, "/samples/eval", H5P_DEFAULT);
    assert_true(H5Dread(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, flags) >= 0);
    flags[49] ^= 1; // one bit
    assert_true(H5Dwrite(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, flags) >= 0);
    H5Dclose(set);
    H5Fclose(file);
    assert_int_equal(build_rows_verify(path, &hash), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "/samples/eval is not what was written"));
    err_clear();
    mem_free(path);
    mem_free(answers);
}

// A file whose index was made wrong before it was written.
typedef enum { HURT_NONE, HURT_SPAN, HURT_SPANS_CROSS, HURT_START, HURT_PROMPT, HURT_PAIR, HURT_TOKEN, HURTS } Hurt;

static Err open_hurt(Hurt hurt, Dataset **d) {
    Err err = DS_OK;
    H5File *f = NULL;
    BuildRows r = {0};
    Sha256Hex hash;
    int32_t ids[] = {1, 2, 3, 4, 5, 6};
    int64_t spans[] = {1, 2, 3, 6};
    char *path = path_of("hurt");
    assert_int_equal(h5_create(path, &f), DS_OK);
    assert_int_equal(build_rows_create(f, &r), DS_OK);
    if (hurt == HURT_SPAN) spans[3] = 7;
    if (hurt == HURT_SPANS_CROSS) spans[1] = 4;
    if (hurt == HURT_TOKEN) ids[3] = 416;
    assert_int_equal(build_rows_add(&r, ids, 6, spans, 2, hurt == HURT_PROMPT ? 7 : 3, 1 << DATA_RM), DS_OK);
    spans[3] = 6, spans[1] = 2;
    assert_int_equal(build_rows_add(&r, ids, 6, spans, 2, 3, 0), DS_OK);
    build_rows_pair(&r, 0, hurt == HURT_PAIR ? 2 : 1);
    if (hurt == HURT_START) r.start[1] = 13;
    assert_int_equal(h5_attr_put_i64(f, "/", "format_version", DATASET_FORMAT), DS_OK);
    assert_int_equal(h5_attr_put_i64(f, "/", "vocab", 416), DS_OK);
    assert_int_equal(h5_attr_put_i64(f, "/", "stop_id", -1), DS_OK);
    assert_int_equal(h5_attr_put_str(f, "/", "template", "hh"), DS_OK);
    assert_int_equal(build_rows_finish(&r, &hash), DS_OK);
    build_rows_free(&r);
    assert_int_equal(h5_commit(&f), DS_OK);
    err = dataset_open(path, d);
    mem_free(path);
    return err;
}

static void bad_index_is_refused(void **state) {
    (void)state;
    for (Hurt hurt = HURT_NONE; hurt < HURTS; hurt++) {
        Dataset *d = NULL;
        const int64_t zero = 0;
        int32_t ids[6];
        Tokenizer *tok = NULL;
        Err err = open_hurt(hurt, &d);
        if (hurt == HURT_NONE || hurt == HURT_TOKEN) {
            assert_int_equal(err, DS_OK);
            assert_int_equal(dataset_read(d, &zero, 1, ids), hurt == HURT_TOKEN ? DS_ERR_DATA : DS_OK);
            assert_int_equal(dataset_tokenizer(d, &tok), DS_OK);
            assert_null(tok); // none in this file
        } else {
            assert_int_equal(err, DS_ERR_DATA);
            assert_null(d);
        }
        err_clear();
        dataset_close(&d);
    }
}

// ---- the longest row ----

// What a stage reads in one piece: of pairs the longer row, also where it is the rejected one, which no stage names; of
// prompts what stands before the answer.
static void longest_rows(void **state) {
    (void)state;
    static const char lines[] = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c c c c c c c c\"}\n"
                                "{\"prompt\": \"a a a a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n";
    int64_t row, chosen, rejected, record = 0;
    assert_int_equal(build("longest", lines, "eval_fraction = 0", "stages = sft, rm, ppo"), DS_OK);
    Dataset *d = open_built("longest");
    dataset_pair(d, record, &chosen, &rejected);
    assert_int_equal(dataset_longest_row(d, DATA_RM, &row), dataset_length(d, rejected));
    assert_int_equal(row, rejected);
    assert_true(dataset_longest(d, DATA_RM) > dataset_length(d, rejected)); // of both rows
    dataset_pair(d, 1, &chosen, &rejected);
    assert_int_equal(dataset_longest_row(d, DATA_SFT, &row), dataset_length(d, chosen));
    assert_int_equal(row, chosen);
    assert_int_equal(dataset_longest_row(d, DATA_PPO, &row), dataset_prompt_length(d, chosen));
    assert_int_equal(row, chosen);
    assert_int_equal(dataset_longest_row(d, DATA_PTX, &row), 0);
    assert_int_equal(row, -1);
    const int64_t longest = dataset_longest_row(d, DATA_RM, &row);
    assert_int_equal(dataset_check_positions(d, DATA_RM, longest, "the model"), DS_OK);
    assert_int_equal(dataset_check_positions(d, DATA_RM, longest - 1, "the model"), DS_ERR_DATA);
    char *words = mem_printf("longest.h5: row %d (rm) has %d tokens, but the model has %d positions", (int)row,
                             (int)longest, (int)longest - 1);
    assert_non_null(strstr(err_text(), words));
    assert_non_null(strstr(err_text(), "max_tokens"));
    mem_free(words);
    err_clear();
    dataset_close(&d);
}

// The header says it too, and is not believed; a file of before has none.
static void longest_in_the_header(void **state) {
    (void)state;
    char *path = path_of("longest");
    Dataset *d = NULL;
    H5File *f = NULL;
    int64_t said = 0, row;
    longest_rows(NULL);
    assert_int_equal(h5_open_checked(path, &f), DS_OK);
    assert_int_equal(h5_attr_get_i64(f, "/", "longest_rm", &said), DS_OK);
    h5_close(&f);
    for (int step = 0; step < 2; step++) { // a wrong number, then none
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        int64_t wrong = said - 1;
        hid_t attr = H5Aopen_by_name(file, "/", "longest_rm", H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Awrite(attr, H5T_NATIVE_INT64, &wrong) >= 0);
        H5Aclose(attr);
        if (step == 1) assert_true(H5Adelete_by_name(file, "/", "longest_rm", H5P_DEFAULT) >= 0);
        H5Fclose(file);
        assert_int_equal(dataset_open(path, &d), step == 0 ? DS_ERR_DATA : DS_OK);
        if (step == 0) assert_non_null(strstr(err_text(), "attribute longest_rm"));
        else assert_int_equal(dataset_longest_row(d, DATA_RM, &row), said);
        err_clear();
        dataset_close(&d);
    }
    mem_free(path);
}

// A run's data set is built anew while it trains: its tokens lie elsewhere than the index in memory says.
static void replaced_is_refused(void **state) {
    (void)state;
    Tokenizer *tok = NULL;
    char *path = path_of("mine"), *other = path_of("other");
    assert_int_equal(build("mine", "{\"prompt\": \"a\", \"answer\": \"b\"}\n", "eval_fraction = 0", "stages = sft"),
                     DS_OK);
    assert_int_equal(build("other", "{\"prompt\": \"a\", \"answer\": \"c\"}\n", "eval_fraction = 0", "stages = sft"),
                     DS_OK);
    Dataset *d = open_built("mine");
    assert_int_equal(file_rename_durable(other, path), DS_OK);
    assert_int_equal(dataset_tokenizer(d, &tok), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "mine.h5: was replaced by another data set"));
    err_clear();
    dataset_close(&d);
    mem_free(path), mem_free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(longest_rows),
                                       cmocka_unit_test(longest_in_the_header),
                                       cmocka_unit_test(forms_become_turns),
                                       cmocka_unit_test(wrong_fields_are_named),
                                       cmocka_unit_test(useless_records_are_counted),
                                       cmocka_unit_test(cuts_keep_the_end),
                                       cmocka_unit_test(split_follows_shares),
                                       cmocka_unit_test(held_out_part),
                                       cmocka_unit_test(weights_and_limit),
                                       cmocka_unit_test(same_bytes_again),
                                       cmocka_unit_test(verify_finds_damage),
                                       cmocka_unit_test(bad_index_is_refused),
                                       cmocka_unit_test(replaced_is_refused)};
    h5_init();
    return cmocka_run_group_tests_name("dataset", tests, NULL, NULL);
}
