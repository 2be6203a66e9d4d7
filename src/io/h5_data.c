// h5_data.c: see h5_data.h. A flat range of a row-major tensor is a few boxes: for 2-D the rest of a row, whole rows,
// the start of a row. A strided one is a single box. Conversions are ours, in blocks: the library's own for 16-bit
// floats go bit by bit.
#include "io/h5_data.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "io/f16.h"
#include "io/h5_lib.h"

enum { BLOCK = 1 << 16, DSET_NAME = 300 };

typedef struct {
    hsize_t start[H5_MAX_NDIM], count[H5_MAX_NDIM];
    int64_t elements;
} Box;

static Box strip_box(int64_t cols, H5Runs r) {
    return (Box){.start = {(hsize_t)(r.first / cols), (hsize_t)(r.first % cols)},
                 .count = {(hsize_t)(r.count / r.run), (hsize_t)r.run},
                 .elements = r.count};
}

// The largest box that holds the elements of r from number `done` on, in their order.
static Box next_box(int ndim, const int64_t *shape, H5Runs r, int64_t done) {
    if (h5_runs_strided(r)) return strip_box(shape[1], r);
    Box b = {.elements = 1};
    int64_t inner[H5_MAX_NDIM] = {0}, rest = r.first + done, count = r.count - done;
    for (int d = ndim - 1; d >= 0; d--) inner[d] = d == ndim - 1 ? 1 : inner[d + 1] * shape[d + 1];
    int split = ndim; // the outermost dimension along which whole slices fit
    for (int d = 0; d < ndim; d++) {
        int64_t at = rest / inner[d];
        rest %= inner[d];
        if (split == ndim && rest == 0 && count >= inner[d]) {
            split = d;
            b.count[d] = (hsize_t)ds_min(count / inner[d], shape[d] - at);
        } else {
            b.count[d] = split == ndim ? 1 : (hsize_t)shape[d];
        }
        b.start[d] = (hsize_t)at;
        b.elements *= (int64_t)b.count[d];
    }
    return b;
}

static H5D_layout_t layout_of(hid_t dataset) {
    hid_t dcpl = H5Dget_create_plist(dataset);
    H5D_layout_t layout = dcpl >= 0 ? H5Pget_layout(dcpl) : H5D_LAYOUT_ERROR;
    if (dcpl >= 0) H5Pclose(dcpl);
    return layout;
}

bool h5_is_virtual(const H5File *file, const char *object, DType *dtype) {
    if (!h5_exists(file, object) || h5_is_group(file, object)) return false;
    hid_t id = H5Dopen2(file->id, object, H5P_DEFAULT), type = id >= 0 ? H5Dget_type(id) : H5I_INVALID_HID;
    bool is = type >= 0 && layout_of(id) == H5D_VIRTUAL && h5_lib_dtype(type, dtype);
    if (type >= 0) H5Tclose(type);
    if (id >= 0) H5Dclose(id);
    return is;
}

static Err open_dataset(const H5File *file, const char *object, hid_t *id, H5Info *info) {
    Err err = DS_OK;
    hsize_t shape[H5S_MAX_RANK];
    *id = H5I_INVALID_HID;
    *info = (H5Info){.shape = {1, 1, 1, 1}, .count = 1};
    DS_CHECK(h5_exists(file, object) && !h5_is_group(file, object), DS_ERR_DATA, "%s: has no data set %s", file->path,
             object);
    *id = H5Dopen2(file->id, object, H5P_DEFAULT);
    DS_CHECK(*id >= 0, DS_ERR_DATA, "%s: cannot open %s: %s", file->path, object, h5_lib_reason());
    DS_CHECK(layout_of(*id) != H5D_VIRTUAL, DS_ERR_DATA,
             "%s: %s is a virtual data set, which is read in models of this program only; h5repack -l CONTI FILE NEW "
             "makes one file of it",
             file->path, object);
    hid_t space = H5Dget_space(*id), type = H5Dget_type(*id);
    bool known = h5_lib_dtype(type, &info->dtype);
    info->ndim = H5Sget_simple_extent_dims(space, shape, NULL);
    H5Tclose(type);
    H5Sclose(space);
    DS_CHECK(known, DS_ERR_DATA, "%s: %s has a type that is not fp16, bf16, fp32, fp64, int32, int64, uint8 or uint32",
             file->path, object);
    DS_CHECK(info->ndim >= 0 && info->ndim <= H5_MAX_NDIM, DS_ERR_DATA,
             "%s: %s has %d dimensions, at most %d are expected", file->path, object, info->ndim, H5_MAX_NDIM);
    for (int d = 0; d < info->ndim; d++) info->shape[d] = (int64_t)shape[d], info->count *= info->shape[d];
done:
    if (err && *id >= 0) H5Dclose(*id), *id = H5I_INVALID_HID;
    return err;
}

