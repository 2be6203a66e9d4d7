// manifest.c: see manifest.h. A manifest is its lines; meaning is parsed when it is checked.
#include "io/manifest.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum { MAX_BYTES = 1 << 30, MAX_NAME = 160 };
#define HEAD "dschat-manifest 1\n"
#define FILE_NAME "manifest.txt"

void manifest_free(Manifest *m) {
    for (int64_t i = 0; i < m->n; i++) mem_free(m->line[i]);
    mem_free(m->line);
    *m = (Manifest){0};
}

static void add_line(Manifest *m, char *line) {
    if ((m->n & (m->n - 1)) == 0) m->line = mem_grow(m->line, m->n, m->n ? 2 * m->n : 1, sizeof(char *));
    m->line[m->n++] = line;
}

// "x" or "x.shards/y", of letters, digits, '_', '-' and '.', no part beginning with '.'.
static bool name_ok(const char *name) {
    const char *slash = strchr(name, '/');
    if (!name[0] || name[0] == '.' || strlen(name) >= MAX_NAME) return false;
    if (slash && (slash[1] == '.' || !slash[1] || strchr(slash + 1, '/'))) return false;
    if (slash && (slash - name < 8 || strncmp(slash - 7, ".shards", 7) != 0)) return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("_-./", *p)) return false;
    return true;
}

Err manifest_add_file(Manifest *m, const char *folder, const char *name) {
    Err err = DS_OK;
    struct stat st;
    Xxh128Hex hash;
    char *path = mem_printf("%s/%s", folder, name);
    DS_CHECK(name_ok(name), DS_ERR_BUG, "%s: is not a legal name in a checkpoint", name);
    DS_TRY(hash_xxh128_file(path, &hash));
    DS_CHECK(stat(path, &st) == 0, DS_ERR_IO, "%s: cannot be found", path);
    add_line(m, mem_printf("file %lld %s %s", (long long)st.st_size, hash.hex, name));
done:
    mem_free(path);
    return err;
}

void manifest_add_rows(Manifest *m, const char *file, const char *object, H5Runs r, Xxh128Hex hash) {
    if (h5_runs_strided(r))
        add_line(m, mem_printf("runs %" PRId64 " %" PRId64 " %s %" PRId64 " %s:%s", r.first, r.count, hash.hex, r.run,
                               file, object));
    else add_line(m, mem_printf("rows %" PRId64 " %" PRId64 " %s %s:%s", r.first, r.count, hash.hex, file, object));
}

// ---- lines ----

typedef struct {
    int64_t bytes;
    char hash[33], name[MAX_NAME];
} FileLine;

static bool parse_file(const char *line, FileLine *f) {
    int used = 0;
    if (sscanf(line, "file %18" SCNd64 " %32[0-9a-f] %159[^ \n]%n", &f->bytes, f->hash, f->name, &used) != 3)
        return false;
    return f->bytes >= 0 && strlen(f->hash) == 32 && !line[used] && name_ok(f->name);
}

static bool is_file(const char *line) { return !strncmp(line, "file ", 5); }

// "rows" or "runs".
static bool rows_ok(const char *line) {
    H5Runs r;
    char hash[33] = "";
    int used = 0;
    if (sscanf(line, "rows %18" SCNd64 " %18" SCNd64 " %32[0-9a-f] %n", &r.first, &r.count, hash, &used) != 3 &&
        sscanf(line, "runs %18" SCNd64 " %18" SCNd64 " %32[0-9a-f] %18" SCNd64 " %n", &r.first, &r.count, hash, &r.run,
               &used) != 4)
        return false;
    return used > 0 && strlen(hash) == 32 && line[used];
}

static bool line_ok(const char *line) {
    FileLine f;
    return is_file(line) ? parse_file(line, &f) : rows_ok(line);
}

char *manifest_pack(const Manifest *m, size_t *bytes) {
    size_t n = 0;
    for (int64_t i = 0; i < m->n; i++) n += strlen(m->line[i]) + 1;
    char *text = mem_alloc(n + 1), *p = text;
    for (int64_t i = 0; i < m->n; i++) p = stpcpy(p, m->line[i]), *p++ = '\n';
    *p = 0;
    *bytes = n;
    return text;
}

