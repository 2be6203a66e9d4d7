// summary.c: a jansson object that keeps its order.
#include "io/summary.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

enum { MAX_BYTES = 16 << 20 };

struct Summary {
    char *path;
    json_t *object;
};

Err summary_open(const char *path, Summary **out) {
    Err err = DS_OK;
    char *text = NULL;
    size_t bytes = 0;
    Summary *s = MEM_NEW(Summary, 1);
    s->path = mem_strdup(path);
    if (!file_absent(path)) {
        json_error_t why;
        DS_TRY(file_read_all(path, MAX_BYTES, &text, &bytes));
        s->object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
        DS_CHECK(json_is_object(s->object), DS_ERR_DATA, "%s:%d: not a summary of a run: %s", path, why.line, why.text);
    } else {
        s->object = json_object();
    }
done:
    mem_free(text);
    if (err) summary_destroy(&s);
    *out = s;
    return err;
}

void summary_destroy(Summary **s) {
    if (!*s) return;
    json_decref((*s)->object);
    mem_free((*s)->path);
    MEM_FREE(*s);
}

void summary_put(Summary *s, const char *key, double value) {
    json_object_set_new(s->object, key, isfinite(value) ? json_real(value) : json_null());
}

void summary_put_text(Summary *s, const char *key, const char *value) {
    json_t *text = json_string(value);
    json_object_set_new(s->object, key, text ? text : json_string("(not UTF-8)"));
}

double summary_get(const Summary *s, const char *key) {
    json_t *v = json_object_get(s->object, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *summary_get_text(const Summary *s, const char *key) {
    const char *v = json_string_value(json_object_get(s->object, key));
    return v ? v : "";
}

Err summary_write(const Summary *s) {
    char *text = json_dumps(s->object, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    if (!text) return err_set(DS_ERR_BUG, "%s: the summary cannot be written as JSON", s->path);
    Err err = file_write_atomic(s->path, text, strlen(text));
    free(text); // lint: jansson's memory
    return err;
}
