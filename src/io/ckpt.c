// ckpt.c: where checkpoints lie and which one counts. See ckpt.h.
#include "io/ckpt.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "io/manifest.h"

static const char *const stages[] = {"null", "sft", "rm", "ppo"}; // in their order

// ---- names ----

char *ckpt_path(const char *dir, const char *stage, int64_t step) {
    return mem_printf("%s/%s-%06lld", dir, stage, (long long)step);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool ckpt_parse(const char *path, const char **stage, int64_t *step) {
    const char *name = base_name(path);
    for (int i = 0; i < DS_COUNT(stages); i++) {
        size_t n = strlen(stages[i]);
        if (strncmp(name, stages[i], n) != 0 || name[n] != '-') continue;
        const char *digits = name + n + 1;
        size_t len = strspn(digits, "0123456789");
        if (len < 1 || len > 18 || digits[len]) return false;
        *stage = stages[i];
        *step = strtoll(digits, NULL, 10);
        return true;
    }
    return false;
}

static int stage_order(const char *stage) {
    for (int i = 0; i < DS_COUNT(stages); i++)
        if (!strcmp(stage, stages[i])) return i;
    return -1;
}

char *ckpt_model_path(const char *path, const char *model) { return mem_printf("%s/%s.h5", path, model); }

// ---- validity ----

// DONE holds the manifest's hash and a newline, nothing else.
static Err read_done(const char *path, Xxh128Hex *hash) {
    Err err = DS_OK;
    char *text = NULL, *name = mem_printf("%s/DONE", path);
    size_t bytes = 0;
    DS_CHECK(!file_absent(name), DS_ERR_DATA, "%s: was never finished (no DONE)", path);
    DS_TRY(file_read_all(name, 64, &text, &bytes));
    DS_CHECK(bytes == 33 && text[32] == '\n' && strspn(text, "0123456789abcdef") == 32, DS_ERR_DATA, "%s: is torn",
             name);
    memcpy(hash->hex, text, 32);
    hash->hex[32] = 0;
done:
    mem_free(text);
    mem_free(name);
    return err;
}

// The manifest of a checkpoint whose DONE belongs to it. Owner: caller, manifest_free.
static Err read_manifest(const char *path, Manifest *m) {
    Err err = DS_OK;
    Xxh128Hex done_hash, hash;
    *m = (Manifest){0};
    DS_TRY(read_done(path, &done_hash));
    DS_TRY(manifest_read(m, path, &hash));
    DS_CHECK(!strcmp(hash.hex, done_hash.hex), DS_ERR_DATA, "%s: DONE belongs to another manifest.txt", path);
done:
    if (err) manifest_free(m);
    return err;
}

Err ckpt_check(const char *path) {
    Manifest m;
    Err err = read_manifest(path, &m);
    if (!err) err = manifest_check_sizes(&m, path);
    manifest_free(&m);
    return err;
}

Err ckpt_verify(const char *path, int part, int parts) {
    Manifest m;
    Err err = read_manifest(path, &m);
    if (!err) err = manifest_check_hashes(&m, path, part, parts);
    manifest_free(&m);
    return err;
}

// ---- lists ----

static int newest_first(const void *a, const void *b) {
    const char *stage_a = "", *stage_b = "";
    int64_t step_a = 0, step_b = 0;
    ckpt_parse(*(char *const *)a, &stage_a, &step_a);
    ckpt_parse(*(char *const *)b, &stage_b, &step_b);
    int order = stage_order(stage_b) - stage_order(stage_a);
    return order ? order : (step_b > step_a) - (step_b < step_a);
}

// A folder, not a link to one, that belongs to this user.
static bool is_own_folder(const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0) return errno != ENOENT; // who opens it hears why
    if (!S_ISDIR(st.st_mode)) return false;
    if (st.st_uid == geteuid()) return true;
    log_warn("%s: belongs to another user and is left alone", path);
    return false;
}

static void add_path(H5Names *paths, char *path) {
    paths->name = mem_grow(paths->name, paths->n, paths->n + 1, sizeof(char *));
    paths->name[paths->n++] = path;
}

// Entries of `dir` for which `wanted` holds. A missing dir is empty.
static Err scan(const char *dir, bool (*wanted)(const char *name), H5Names *paths) {
    Err err = DS_OK;
    *paths = (H5Names){0};
    DIR *d = opendir(dir);
    if (!d) return errno == ENOENT ? DS_OK : err_set(DS_ERR_IO, "%s: cannot list: %s", dir, strerror(errno));
    for (struct dirent *e; errno = 0, (e = readdir(d));) {
        if (!wanted(e->d_name)) continue;
        char *path = mem_printf("%s/%s", dir, e->d_name);
        if (is_own_folder(path)) add_path(paths, path);
        else mem_free(path);
    }
    if (errno) err = err_set(DS_ERR_IO, "%s: cannot list: %s", dir, strerror(errno));
    closedir(d);
    return err;
}