Err h5_info(const H5File *file, const char *object, H5Info *info) {
    hid_t id;
    Err err = open_dataset(file, object, &id, info);
    if (!err) H5Dclose(id);
    return h5_lib_judge(file, err);
}

Err h5_offset(const H5File *file, const char *object, int64_t *offset) {
    Err err = DS_OK;
    hid_t id;
    H5Info info;
    DS_TRY(open_dataset(file, object, &id, &info));
    haddr_t at = H5Dget_offset(id);
    H5Dclose(id);
    DS_CHECK(at != HADDR_UNDEF, DS_ERR_BUG, "%s: %s has no place in the file yet", file->path, object);
    *offset = (int64_t)at;
done:
    return h5_lib_judge(file, err);
}

// Reads or writes elements in the stored type, box by box. data: [r.count].
static bool transfer(hid_t id, const H5Info *info, bool write, H5Runs r, char *data) {
    bool ok = true;
    hid_t type = h5_lib_type(info->dtype), space = H5Dget_space(id);
    for (int64_t done = 0; ok && done < r.count;) {
        Box b = next_box(info->ndim, info->shape, r, done);
        hsize_t n = (hsize_t)b.elements;
        hid_t memory = H5Screate_simple(1, &n, NULL);
        if (info->ndim) ok = H5Sselect_hyperslab(space, H5S_SELECT_SET, b.start, NULL, b.count, NULL) >= 0;
        if (ok)
            ok = (write ? H5Dwrite(id, type, memory, space, H5P_DEFAULT, data)
                        : H5Dread(id, type, memory, space, H5P_DEFAULT, data)) >= 0;
        H5Sclose(memory);
        data += (size_t)b.elements * dtype_bytes(info->dtype);
        done += b.elements;
    }
    H5Sclose(space);
    return ok;
}

// ---- reading with conversion ----

static float float_at(DType t, const void *x, int64_t i) {
    if (t == DS_BF16) return bf16_to_f32(((const uint16_t *)x)[i]);
    if (t == DS_F16) return f16_to_f32(((const uint16_t *)x)[i]);
    return ((const float *)x)[i];
}

static int64_t integer_at(DType t, const void *x, int64_t i) {
    if (t == DS_U8) return ((const uint8_t *)x)[i];
    if (t == DS_I32) return ((const int32_t *)x)[i];
    return ((const uint32_t *)x)[i];
}

bool h5_can_convert(DType from, DType to) {
    if (from == to) return true;
    bool small_float = from == DS_F32 || from == DS_BF16 || from == DS_F16;
    if (to == DS_F32 || to == DS_BF16) return small_float;
    return to == DS_I64 && (from == DS_U8 || from == DS_I32 || from == DS_U32);
}

void h5_convert(DType from, const void *in, DType to, void *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (to == DS_F32) ((float *)out)[i] = float_at(from, in, i);
        else if (to == DS_BF16) ((uint16_t *)out)[i] = f32_to_bf16(float_at(from, in, i));
        else ((int64_t *)out)[i] = integer_at(from, in, i);
    }
}

static bool read_converted(hid_t id, const H5Info *info, DType as, H5Runs r, char *out) {
    bool ok = true;
    void *block = mem_array(BLOCK, dtype_bytes(info->dtype));
    int64_t cols = h5_runs_cols(info->ndim, info->shape);
    for (int64_t at = 0; ok && at < r.count;) {
        H5Runs part = h5_runs_part(r, cols, at, BLOCK);
        ok = transfer(id, info, false, part, block);
        if (ok) h5_convert(info->dtype, block, as, out + (size_t)at * dtype_bytes(as), part.count);
        at += part.count;
    }
    mem_free(block);
    return ok;
}

