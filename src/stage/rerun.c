// rerun.c: see rerun.h. Rank 0 decides for all.
#include "stage/rerun.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "io/h5_sums.h"
#include "params/params_diff.h"

enum { INPUTS = 8, LINE = 180, MAX_RECORD = 8 << 20, MAX_NAMED = 6 };
static const int64_t hash_whole = 2ll << 30, hash_end = 64 << 20; // bytes

#define INPUT_MARK "# input "
#define CHANGE_MARK "# change "
#define PROGRAM_MARK "# program "

typedef struct {
    const Params *p;
    int begun, done;
    const char *at, *path; // path: params.out
    const char *program;   // version and commit of this one
    char *text;            // what it holds, NULL: nothing known
    Params *was;
    char was_hash[INPUTS][48], hash[INPUTS][48]; // "": unknown
    char *lines;                                 // to append: CHANGE_MARK lines
    char *refused;                               // words
    int n_refused;
} Rerun;

// ---- inputs ----

static const struct {
    const char *section, *name;
} inputs[INPUTS] = {{"data", "sft_file"}, {"data", "rm_file"}, {"data", "ppo_file"},   {"data", "ptx_file"},
                    {"actor", "model"},   {"critic", "model"}, {"reference", "model"}, {"reward", "model"}};

static int key_of(int input) { return keytable_find(params_table(), inputs[input].section, inputs[input].name); }

static int input_of(const ParamKey *key) {
    for (int i = 0; i < INPUTS; i++)
        if (!strcmp(key->section, inputs[i].section) && !strcmp(key->name, inputs[i].name)) return i;
    err_fatal("%s.%s is no input", key->section, key->name);
}

static const char *input_path(const Params *p, int input) {
    return *(char *const *)((const char *)p + params_table()->keys[key_of(input)].offset);
}

static int stages_of(int input) {
    int stages;
    params_change_kind(key_of(input), &stages);
    return stages;
}

// Of a file too large to be read for this alone: its size and ends, which a rebuilt one does not share.
static Err hash_ends(int fd, const char *path, int64_t bytes, Xxh128Hex *out) {
    Err err = DS_OK;
    const int64_t at[] = {0, bytes - hash_end};
    Xxh128Hex end[DS_COUNT(at)];
    char words[96], *data = mem_alloc((size_t)hash_end);
    for (int i = 0; i < DS_COUNT(at); i++) {
        DS_TRY(file_pread(fd, path, data, (size_t)hash_end, at[i]));
        end[i] = hash_xxh128(data, (size_t)hash_end);
    }
    snprintf(words, sizeof words, "%lld %s %s", (long long)bytes, end[0].hex, end[1].hex);
    *out = hash_xxh128(words, strlen(words));
done:
    mem_free(data);
    return err;
}

// What tells the content of a file: the hashes in it, which are checked when it is read, else its own xxh3-128. ""
// where there is no file: who needs it says so. Of a model in shards: of its master, which holds the hash of every
// weight.
static Err hash_content(const char *path, char out[48]) {
    Err err = DS_OK;
    int fd = -1;
    int64_t bytes;
    bool there;
    Xxh128Hex hash;
    out[0] = 0;
    if (file_absent(path)) return DS_OK;
    DS_TRY(h5_sums_content(path, &hash, &there));
    if (!there) {
        DS_TRY(file_open_read(path, &fd, &bytes));
        DS_TRY(bytes > hash_whole ? hash_ends(fd, path, bytes, &hash) : hash_xxh128_file(path, &hash));
    }
    snprintf(out, 48, "%s", hash.hex);
done:
    if (fd >= 0) close(fd);
    return err;
}

// Of the inputs that a stage still reads, and those that have another name now; of finished stages they stay as
// recorded.
static Err hash_inputs(Rerun *r) {
    Err err = DS_OK;
    for (int i = 0; i < INPUTS; i++) {
        const char *path = input_path(r->p, i);
        int same = 0;
        while (same < i && (strcmp(path, input_path(r->p, same)) != 0 || !r->hash[same][0])) same++;
        if (!*path) continue;
        const bool moved = r->was && strcmp(path, input_path(r->was, i)) != 0;
        if (!moved && !(stages_of(i) & r->p->job.stages & ~r->done)) continue;
        if (same < i) memcpy(r->hash[i], r->hash[same], sizeof r->hash[i]);
        else DS_TRY(hash_content(path, r->hash[i]));
    }
done:
    return err;
}

// ---- the record ----

static void read_hashes(Rerun *r) {
    for (const char *line = r->text; line && (line = strstr(line, INPUT_MARK)); line++) {
        char section[32], name[32], hash[48];
        if (sscanf(line, INPUT_MARK "%31[^. ].%31s %47s", section, name, hash) != 3) continue;
        for (int i = 0; i < INPUTS; i++)
            if (!strcmp(section, inputs[i].section) && !strcmp(name, inputs[i].name))
                memcpy(r->was_hash[i], hash, sizeof hash);
    }
}