Err manifest_unpack(Manifest *m, const char *text, size_t bytes, const char *what) {
    for (const char *p = text, *end = text + bytes; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        char *line = newline ? mem_strndup(p, (size_t)(newline - p)) : NULL;
        if (!line || !line_ok(line)) {
            Err err = err_set(DS_ERR_DATA, "%s: line %lld is damaged", what, (long long)m->n + 1);
            mem_free(line);
            return err;
        }
        add_line(m, line);
        p = newline + 1;
    }
    return DS_OK;
}

// ---- the file ----

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

Err manifest_write(Manifest *m, const char *folder, Xxh128Hex *hash) {
    size_t n = 0;
    if (m->n) qsort(m->line, (size_t)m->n, sizeof(char *), by_text);
    char *lines = manifest_pack(m, &n), *text = mem_printf(HEAD "%s", lines),
         *path = mem_printf("%s/" FILE_NAME, folder);
    *hash = hash_xxh128(text, strlen(text));
    Err err = file_write_atomic(path, text, strlen(text));
    mem_free(path);
    mem_free(text);
    mem_free(lines);
    return err;
}

Err manifest_read(Manifest *m, const char *folder, Xxh128Hex *hash) {
    Err err = DS_OK;
    char *text = NULL, *path = mem_printf("%s/" FILE_NAME, folder);
    size_t bytes = 0, head = strlen(HEAD);
    *m = (Manifest){0};
    DS_CHECK(!file_absent(path), DS_ERR_DATA, "%s: is missing", path);
    DS_TRY(file_read_all(path, MAX_BYTES, &text, &bytes));
    *hash = hash_xxh128(text, bytes);
    DS_CHECK(bytes > head && !memcmp(text, HEAD, head), DS_ERR_DATA, "%s: is not a manifest of this format", path);
    DS_TRY(manifest_unpack(m, text + head, bytes - head, path));
done:
    if (err) manifest_free(m);
    mem_free(text);
    mem_free(path);
    return err;
}

// Splits "actor.shards/00000.h5" so that it opens inside a real folder, without following links.
static Err open_listed(const char *folder, const char *name, int *fd, int64_t *bytes) {
    Err err = DS_OK;
    struct stat st;
    const char *slash = strchr(name, '/');
    char *path = mem_printf("%s/%s", folder, name),
         *inside = slash ? mem_printf("%s/%.*s", folder, (int)(slash - name), name) : mem_strdup(folder);
    *fd = -1;
    DS_CHECK(lstat(inside, &st) == 0 && S_ISDIR(st.st_mode), DS_ERR_DATA, "%s: is missing, or not a folder", inside);
    DS_CHECK(lstat(path, &st) == 0 ? S_ISREG(st.st_mode) : errno != ENOENT, DS_ERR_DATA,
             "%s: is missing, or not a regular file", path);
    DS_TRY(file_open_inside(inside, slash ? slash + 1 : name, fd, bytes));
done:
    mem_free(path);
    mem_free(inside);
    return err;
}

Err manifest_check_sizes(const Manifest *m, const char *folder) {
    Err err = DS_OK;
    FileLine f = {0};
    for (int64_t i = 0; i < m->n; i++) {
        int fd = -1;
        int64_t bytes = 0;
        if (!is_file(m->line[i])) continue;
        DS_CHECK(parse_file(m->line[i], &f), DS_ERR_DATA, "%s: line %lld of the manifest is damaged", folder,
                 (long long)i + 2);
        DS_TRY(open_listed(folder, f.name, &fd, &bytes));
        close(fd);
        DS_CHECK(bytes == f.bytes, DS_ERR_DATA, "%s/%s: has %lld bytes, its manifest says %lld", folder, f.name,
                 (long long)bytes, (long long)f.bytes);
    }
done:
    return err;
}

Err manifest_check_hashes(const Manifest *m, const char *folder, int part, int parts) {
    Err err = DS_OK;
    FileLine f = {0};
    Xxh128Hex hash;
    int64_t k = 0;
    char *path = NULL;
    for (int64_t i = 0; i < m->n; i++) {
        if (!is_file(m->line[i]) || k++ % parts != part || !parse_file(m->line[i], &f)) continue;
        mem_free(path);
        path = mem_printf("%s/%s", folder, f.name);
        DS_TRY(hash_xxh128_file(path, &hash));
        DS_CHECK(!strcmp(hash.hex, f.hash), DS_ERR_DATA, "%s: is damaged: its hash is not the manifest's", path);
    }
done:
    mem_free(path);
    return err;
}
