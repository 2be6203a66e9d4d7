// h5_vds.c: virtual data sets: which sources a file claims, whether they tile the whole, and whether the shards hold
// them.
//
// Attack: a virtual data set may name any HDF5 file of the victim. So a source is `<own name>.shards/NNNNN.h5` or
// refused, by name and before its extent is asked for.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/h5_check.h"

enum { MAX_SOURCES = 1 << 20, MAX_NAME = 512 };

static bool dataset_name_ok(const char *name) {
    if (name[0] != '/' || strlen(name) >= MAX_NAME || strchr(name, '%')) return false;
    char copy[MAX_NAME];
    snprintf(copy, sizeof copy, "%s", name + 1);
    for (char *part = copy; part;) {
        char *slash = strchr(part, '/');
        if (slash) *slash++ = 0;
        if (!h5_name_ok(part)) return false;
        part = slash;
    }
    return true;
}

// The number in `<stem>.shards/NNNNN.h5`; -1 if the name is not that.
static int shard_number(const H5Check *c, const char *name) {
    size_t n = strlen(c->stem);
    if (strncmp(name, c->stem, n) != 0 || strncmp(name + n, ".shards/", 8) != 0) return -1;
    const char *digits = name + n + 8;
    if (strlen(digits) != 8 || strcmp(digits + 5, ".h5") != 0) return -1;
    for (int i = 0; i < 5; i++)
        if (!isdigit((unsigned char)digits[i])) return -1;
    return atoi(digits);
}

static Err name_source(const H5Check *c, hid_t dcpl, size_t i, int *shard, char dataset[MAX_NAME]) {
    Err err = DS_OK;
    char file[MAX_NAME] = "";
    ssize_t file_bytes = H5Pget_virtual_filename(dcpl, i, NULL, 0);
    ssize_t name_bytes = H5Pget_virtual_dsetname(dcpl, i, NULL, 0);
    DS_CHECK(file_bytes > 0 && file_bytes < MAX_NAME && name_bytes > 0 && name_bytes < MAX_NAME, DS_ERR_DATA,
             "%s: a source of %s has no legal name", c->path, c->object);
    H5Pget_virtual_filename(dcpl, i, file, sizeof file);
    H5Pget_virtual_dsetname(dcpl, i, dataset, MAX_NAME);
    *shard = shard_number(c, file);
    DS_CHECK(*shard >= 0, DS_ERR_DATA,
             "%s: %s takes data from \"%.200s\"; only \"%s.shards/NNNNN.h5\" is accepted (a renamed model needs its "
             "old name)",
             c->path, c->object, file, c->stem);
    DS_CHECK(dataset_name_ok(dataset), DS_ERR_DATA, "%s: a source of %s has no legal data set name", c->path,
             c->object);
done:
    return err;
}

static Err count_sources(const H5Check *c, hid_t dcpl, size_t *n) {
    if (H5Pget_virtual_count(dcpl, n) < 0 || *n > MAX_SOURCES)
        return err_set(DS_ERR_DATA, "%s: %s has damaged sources, or more than %d", c->path, c->object, MAX_SOURCES);
    return DS_OK;
}

Err h5_vds_names(const H5Check *c, hid_t dcpl) {
    size_t n = 0;
    int shard;
    char dataset[MAX_NAME];
    Err err = count_sources(c, dcpl, &n);
    for (size_t i = 0; !err && i < n; i++) err = name_source(c, dcpl, i, &shard, dataset);
    return err;
}

// The box that a selection is: corners inclusive. false: it is not one solid box.
static bool get_box(hid_t space, int *ndim, hsize_t *lo, hsize_t *hi) {
    *ndim = H5Sget_simple_extent_ndims(space);
    H5S_sel_type kind = H5Sget_select_type(space);
    if (*ndim < 1 || (kind != H5S_SEL_HYPERSLABS && kind != H5S_SEL_ALL)) return false;
    if (H5Sget_select_bounds(space, lo, hi) < 0) return false;
    size_t n = 1;
    for (int d = 0; d < *ndim; d++)
        if (hi[d] < lo[d] || !mem_mul(n, (size_t)(hi[d] - lo[d] + 1), &n)) return false;
    return H5Sget_select_npoints(space) == (hssize_t)n;
}