static Err read_record(Rerun *r) {
    Err err = DS_OK;
    size_t bytes = 0;
    if (!r->begun || file_absent(r->path)) goto done;
    DS_TRY(file_read_all(r->path, MAX_RECORD, &r->text, &bytes));
    DS_TRY(params_recall(r->path, r->text, bytes, &r->was));
    read_hashes(r);
done:
    return err;
}

static char *append(char *text, char *more) {
    char *longer = mem_printf("%s%s", text ? text : "", more);
    mem_free(text);
    mem_free(more);
    return longer;
}

// The lines of the record that begin with `mark`. Owner: caller.
static char *lines_with(const char *text, const char *mark) {
    char *out = mem_strdup("");
    for (const char *line = text; line && *line;) {
        const char *end = strchr(line, '\n');
        const size_t n = end ? (size_t)(end - line) + 1 : strlen(line);
        if (!strncmp(line, mark, strlen(mark))) out = append(out, mem_strndup(line, n));
        line += n;
    }
    return out;
}

// Keys as used, hashes of inputs, the changes of earlier starts and of this one.
static Err write_record(const Rerun *r) {
    char *all = append(params_text(r->p, true), mem_printf("\n" PROGRAM_MARK "%s\n", r->program));
    all = append(all, mem_strdup("\n# What the run reads, by content (xxh3-128).\n"));
    for (int i = 0; i < INPUTS; i++) {
        const char *hash = r->hash[i][0] ? r->hash[i] : r->was_hash[i];
        if (hash[0]) all = append(all, mem_printf(INPUT_MARK "%s.%s %s\n", inputs[i].section, inputs[i].name, hash));
    }
    char *earlier = lines_with(r->text, CHANGE_MARK);
    if (*earlier || r->lines)
        all = append(all, mem_strdup("\n# What has changed since the run began, and where it stood.\n"));
    all = append(all, earlier);
    if (r->lines) all = append(all, mem_strdup(r->lines));
    Err err = file_write_atomic(r->path, all, strlen(all));
    mem_free(all);
    return err;
}

// ---- what a difference means ----

// One line of params.out, short enough to be read as one, whatever the values are.
static void note(Rerun *r, const char *what, const char *was, const char *is, const char *why) {
    char line[LINE], when[32];
    const int n = snprintf(line, sizeof line, CHANGE_MARK "%s %s: %s = %s (was %s): %s", clock_iso(when), r->at, what,
                           is, was, why);
    if (n >= LINE) {
        size_t end = LINE - 5;
        while (end > 0 && ((unsigned char)line[end] & 0xC0) == 0x80) end--; // whole characters of UTF-8
        snprintf(line + end, 5, " ...");
    }
    r->lines = append(r->lines, mem_printf("%s\n", line));
    log_info("note: %s was %s so far, is %s now (%s): %s", what, *was ? was : "empty", *is ? is : "empty", r->at, why);
}

static void refuse(Rerun *r, const char *what, const char *was, const char *is) {
    if (r->p->job.accept_changes) {
        note(r, what, was, is, "accepted");
        return;
    }
    if (r->n_refused++ >= MAX_NAMED) return;
    r->refused = append(r->refused, mem_printf("%s%s was %s so far, is %s now", r->refused ? "; " : "", what,
                                               *was ? was : "empty", *is ? is : "empty"));
}

// [job] stages: a stage that has begun may not go before it is done, and none may come in front of what has begun.
static bool stages_are_fine(const Rerun *r) {
    const int was = r->was->job.stages, is = r->p->job.stages;
    for (int i = 0; i < STAGE_KINDS; i++) {
        const bool begun = r->begun >> i & 1, done = r->done >> i & 1;
        if (done || !((was ^ is) >> i & 1)) continue;
        if (begun || (is >> i & 1 && r->begun >> (i + 1))) return false;
    }
    return true;
}

static void judge_key(Rerun *r, const ParamChange *c) {
    char *what = mem_printf("%s.%s", c->key->section, c->key->name);
    const int touched = c->stages & r->begun;
    const bool file = c->kind == CHANGE_FILE;
    const int input = file ? input_of(c->key) : 0;
    if (c->kind == CHANGE_SILENT) goto done;
    if (c->kind == CHANGE_FREE) note(r, what, c->was, c->is, "results do not depend on it");
    else if (c->kind == CHANGE_STAGES) {
        if (stages_are_fine(r)) note(r, what, c->was, c->is, "what is done stays");
        else refuse(r, what, c->was, c->is);
    } else if (!touched) note(r, what, c->was, c->is, "no stage that it acts on has begun");
    else if (c->kind == CHANGE_BITS) note(r, what, c->was, c->is, "other last bits");
    else if (c->kind == CHANGE_EXTENT && !(touched & r->done) && params_is_more(c))
        note(r, what, c->was, c->is, "extended");
    else if (file && r->hash[input][0] && !strcmp(r->hash[input], r->was_hash[input]))
        note(r, what, c->was, c->is, "the same content");
    else refuse(r, what, c->was, c->is);
done:
    mem_free(what);
}