Err h5_check_range(const H5File *file, const char *object, const H5Info *info, H5Runs r, Err code) {
    if (h5_runs_ok(r, info->count, h5_runs_cols(info->ndim, info->shape))) return DS_OK;
    return err_set(code, "%s: %s has %lld elements, asked for %lld from %lld on, in runs of %lld (0: one)", file->path,
                   object, (long long)info->count, (long long)r.count, (long long)r.first, (long long)r.run);
}

Err h5_read_runs(const H5File *file, const char *object, DType as, H5Runs r, void *out) {
    Err err = DS_OK;
    hid_t id = H5I_INVALID_HID;
    H5Info info;
    DS_TRY(open_dataset(file, object, &id, &info));
    DS_TRY(h5_check_range(file, object, &info, r, DS_ERR_DATA));
    DS_CHECK(h5_can_convert(info.dtype, as), DS_ERR_DATA, "%s: %s holds %s, expected %s", file->path, object,
             dtype_name(info.dtype), dtype_name(as));
    bool ok = as == info.dtype ? transfer(id, &info, false, r, out) : read_converted(id, &info, as, r, out);
    DS_CHECK(ok, DS_ERR_DATA, "%s: cannot read %s: %s", file->path, object, h5_lib_reason());
done:
    if (id >= 0) H5Dclose(id);
    return h5_lib_judge(file, err);
}

Err h5_read(const H5File *file, const char *object, DType as, int64_t first, int64_t count, void *out) {
    return h5_read_runs(file, object, as, (H5Runs){first, count, 0}, out);
}

// ---- writing ----

// The group of `object` exists afterwards.
static Err make_parent(H5File *file, const char *object) {
    char *parent = mem_strdup(object);
    *strrchr(parent, '/') = 0;
    Err err = parent[0] ? h5_make_group(file, parent) : DS_OK;
    mem_free(parent);
    return err;
}

// Creates a data set by `dcpl` (which is closed) and closes it.
static Err create(H5File *file, const char *object, DType dtype, int ndim, const int64_t *shape, hid_t dcpl) {
    Err err = DS_OK;
    hsize_t dims[H5_MAX_NDIM] = {0};
    size_t bytes = dtype_bytes(dtype);
    hid_t space = H5I_INVALID_HID, id = H5I_INVALID_HID;
    bool fits = ndim >= 0 && ndim <= H5_MAX_NDIM;
    for (int d = 0; fits && d < ndim; d++) {
        dims[d] = (hsize_t)shape[d];
        fits = shape[d] >= 0 && mem_mul(bytes, (size_t)shape[d], &bytes) && bytes <= INT64_MAX;
    }
    DS_CHECK(fits, DS_ERR_DATA, "%s: the shape of %s is not possible", file->path, object);
    DS_TRY(make_parent(file, object));
    space = ndim ? H5Screate_simple(ndim, dims, NULL) : H5Screate(H5S_SCALAR);
    H5Pset_obj_track_times(dcpl, false);
    id = H5Dcreate2(file->id, object, h5_lib_type(dtype), space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    DS_CHECK(id >= 0 && H5Dclose(id) >= 0, DS_ERR_IO, "%s: cannot create %s: %s", file->path, object, h5_lib_reason());
done:
    if (space >= 0) H5Sclose(space);
    H5Pclose(dcpl);
    return h5_lib_judge(file, err);
}

Err h5_dataset_create(H5File *file, const char *object, DType dtype, int ndim, const int64_t *shape) {
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER);
    return create(file, object, dtype, ndim, shape, dcpl);
}

Err h5_write_runs(H5File *file, const char *object, H5Runs r, const void *data) {
    Err err = DS_OK;
    hid_t id = H5I_INVALID_HID;
    H5Info info;
    DS_TRY(open_dataset(file, object, &id, &info));
    DS_TRY(h5_check_range(file, object, &info, r, DS_ERR_BUG));
    bool ok = transfer(id, &info, true, r, (char *)(uintptr_t)data);
    DS_CHECK(ok, DS_ERR_IO, "%s: cannot write %s: %s", file->path, object, h5_lib_reason());
done:
    if (id >= 0 && H5Dclose(id) < 0 && !err)
        err = err_set(DS_ERR_IO, "%s: cannot write %s: %s", file->path, object, h5_lib_reason());
    return h5_lib_judge(file, err);
}

Err h5_write(H5File *file, const char *object, int64_t first, int64_t count, const void *data) {
    return h5_write_runs(file, object, (H5Runs){first, count, 0}, data);
}