static bool is_checkpoint(const char *name) {
    const char *stage;
    int64_t step;
    return ckpt_parse(name, &stage, &step);
}

static bool is_temporary(const char *name) { return !strncmp(name, ".tmp-", 5); }

Err ckpt_list(const char *dir, H5Names *paths) {
    Err err = scan(dir, is_checkpoint, paths);
    if (!err && paths->n) qsort(paths->name, (size_t)paths->n, sizeof(char *), newest_first);
    return err;
}

// ---- the newest ----

// All ranks get rank 0's string. Collective on g.
static char *share_string(const Group *g, const char *s) {
    int64_t n = s ? (int64_t)strlen(s) : 0;
    coll_bcast(g, &n, sizeof n, 0);
    char *copy = mem_alloc((size_t)n + 1);
    if (group_rank(g) == 0 && s) memcpy(copy, s, (size_t)n);
    coll_bcast(g, copy, (size_t)n, 0);
    return copy;
}

// Whether one checkpoint is whole; rank 0 looks at its form, all share the hashing. DS_ERR_IO: that cannot be told now;
// hours of work are not skipped for it. Collective on g.
static Err look_at(const Group *g, const char *path, bool *whole) {
    Err err = agree_root(g, group_rank(g) == 0 ? ckpt_check(path) : DS_OK);
    if (!err) err = agree_err(g, ckpt_verify(path, group_rank(g), group_size(g)));
    *whole = !err;
    if (!err) return DS_OK;
    char *words = mem_strdup(err_text());
    err_clear();
    if (err == DS_ERR_IO) err_set(err, "%s; if it stays so, remove %s to go on from what is older", words, path);
    else log_warn("%s; this checkpoint is skipped", words);
    mem_free(words);
    return err == DS_ERR_IO ? err : DS_OK;
}

Err ckpt_find_newest(const Group *g, const char *dir, char **path) {
    H5Names paths = {0};
    *path = NULL;
    Err err = agree_err(g, group_rank(g) == 0 ? ckpt_list(dir, &paths) : DS_OK);
    int64_t n = paths.n;
    coll_bcast(g, &n, sizeof n, 0);
    for (int64_t i = 0; !err && i < n && !*path; i++) {
        char *candidate = share_string(g, i < paths.n ? paths.name[i] : NULL);
        bool whole;
        err = look_at(g, candidate, &whole);
        if (whole) *path = candidate;
        else mem_free(candidate);
    }
    h5_names_free(&paths);
    return err;
}

Err ckpt_read_state(const char *path, Kv **state) {
    H5File *file = NULL;
    char *name = mem_printf("%s/trainer.h5", path);
    *state = NULL;
    Err err = h5_open_own(name, &file);
    if (!err) err = kv_read(file, state);
    h5_close(&file);
    mem_free(name);
    return err;
}

// ---- housekeeping ----

#define ASIDE ".tmp-old-"

// A checkpoint was set aside for a second save of its step. If that one was never finished, the first is put back.
static Err put_back(const char *dir, const char *aside) {
    char *final = mem_printf("%s/%s", dir, base_name(aside) + strlen(ASIDE));
    Err err = ckpt_check(final);
    if (err == DS_ERR_DATA) {
        err_clear();
        err = ckpt_check(aside);
        if (!err) err = file_remove_tree(final);
        if (!err) err = file_rename_durable(aside, final);
    }
    if (err == DS_ERR_DATA) err = DS_OK, err_clear(); // neither is whole
    mem_free(final);
    return err;
}

Err ckpt_clean(const char *dir) {
    H5Names paths;
    Err err = scan(dir, is_temporary, &paths);
    for (int64_t i = 0; !err && i < paths.n; i++) {
        if (!strncmp(base_name(paths.name[i]), ASIDE, strlen(ASIDE))) err = put_back(dir, paths.name[i]);
        if (!err) err = file_remove_tree(paths.name[i]);
    }
    h5_names_free(&paths);
    return err;
}

// DONE goes first and durably, so that a deletion that is cut short leaves nothing that counts.
static Err remove_checkpoint(const char *path) {
    Err err = DS_OK;
    char *done = mem_printf("%s/DONE", path);
    DS_CHECK(unlink(done) == 0 || errno == ENOENT, DS_ERR_IO, "%s: cannot remove: %s", done, strerror(errno));
    DS_TRY(file_sync(path));
    DS_TRY(file_remove_tree(path));
done:
    mem_free(done);
    return err;
}

Err ckpt_prune(const char *dir, int keep) {
    H5Names paths;
    int valid = 0;
    Err err = ckpt_list(dir, &paths);
    for (int64_t i = 0; !err && i < paths.n; i++) {
        const Err seen = ckpt_check(paths.name[i]);
        const bool whole = !seen;
        err_clear();
        if (seen == DS_ERR_IO) continue; // not known to be torn
        valid += whole;
        if (valid > ds_max(keep, 1) || (valid > 0 && !whole)) err = remove_checkpoint(paths.name[i]);
    }
    h5_names_free(&paths);
    return err;
}