// The box as a flat range of the row-major whole, or as a strip of a matrix; false if it leaves the shape or is
// neither.
static bool box_runs(int ndim, const hsize_t *shape, const hsize_t *lo, const hsize_t *hi, H5Runs *r) {
    bool inner_full = true; // every dimension inside the current one is whole
    int64_t inner = 1;
    *r = (H5Runs){.count = 1};
    for (int d = ndim - 1; d >= 0; d--) {
        if (hi[d] >= shape[d]) return false;
        int64_t n = (int64_t)(hi[d] - lo[d] + 1);
        if (n > 1 && !inner_full) {
            if (ndim != 2) return false;
            r->run = r->count;
        }
        r->first += (int64_t)lo[d] * inner, r->count *= n, inner *= (int64_t)shape[d];
        inner_full = inner_full && n == (int64_t)shape[d];
    }
    return true;
}

static Err add_source(H5Check *c, hid_t dcpl, size_t i, DType dtype, int ndim, const hsize_t *shape) {
    Err err = DS_OK;
    hsize_t lo[H5S_MAX_RANK], hi[H5S_MAX_RANK], source_lo[H5S_MAX_RANK];
    int got_ndim = 0;
    char dataset[MAX_NAME] = "";
    H5CheckSource s = {.dtype = dtype};
    hid_t to = H5Pget_virtual_vspace(dcpl, i), from = H5Pget_virtual_srcspace(dcpl, i);
    DS_TRY(name_source(c, dcpl, i, &s.shard, dataset));
    bool ok = to >= 0 && from >= 0 && get_box(to, &got_ndim, lo, hi) && got_ndim == ndim &&
              box_runs(ndim, shape, lo, hi, &s.runs) && get_box(from, &s.ndim, source_lo, s.last) &&
              H5Sget_select_npoints(from) == (hssize_t)s.runs.count;
    DS_CHECK(ok, DS_ERR_DATA, "%s: source %zu of %s is not one whole range or strip", c->path, i, c->object);
    s.target = mem_strdup(c->object);
    s.dataset = mem_strdup(dataset);
    c->source[c->n_sources++] = s;
done:
    if (to >= 0) H5Sclose(to);
    if (from >= 0) H5Sclose(from);
    return err;
}

// source[0..n) are those of the object being visited.
static Err check_tiling(const H5Check *c, const H5CheckSource *source, int64_t n, int ndim, const hsize_t *shape) {
    Err err = DS_OK;
    char words[H5_RUNS_WORDS];
    int64_t total = 1, cols = ndim == 2 ? (int64_t)shape[1] : 0;
    H5Runs *runs = MEM_NEW(H5Runs, n);
    for (int64_t i = 0; i < n; i++) runs[i] = source[i].runs;
    for (int d = 0; d < ndim; d++) total *= (int64_t)shape[d];
    DS_CHECK(h5_runs_tile(total, cols, runs, n, words), DS_ERR_DATA, "%s: the sources of %s %s", c->path, c->object,
             words);
done:
    mem_free(runs);
    return err;
}

Err h5_vds_collect(H5Check *c, hid_t dcpl, DType dtype, int ndim, const hsize_t *shape) {
    Err err = DS_OK;
    size_t n = 0;
    int64_t old = c->n_sources;
    DS_TRY(count_sources(c, dcpl, &n));
    DS_CHECK(ndim > 0 && old + (int64_t)n <= MAX_SOURCES, DS_ERR_DATA, "%s: %s: more than %d sources in one file",
             c->path, c->object, MAX_SOURCES);
    c->source = mem_grow(c->source, old, old + (int64_t)n, sizeof *c->source);
    for (size_t i = 0; i < n; i++) DS_TRY(add_source(c, dcpl, i, dtype, ndim, shape));
    DS_TRY(check_tiling(c, c->source + old, (int64_t)n, ndim, shape));
done:
    return err;
}

