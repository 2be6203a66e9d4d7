// jsonl.c: zlib reads plain and gzip files alike; jansson parses; both behind checks of their own.
#include "io/jsonl.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/filetype.h"
#include "base/text.h"

enum { CHUNK = 1 << 16, MIN_BUFFER = 1 << 12, MAX_BUFFER = 1 << 18, MAX_IDLE = 256 << 20, MAX_RATIO = 100 };

struct Jsonl {
    char *path, *line;
    gzFile gz;
    int64_t number, room, used; // used: bytes of the line being built
    int64_t bytes;              // of the file
    int64_t idle;               // unpacked so far that is in no record
    JsonlFault fault;
    char chunk[CHUNK];
    int at, have;
    json_t *object;
};

Err jsonl_open(const char *path, Jsonl **out) {
    Err err = DS_OK;
    int fd = -1;
    Jsonl *j = MEM_NEW(Jsonl, 1);
    j->path = mem_strdup(path);
    DS_TRY(filetype_expect(path, FILETYPE_LINES));
    DS_TRY(file_open_read(path, &fd, &j->bytes));
    j->gz = gzdopen(fd, "rb");
    DS_CHECK(j->gz, DS_ERR_IO, "%s: cannot be read", path);
    fd = -1;
    gzbuffer(j->gz, (unsigned)ds_min(ds_max(j->bytes, MIN_BUFFER), MAX_BUFFER));
done:
    if (fd >= 0) close(fd);
    if (err) jsonl_close(&j);
    *out = j;
    return err;
}

void jsonl_close(Jsonl **pj) {
    Jsonl *j = *pj;
    if (!j) return;
    json_decref(j->object);
    if (j->gz) gzclose(j->gz);
    mem_free(j->line);
    mem_free(j->path);
    MEM_FREE(*pj);
}

static Err fill(Jsonl *j) {
    j->at = 0;
    if (j->idle > MAX_IDLE && j->idle / MAX_RATIO > gzoffset(j->gz))
        return err_set(DS_ERR_DATA, "%s: after line %lld: %lld MiB that hold no record were unpacked from %lld bytes",
                       j->path, (long long)j->number, (long long)(j->idle >> 20), (long long)gzoffset(j->gz));
    j->have = gzread(j->gz, j->chunk, CHUNK);
    int code = Z_OK;
    const char *why = gzerror(j->gz, &code);
    if (j->have < 0 || (code != Z_OK && code != Z_STREAM_END)) {
        j->have = 0;
        return err_set(DS_ERR_IO, "%s: after line %lld: %s", j->path, (long long)j->number,
                       code == Z_BUF_ERROR ? "the gzip stream ends too early" : why);
    }
    return DS_OK;
}

static void append(Jsonl *j, const char *bytes, int64_t n) {
    if (j->used + n + 1 > j->room) {
        int64_t room = ds_max(2 * j->room, j->used + n + 1);
        j->line = mem_grow(j->line, j->room, room, 1);
        j->room = room;
    }
    memcpy(j->line + j->used, bytes, (size_t)n);
    j->used += n;
    j->line[j->used] = 0;
}

// The next line without its end into j->line; *end: there is none. A line that is too long is passed over and refused.
static Err read_line(Jsonl *j, bool *end) {
    Err err = DS_OK;
    bool newline = false, too_long = false, any = false;
    j->used = 0;
    append(j, "", 0);
    while (!newline) {
        if (j->at == j->have) DS_TRY(fill(j));
        if (j->have == 0) break;
        any = true;
        const char *from = j->chunk + j->at, *stop = memchr(from, '\n', (size_t)(j->have - j->at));
        int64_t n = stop ? stop - from : j->have - j->at;
        newline = stop != NULL;
        j->at += (int)n + newline;
        j->idle += n + newline;
        too_long = too_long || j->used + n > JSONL_MAX_LINE;
        if (!too_long) append(j, from, n);
    }
    *end = !any;
    j->number += any;
    if (too_long) j->fault = JSONL_LONG;
    DS_CHECK(!too_long, DS_ERR_DATA, "%s:%lld: the line has more than %d bytes", j->path, (long long)j->number,
             JSONL_MAX_LINE);
done:
    return err;
}

