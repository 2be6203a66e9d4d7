// build.c: sources -> lines -> records -> rows; then what is held out; then the file gets its name.
#include "data/build.h"

#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "data/build_take.h"
#include "io/h5_attr.h"
#include "io/jsonl.h"
#include "io/modelfile.h"

// Draws keyed by the number of a record use these beside the sources' own numbers.
enum { DRAW_WEIGHT = 100, DRAW_HELD_OUT = 200 };

enum { PROGRESS_EVERY = 1 << 16 }; // records

typedef struct {
    int64_t lines, taken, dropped[DROP_KINDS];
    Sha256Hex sha256;
} Counts;

typedef struct {
    const BuildSpec *spec;
    Tokenizer *tok;
    Chat *chat;
    H5File *file;
    BuildRows rows;
    BuildTaker take;
    BuildRecord record;
    BuildUnit *unit; // [units] records that were taken
    int64_t units, unit_room;
    Counts counts[BUILD_SOURCES];
    char *first_skipped; // the words of the first bad line that was passed over
} Build;

// ---- before ----

static bool is_model(const char *path) {
    size_t n = strlen(path);
    return n > 3 && !strcmp(path + n - 3, ".h5");
}

static Err load_model_tokenizer(const char *path, Tokenizer **tok) {
    Err err = DS_OK;
    ModelFile *model = NULL;
    char *blob = NULL;
    size_t bytes;
    DS_TRY(modelfile_open(path, &model));
    DS_TRY(modelfile_tokenizer(model, &blob, &bytes));
    DS_CHECK(blob, DS_ERR_DATA, "%s: the model has no tokenizer", path);
    DS_TRY(tok_load_blob(blob, bytes, path, tok));
done:
    mem_free(blob);
    modelfile_close(&model);
    return err;
}

static Err begin(Build *b) {
    Err err = DS_OK;
    ChatRoles roles;
    const BuildSpec *s = b->spec;
    char *folder = mem_strdup(s->output);
    DS_TRY(build_spec_roles(s, &roles));
    DS_TRY(is_model(s->tokenizer) ? load_model_tokenizer(s->tokenizer, &b->tok) : tok_load(s->tokenizer, &b->tok));
    DS_TRY(chat_create(s->template, &roles, b->tok, &b->chat));
    DS_TRY(file_make_dirs(dirname(folder)));
    DS_TRY(h5_create(s->output, &b->file));
    DS_TRY(build_rows_create(b->file, &b->rows));
    b->take = (BuildTaker){.spec = s, .tok = b->tok, .chat = b->chat, .rows = &b->rows};
done:
    mem_free(folder);
    return err;
}

static void end(Build *b) {
    build_rows_free(&b->rows); // before its file
    h5_abandon(&b->file);
    build_take_free(&b->take);
    build_form_free(&b->record);
    chat_destroy(&b->chat);
    tok_free(&b->tok);
    mem_free(b->unit);
    mem_free(b->first_skipped);
}

// ---- sources ----

// A bad line: an error, or one more that was passed over.
static Err bad_line(Build *b, Counts *c, BuildDrop drop, Err err) {
    if (b->spec->on_bad == BAD_ERROR) return err;
    if (!b->first_skipped) b->first_skipped = mem_strdup(err_text());
    c->dropped[drop]++;
    err_clear();
    return DS_OK;
}

static BuildDrop drop_of(JsonlFault fault) {
    return fault == JSONL_LONG ? DROP_LONG_LINE : fault == JSONL_UTF8 ? DROP_UTF8 : DROP_JSON;
}

// How often the record is taken: the whole part of the weight, and once more by chance.
static int64_t copies_of(const BuildSpec *s, int source, int64_t number) {
    const double weight = s->source[source].weight, whole = floor(weight);
    double u = rng_uniform((uint64_t)s->seed, RNG_SPLIT, DRAW_WEIGHT + (uint64_t)source, (uint64_t)number);
    return (int64_t)whole + (u < weight - whole);
}

static void keep_unit(Build *b, const BuildUnit *unit) {
    if (b->units == b->unit_room) {
        int64_t room = 2 * b->unit_room + 1024;
        b->unit = mem_grow(b->unit, b->unit_room, room, sizeof *b->unit);
        b->unit_room = room;
    }
    b->unit[b->units++] = *unit;
}

static Err take_object(Build *b, int source, const JsonValue *object, const char *where) {
    Counts *c = &b->counts[source];
    const BuildSource *from = &b->spec->source[source];
    BuildDrop drop = DROP_NONE;
    BuildUnit unit;
    Err err = build_form_parse(object, from->form, where, &b->record);
    if (!err) {
        int64_t copies = copies_of(b->spec, source, c->lines);
        err = build_take(&b->take, &b->record, source, c->lines, copies, where, &drop, &unit);
    }
    if (err == DS_ERR_DATA) return bad_line(b, c, DROP_FIELDS, err);
    if (err) return err;
    if (drop) {
        c->dropped[drop]++;
    } else {
        c->taken++;
        keep_unit(b, &unit);
    }
    return DS_OK;
}