// ---- the shards ----

static int by_shard(const void *a, const void *b) {
    const H5CheckSource *x = a, *y = b;
    return (x->shard > y->shard) - (x->shard < y->shard);
}

// The data set in the shard has the type that is claimed, and reaches as far as the claim.
static Err check_claim(const H5Check *c, const H5Check *shard, hid_t file, const H5CheckSource *s) {
    hsize_t shape[H5S_MAX_RANK] = {0};
    DType dtype = DS_U8;
    const H5File view = {.id = file};
    hid_t id = h5_exists(&view, s->dataset) && !h5_is_group(&view, s->dataset) ? H5Dopen2(file, s->dataset, H5P_DEFAULT)
                                                                               : H5I_INVALID_HID;
    bool ok = id >= 0;
    if (ok) {
        hid_t space = H5Dget_space(id), type = H5Dget_type(id);
        ok = H5Sget_simple_extent_ndims(space) == s->ndim && H5Sget_simple_extent_dims(space, shape, NULL) >= 0 &&
             h5_lib_dtype(type, &dtype) && dtype == s->dtype;
        for (int d = 0; ok && d < s->ndim; d++) ok = s->last[d] < shape[d];
        H5Tclose(type);
        H5Sclose(space);
        H5Dclose(id);
    }
    if (ok) return DS_OK;
    return err_set(DS_ERR_DATA, "%s: %s needs %s from %s, which does not hold it with that shape and type", c->path,
                   s->target, s->dataset, shard->path);
}

// All claims on one shard, source[0..n).
static Err check_shard(const H5Check *c, const char *folder, const H5CheckSource *source, int64_t n) {
    Err err = DS_OK;
    int fd = -1;
    int64_t bytes = 0;
    hid_t file = H5I_INVALID_HID;
    char name[32];
    snprintf(name, sizeof name, "%05d.h5", source->shard);
    char *path = mem_printf("%s/%s", folder, name);
    H5Check *shard = MEM_NEW(H5Check, 1);
    DS_CHECK(file_exists(path), DS_ERR_DATA, "%s: its shard %s is missing (%s and others would read as nan)", c->path,
             path, source->target);
    DS_TRY(file_open_inside(folder, name, &fd, &bytes));
    close(fd);
    *shard = (H5Check){.path = path, .bytes = bytes};
    file = h5_lib_open(path);
    DS_CHECK(file >= 0, DS_ERR_DATA, "%s: is not an HDF5 file, or is damaged: %s", path, h5_lib_reason());
    DS_TRY(h5_check_walk(shard, file));
    for (int64_t i = 0; i < n; i++) DS_TRY(check_claim(c, shard, file, &source[i]));
done:
    if (file >= 0) H5Fclose(file);
    mem_free(shard);
    mem_free(path);
    return err;
}

Err h5_vds_check_shards(H5Check *c) {
    Err err = DS_OK;
    struct stat st;
    if (c->n_sources == 0) return DS_OK;
    char *folder = mem_printf("%.*s%s.shards", (int)(strrchr(c->path, '/') + 1 - c->path), c->path, c->stem);
    DS_CHECK(lstat(folder, &st) == 0, DS_ERR_DATA, "%s: its folder of shards %s is missing", c->path, folder);
    DS_CHECK(S_ISDIR(st.st_mode), DS_ERR_DATA, "%s: %s is not a folder (symbolic links are not followed)", c->path,
             folder);
    qsort(c->source, (size_t)c->n_sources, sizeof *c->source, by_shard);
    for (int64_t i = 0, n; i < c->n_sources; i += n) {
        for (n = 1; i + n < c->n_sources && c->source[i + n].shard == c->source[i].shard;) n++;
        DS_TRY(check_shard(c, folder, c->source + i, n));
    }
done:
    mem_free(folder);
    return err;
}