static bool blank(const Jsonl *j) {
    const char *s = j->line + (j->number == 1 && j->used >= 3 && !memcmp(j->line, "\xef\xbb\xbf", 3) ? 3 : 0);
    return s[strspn(s, " \t\r")] == 0 && memchr(j->line, 0, (size_t)j->used) == NULL;
}

static Err parse(Jsonl *j) {
    Err err = DS_OK;
    json_error_t why;
    int64_t bad = text_utf8_bad(j->line, j->used);
    j->fault = bad >= 0 ? JSONL_UTF8 : JSONL_SYNTAX; // until it is found to be good
    DS_CHECK(bad < 0, DS_ERR_DATA, "%s:%lld: byte %lld of the line is not UTF-8", j->path, (long long)j->number,
             (long long)bad + 1);
    size_t bom = j->number == 1 && j->used >= 3 && !memcmp(j->line, "\xef\xbb\xbf", 3) ? 3 : 0;
    j->object = json_loadb(j->line + bom, (size_t)j->used - bom, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    DS_CHECK(j->object, DS_ERR_DATA, "%s:%lld: not JSON: %s (column %d)", j->path, (long long)j->number, why.text,
             why.column);
    DS_CHECK(json_is_object(j->object), DS_ERR_DATA, "%s:%lld: expected a JSON object {...}", j->path,
             (long long)j->number);
    j->fault = JSONL_GOOD;
done:
    return err;
}

Err jsonl_next(Jsonl *j, const JsonValue **object) {
    Err err = DS_OK;
    bool end;
    *object = NULL;
    json_decref(j->object);
    j->object = NULL;
    j->fault = JSONL_GOOD;
    do {
        DS_TRY(read_line(j, &end));
        if (end) return DS_OK;
    } while (blank(j));
    DS_TRY(parse(j));
    j->idle -= j->used + 1;
    *object = j->object;
done:
    return err;
}

int64_t jsonl_line(const Jsonl *j) { return j->number; }
const char *jsonl_path(const Jsonl *j) { return j->path; }
JsonlFault jsonl_fault(const Jsonl *j) { return j->fault; }
int64_t jsonl_bytes(const Jsonl *j) { return j->bytes; }
int64_t jsonl_bytes_read(const Jsonl *j) { return gzoffset(j->gz); }

const JsonValue *jsonl_get(const JsonValue *object, const char *key) { return json_object_get(object, key); }

const char *jsonl_string(const JsonValue *v, int64_t *bytes) {
    const char *s = json_string_value(v);
    if (s && bytes) *bytes = (int64_t)json_string_length(v);
    return s;
}

int64_t jsonl_count(const JsonValue *v) { return json_is_array(v) ? (int64_t)json_array_size(v) : -1; }
const JsonValue *jsonl_item(const JsonValue *array, int64_t i) { return json_array_get(array, (size_t)i); }

bool jsonl_integer(const JsonValue *v, int64_t *value) {
    if (!json_is_integer(v)) return false;
    *value = json_integer_value(v);
    return true;
}

const char *jsonl_key_list(const JsonValue *object, char *out, size_t room) {
    const char *key;
    json_t *value;
    size_t n = 0;
    out[0] = 0;
    json_object_foreach((json_t *)object, key, value) {
        int wrote = snprintf(out + n, room - n, "%s%s", n ? ", " : "", key);
        if (wrote < 0 || (size_t)wrote >= room - n) break;
        n += (size_t)wrote;
    }
    return out;
}

void jsonl_print_string(FILE *f, const char *text, int64_t bytes) {
    fputc('"', f);
    for (int64_t i = 0; i < bytes;) {
        int n;
        char utf8[4];
        uint32_t c = text_utf8_next(text + i, bytes - i, &n);
        i += n;
        if (c == '"' || c == '\\') fprintf(f, "\\%c", (char)c);
        else if (c < 32 || !text_is_plain(c)) fprintf(f, "\\u%04x", c);
        else fwrite(utf8, 1, (size_t)text_utf8_put(c, utf8), f);
    }
    fputc('"', f);
}