static void say_progress(const Jsonl *in, const Counts *c, double began) {
    double seconds = clock_now() - began;
    log_progress(jsonl_path(in), jsonl_bytes_read(in), jsonl_bytes(in), (double)c->lines / ds_max(1, (int64_t)seconds),
                 "records/s", "", false);
}

static Err read_source(Build *b, int source) {
    Err err = DS_OK;
    Jsonl *in = NULL;
    const JsonValue *object;
    const BuildSource *from = &b->spec->source[source];
    Counts *c = &b->counts[source];
    const double began = clock_now();
    DS_TRY(hash_sha256_file(from->path, &c->sha256));
    DS_TRY(jsonl_open(from->path, &in));
    while (!from->limit || c->taken < from->limit) {
        err = jsonl_next(in, &object);
        if (!err && !object) break;
        c->lines++;
        if (jsonl_fault(in)) err = bad_line(b, c, drop_of(jsonl_fault(in)), err);
        if (!err && object) {
            char *where = mem_printf("%s:%lld", from->path, (long long)jsonl_line(in));
            err = take_object(b, source, object, where);
            mem_free(where);
        }
        if (err) goto done;
        if (c->lines % PROGRESS_EVERY == 0) say_progress(in, c, began);
    }
    if (c->lines > PROGRESS_EVERY) say_progress(in, c, began);
done:
    jsonl_close(&in);
    return err;
}

// ---- the held-out part ----

typedef struct {
    uint64_t key;
    int64_t unit;
} Draw;

static int by_key(const void *pa, const void *pb) {
    const Draw *a = pa, *b = pb;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return (a->unit > b->unit) - (a->unit < b->unit);
}

// All rows of the record, copies out of use: what is held out counts once.
static void hold_out(Build *b, const BuildUnit *u) {
    for (int64_t r = u->first; r < u->end; r++) {
        b->rows.eval[r] = 1;
        if (r >= u->copies_from) b->rows.stage[r] = 0;
    }
}

static char *stage_words(uint8_t stages) {
    char *text = mem_strdup("");
    for (int k = 0; k < DATA_KINDS; k++) {
        if (!(stages & (1 << k))) continue;
        char *longer = mem_printf("%s%s%s", text, *text ? ", " : "", dataset_kind_name((DataKind)k));
        mem_free(text);
        text = longer;
    }
    return text;
}

// Among the records of one set of stages.
static Err split_group(Build *b, uint8_t stages, Draw *draw) {
    Err err = DS_OK;
    const BuildSpec *s = b->spec;
    char *words = stage_words(stages);
    int64_t n = 0;
    for (int64_t i = 0; i < b->units; i++) {
        if (b->unit[i].stages != stages) continue;
        uint32_t w[4];
        rng_words((uint64_t)s->seed, RNG_SPLIT, DRAW_HELD_OUT, (uint64_t)i, w);
        uint64_t last_first = (uint64_t)(b->units - i);
        draw[n++] = (Draw){s->order == ORDER_FILE ? last_first : (uint64_t)w[0] << 32 | w[1], i};
    }
    int64_t wanted = s->eval_count ? s->eval_count : (int64_t)(s->eval_fraction * (double)n);
    if (!n) goto done;
    DS_CHECK(wanted < n, DS_ERR_DATA, "%s: [data] eval_count = %lld, but there are only %lld records for %s", s->output,
             (long long)wanted, (long long)n, words);
    qsort(draw, (size_t)n, sizeof *draw, by_key);
    for (int64_t i = 0; i < wanted; i++) hold_out(b, &b->unit[draw[i].unit]);
    log_info("  %-12s %lld records to train on, %lld held out", words, (long long)(n - wanted), (long long)wanted);
done:
    mem_free(words);
    return err;
}

static Err split_all(Build *b) {
    Err err = DS_OK;
    Draw *draw = MEM_NEW(Draw, b->units);
    for (int stages = 1; stages < 1 << DATA_KINDS; stages++) DS_TRY(split_group(b, (uint8_t)stages, draw));
done:
    mem_free(draw);
    return err;
}

// ---- what is said and written about it ----

static void say_counts(const Build *b) {
    for (int i = 0; i < BUILD_SOURCES; i++) {
        const Counts *c = &b->counts[i];
        if (!b->spec->source[i].path[0]) continue;
        log_info("%s: %lld records, %lld taken", b->spec->source[i].path, (long long)c->lines, (long long)c->taken);
        for (int k = 1; k < DROP_KINDS; k++)
            if (c->dropped[k])
                log_info("  dropped %8lld: %s", (long long)c->dropped[k], build_take_drop_words((BuildDrop)k));
    }
    if (b->first_skipped) log_warn("the first of the bad lines: %s", b->first_skipped);
    if (b->take.cut) log_info("  lost their beginning: %lld rows", (long long)b->take.cut);
}