Err h5_write_new(H5File *file, const char *object, DType dtype, int ndim, const int64_t *shape, const void *data) {
    int64_t count = 1;
    for (int d = 0; d < ndim; d++) count *= shape[d];
    Err err = h5_dataset_create(file, object, dtype, ndim, shape);
    return err ? err : h5_write(file, object, 0, count, data);
}

// ---- virtual data sets ----

static void set_fill(hid_t dcpl, DType dtype) {
    const uint16_t bf16_nan = 0x7fc0, f16_nan = 0x7e00;
    const float f32_nan = __builtin_nanf("");
    const double f64_nan = __builtin_nan("");
    const void *nan = dtype == DS_BF16  ? (const void *)&bf16_nan
                      : dtype == DS_F16 ? (const void *)&f16_nan
                      : dtype == DS_F32 ? (const void *)&f32_nan
                      : dtype == DS_F64 ? (const void *)&f64_nan
                                        : NULL;
    if (nan) H5Pset_fill_value(dcpl, h5_lib_type(dtype), nan);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// One source as one mapping a box.
static bool map_source(hid_t dcpl, hid_t whole, int ndim, const int64_t *shape, const char *stem, const H5Source *s) {
    bool ok = true;
    hsize_t n = (hsize_t)s->runs.count;
    char name[DSET_NAME];
    snprintf(name, sizeof name, "%.250s.shards/%05d.h5", stem, s->shard);
    hid_t source = H5Screate_simple(1, &n, NULL);
    for (int64_t done = 0; ok && done < s->runs.count;) {
        Box b = next_box(ndim, shape, s->runs, done);
        hsize_t at = (hsize_t)done, run = (hsize_t)b.elements;
        ok = H5Sselect_hyperslab(whole, H5S_SELECT_SET, b.start, NULL, b.count, NULL) >= 0 &&
             H5Sselect_hyperslab(source, H5S_SELECT_SET, &at, NULL, &run, NULL) >= 0 &&
             H5Pset_virtual(dcpl, whole, name, s->dataset, source) >= 0;
        done += b.elements;
    }
    H5Sclose(source);
    return ok;
}

// The sources tile the whole, and the file has a name that shards can follow. DS_ERR_BUG.
static Err check_sources(const H5File *file, const char *object, int ndim, const int64_t *shape,
                         const H5Source *sources, int64_t n) {
    Err err = DS_OK;
    char words[H5_RUNS_WORDS];
    const char *base = base_name(file->path);
    size_t name_bytes = strlen(base);
    int64_t total = 1;
    H5Runs *runs = MEM_NEW(H5Runs, n);
    for (int d = 0; d < ndim; d++) total *= shape[d];
    for (int64_t i = 0; i < n; i++) runs[i] = sources[i].runs;
    DS_CHECK(h5_runs_tile(total, h5_runs_cols(ndim, shape), runs, n, words), DS_ERR_BUG, "%s: the parts of %s %s",
             file->path, object, words);
    DS_CHECK(name_bytes > 3 && !strcmp(base + name_bytes - 3, ".h5"), DS_ERR_BUG,
             "%s: the name of a file with virtual data sets ends in .h5", file->path);
done:
    mem_free(runs);
    return err;
}

Err h5_write_virtual(H5File *file, const char *object, DType dtype, int ndim, const int64_t *shape,
                     const H5Source *sources, int64_t n_sources) {
    hsize_t dims[H5_MAX_NDIM] = {0};
    const char *base = base_name(file->path);
    Err err = check_sources(file, object, ndim, shape, sources, n_sources);
    if (err) return err;
    for (int d = 0; d < ndim; d++) dims[d] = (hsize_t)shape[d];
    char *stem = mem_strndup(base, strlen(base) - 3);
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE), whole = H5Screate_simple(ndim, dims, NULL);
    set_fill(dcpl, dtype);
    for (int64_t i = 0; i < n_sources; i++)
        if (!map_source(dcpl, whole, ndim, shape, stem, &sources[i])) err = DS_ERR_IO;
    H5Sclose(whole);
    mem_free(stem);
    if (!err) return create(file, object, dtype, ndim, shape, dcpl);
    H5Pclose(dcpl);
    return err_set(DS_ERR_IO, "%s: cannot map %s: %s", file->path, object, h5_lib_reason());
}
