// nc.h: what a test reads of history.nc and rollouts.nc: record variables of netCDF's classic formats (CDF-2, CDF-5),
// by a reader of its own, after the format's description (Unidata, "NetCDF Classic Format").
#ifndef TESTS_NC_H
#define TESTS_NC_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

enum { NC_VARS = 96, NC_DIMS = 8 };

typedef struct {
    char name[64];
    int type;      // 4 int, 5 float, 6 double, 9 uint, 10 int64
    int64_t begin; // of record 0
    int64_t width; // values a record
} NcVar;

typedef struct {
    FileMap map;
    const unsigned char *at;
    int wide; // bytes of a count in the header: 4 or 8
    int64_t records, record_bytes;
    int64_t dim[NC_DIMS];
    int n;
    NcVar var[NC_VARS];
} Nc;

static uint64_t nc_big(const unsigned char *p, int bytes) {
    uint64_t x = 0;
    for (int i = 0; i < bytes; i++) x = x << 8 | p[i];
    return x;
}

static int64_t nc_take(Nc *f, int bytes) {
    const uint64_t x = nc_big(f->at, bytes);
    f->at += bytes;
    if (f->at > (const unsigned char *)f->map.data + f->map.bytes) fail_msg("a netCDF header ends early");
    return (int64_t)x;
}

static void nc_name(Nc *f, char *name) { // [64]
    const int64_t n = nc_take(f, f->wide);
    snprintf(name, 64, "%.*s", (int)n, (const char *)f->at);
    f->at += (n + 3) / 4 * 4;
}

static int nc_size(int type) {
    static const int size[] = {0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8};
    return size[type];
}

static void nc_skip_attributes(Nc *f) {
    char name[64];
    nc_take(f, 4);
    for (int64_t n = nc_take(f, f->wide); n-- > 0;) {
        nc_name(f, name);
        const int type = (int)nc_take(f, 4);
        const int64_t bytes = nc_take(f, f->wide) * nc_size(type);
        f->at += (bytes + 3) / 4 * 4;
    }
}

static void nc_var(Nc *f, NcVar *v) {
    nc_name(f, v->name);
    v->width = 1;
    for (int64_t d = nc_take(f, f->wide), i = 0; i < d; i++) {
        const int64_t dim = nc_take(f, f->wide);
        if (i > 0) v->width *= f->dim[dim]; // the first one is the records'
    }
    nc_skip_attributes(f);
    v->type = (int)nc_take(f, 4);
    f->record_bytes += nc_take(f, f->wide);
    v->begin = nc_take(f, 8);
}

// Owner: caller, nc_close.
static void nc_open(Nc *f, const char *path) {
    char name[64];
    *f = (Nc){0};
    if (file_map(path, &f->map)) fail_msg("%s", err_text());
    f->at = (const unsigned char *)f->map.data + 4;
    f->wide = f->at[-1] == 5 ? 8 : 4;
    f->records = nc_take(f, f->wide);
    nc_take(f, 4);
    const int64_t dims = nc_take(f, f->wide);
    assert_true(dims <= NC_DIMS);
    for (int64_t i = 0; i < dims; i++) {
        nc_name(f, name);
        f->dim[i] = nc_take(f, f->wide);
    }
    nc_skip_attributes(f);
    nc_take(f, 4);
    f->n = (int)nc_take(f, f->wide);
    assert_true(f->n <= NC_VARS);
    for (int i = 0; i < f->n; i++) nc_var(f, &f->var[i]);
}

static void nc_close(Nc *f) { file_unmap(&f->map); }

static const NcVar *nc_find(const Nc *f, const char *name) {
    for (int i = 0; i < f->n; i++)
        if (!strcmp(f->var[i].name, name)) return &f->var[i];
    fail_msg("there is no variable %s", name);
    return NULL;
}

// Value number `at` of a record.
static double nc_get(const Nc *f, const char *name, int64_t record, int64_t at) {
    const NcVar *v = nc_find(f, name);
    const int size = nc_size(v->type);
    const int64_t place = v->begin + record * f->record_bytes + at * size;
    assert_true(record < f->records && at < v->width && place + size <= (int64_t)f->map.bytes);
    const uint64_t bits = nc_big((const unsigned char *)f->map.data + place, size);
    const uint32_t word = (uint32_t)bits;
    float single;
    double real;
    memcpy(&single, &word, sizeof single);
    memcpy(&real, &bits, sizeof real);
    return v->type == 4    ? (double)(int32_t)word
           : v->type == 5  ? (double)single
           : v->type == 6  ? real
           : v->type == 10 ? (double)(int64_t)bits
                           : (double)bits;
}

#endif