static Err write_source(const Build *b, int i) {
    Err err = DS_OK;
    const BuildSource *from = &b->spec->source[i];
    const Counts *c = &b->counts[i];
    char group[32];
    snprintf(group, sizeof group, "/sources/%d", i + 1);
    DS_TRY(h5_make_group(b->file, group));
    DS_TRY(h5_attr_put_str(b->file, group, "path", from->path));
    DS_TRY(h5_attr_put_str(b->file, group, "sha256", c->sha256.hex));
    DS_TRY(h5_attr_put_str(b->file, group, "form", build_spec_form_name(from->form)));
    DS_TRY(h5_attr_put_f64(b->file, group, "weight", from->weight));
    DS_TRY(h5_attr_put_i64(b->file, group, "records", c->lines));
    DS_TRY(h5_attr_put_i64(b->file, group, "taken", c->taken));
    for (int k = 1; k < DROP_KINDS; k++) {
        char name[64];
        snprintf(name, sizeof name, "dropped_%s", build_take_drop_name((BuildDrop)k));
        DS_TRY(h5_attr_put_i64(b->file, group, name, c->dropped[k]));
    }
done:
    return err;
}

static Err write_roles(const Build *b) {
    Err err = DS_OK;
    ChatRoles r;
    ChatText text = {0};
    DS_TRY(build_spec_roles(b->spec, &r));
    text = chat_text(b->spec->template, &r);
    DS_TRY(h5_make_group(b->file, "/template"));
    for (int i = 0; i < CHAT_FIELDS; i++)
        if (text.field[i]) DS_TRY(h5_attr_put_str(b->file, "/template", chat_field(i), text.field[i]));
done:
    chat_text_free(&text);
    return err;
}

static Err write_tokenizer(const Build *b) {
    Err err = DS_OK;
    char *blob = NULL;
    size_t bytes;
    DS_TRY(tok_save(b->tok, &blob, &bytes));
    int64_t n = (int64_t)bytes;
    DS_TRY(h5_write_new(b->file, "/tokenizer", DS_U8, 1, &n, blob));
    DS_TRY(h5_attr_put_str(b->file, "/tokenizer", "sha256", tok_hash(b->tok)));
done:
    mem_free(blob);
    return err;
}

static Err write_about(const Build *b, const Origin *origin) {
    Err err = DS_OK;
    const BuildSpec *s = b->spec;
    DS_TRY(h5_attr_put_i64(b->file, "/", "format_version", DATASET_FORMAT));
    DS_TRY(h5_attr_put_i64(b->file, "/", "vocab", tok_vocab_size(b->tok)));
    DS_TRY(h5_attr_put_i64(b->file, "/", "stop_id", chat_stop_id(b->chat)));
    DS_TRY(h5_attr_put_str(b->file, "/", "template", s->template));
    DS_TRY(h5_attr_put_i64(b->file, "/", "max_tokens", s->max_tokens));
    DS_TRY(h5_attr_put_i64(b->file, "/", "seed", s->seed));
    DS_TRY(h5_attr_put_i64(b->file, "/", "cut_rows", b->take.cut));
    DS_TRY(write_roles(b));
    DS_TRY(write_tokenizer(b));
    for (int i = 0; i < BUILD_SOURCES; i++)
        if (s->source[i].path[0]) DS_TRY(write_source(b, i));
    DS_TRY(h5_make_group(b->file, "/origin"));
    for (int i = 0; i < origin->n; i++)
        if (strcmp(origin->entries[i].name, "date"))
            DS_TRY(h5_attr_put_str(b->file, "/origin", origin->entries[i].name, origin->entries[i].value));
done:
    return err;
}

Err build_run(const BuildSpec *spec, const Origin *origin) {
    Err err = DS_OK;
    Build *b = MEM_NEW(Build, 1);
    Sha256Hex hash;
    b->spec = spec;
    DS_TRY(begin(b));
    for (int i = 0; i < BUILD_SOURCES; i++)
        if (spec->source[i].path[0]) DS_TRY(read_source(b, i));
    say_counts(b);
    DS_CHECK(b->units > 0, DS_ERR_DATA, "%s: no record could be taken", spec->output);
    DS_TRY(split_all(b));
    DS_TRY(write_about(b, origin));
    const int64_t rows = b->rows.n, tokens = b->rows.start[rows];
    DS_TRY(build_rows_finish(&b->rows, &hash));
    DS_TRY(h5_commit(&b->file));
    log_info("%s: %lld rows, %lld tokens, SHA-256 %.16s...", spec->output, (long long)rows, (long long)tokens,
             hash.hex);
done:
    end(b);
    mem_free(b);
    return err;
}