// The same path, another content.
static void judge_inputs(Rerun *r) {
    for (int i = 0; i < INPUTS; i++) {
        if (!r->hash[i][0] || !r->was_hash[i][0] || !strcmp(r->hash[i], r->was_hash[i])) continue;
        if (strcmp(input_path(r->p, i), input_path(r->was, i)) != 0) continue; // judge_key has
        char *what = mem_printf("the content of [%s] %s = %s", inputs[i].section, inputs[i].name, input_path(r->p, i));
        char was[20], is[20];
        snprintf(was, sizeof was, "%.12s...", r->was_hash[i]);
        snprintf(is, sizeof is, "%.12s...", r->hash[i]);
        if (stages_of(i) & r->begun) refuse(r, what, was, is);
        else note(r, what, was, is, "no stage that reads it has begun");
        mem_free(what);
    }
}

// Another program is nothing to refuse, but to know of.
static void judge_program(Rerun *r) {
    char *was = lines_with(r->text, PROGRAM_MARK);
    was[strcspn(was, "\n")] = 0;
    const char *name = was + strlen(PROGRAM_MARK);
    if (*was && strcmp(name, r->program) != 0) note(r, "the program", name, r->program, "not known to matter");
    mem_free(was);
}

static void judge(Rerun *r) {
    ParamChange *list = NULL;
    judge_program(r);
    const int n = params_diff(r->was, r->p, &list);
    for (int i = 0; i < n; i++) judge_key(r, &list[i]);
    judge_inputs(r);
    params_diff_free(&list, n);
}

// The changes of results in one line, for what the run writes. Owner: caller; NULL: none.
static char *sum_up(const Rerun *r) {
    char *all = append(lines_with(r->text, CHANGE_MARK), mem_strdup(r->lines ? r->lines : "")), *out = NULL;
    for (const char *line = all; *line;) {
        const size_t n = strcspn(line, "\n"), mark = strlen(CHANGE_MARK);
        char *one = mem_strndup(line + mark, n - mark);
        if (strstr(one, ": accepted") || strstr(one, ": extended")) {
            out = append(out, mem_printf("%s%s", out ? "; " : "", one));
        }
        mem_free(one);
        line += n + (line[n] == '\n');
    }
    mem_free(all);
    return out;
}

// The record of a run that has begun cannot be read.
static Err unknown_record(Rerun *r, Err err) {
    if (err == DS_ERR_IO) return err; // another start may read it
    char *why = mem_strdup(err ? err_text() : "it is missing");
    err_clear();
    if (r->p->job.accept_changes) {
        note(r, "every key", "not known", "as above", "accepted");
        err = DS_OK;
    } else
        err = err_set(DS_ERR_PARAMS,
                      "%s: what this run (at %s) was begun with is not known: %s; choose another [job] out, or accept "
                      "that with job.accept_changes = yes",
                      r->path, r->at, why);
    mem_free(why);
    return err;
}

static Err settle(Rerun *r, char **changes) {
    Err err = read_record(r);
    if (r->begun && !r->was) err = unknown_record(r, err);
    DS_TRY(err);
    DS_TRY(hash_inputs(r));
    if (r->was) judge(r);
    DS_CHECK(!r->n_refused, DS_ERR_PARAMS,
             "%s: this run (at %s) has other params: %s%s. Set %s back, choose another [job] out, or accept "
             "that it is a mixture with job.accept_changes = yes",
             r->p->job.out, r->at, r->refused, r->n_refused > MAX_NAMED ? " (and more)" : "",
             r->n_refused == 1 ? "it" : "them");
    if (!r->was || r->lines) DS_TRY(write_record(r));
    *changes = sum_up(r);
done:
    return err;
}

// All ranks get rank 0's text.
static void share(const Run *run, char **text) {
    int64_t n = *text ? (int64_t)strlen(*text) + 1 : 0;
    coll_bcast(run->world, &n, sizeof n, 0);
    if (group_rank(run->world) != 0) *text = n ? mem_alloc((size_t)n) : NULL;
    if (n) coll_bcast(run->world, *text, (size_t)n, 0);
}

Err rerun_settle(const Run *run, int begun, int done, const char *at, char **changes) {
    Err err = DS_OK;
    *changes = NULL;
    if (group_rank(run->world) == 0) {
        char *path = mem_printf("%s/params.out", run->p->job.out);
        char *program = mem_printf("dschat %s (%s)", DS_VERSION, origin_commit());
        Rerun r = {.p = run->p, .begun = begun, .done = done, .at = at, .path = path, .program = program};
        err = settle(&r, changes);
        params_free(&r.was);
        mem_free(r.text);
        mem_free(r.lines);
        mem_free(r.refused);
        mem_free(program);
        mem_free(path);
    }
    err = agree_root(run->world, err);
    if (!err) share(run, changes);
    return err;
}
