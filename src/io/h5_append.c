// h5_append.c: data sets that grow, for streams whose length is not known: one chunk is buffered, whole chunks are
// written.
#include <string.h>

#include "base/mem.h"
#include "io/h5_data.h"
#include "io/h5_lib.h"

struct H5Appender {
    H5File *file;
    char *object;
    DType dtype;
    hid_t id;
    int64_t chunk, written, buffered; // elements
    char *buffer;                     // [chunk]
};

static hid_t create_growing(H5File *file, const char *object, DType dtype, int64_t chunk) {
    hsize_t none = 0, unlimited = H5S_UNLIMITED, c = (hsize_t)chunk;
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, &none, &unlimited);
    H5Pset_obj_track_times(dcpl, false);
    H5Pset_chunk(dcpl, 1, &c);
    H5Pset_fletcher32(dcpl);
    hid_t id = H5Dcreate2(file->id, object, h5_lib_type(dtype), space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    H5Sclose(space);
    H5Pclose(dcpl);
    return id;
}

Err h5_appender_open(H5File *file, const char *object, DType dtype, int64_t chunk, H5Appender **appender) {
    Err err = DS_OK;
    char *parent = mem_strdup(object);
    *appender = NULL;
    *strrchr(parent, '/') = 0;
    if (parent[0]) DS_TRY(h5_make_group(file, parent));
    hid_t id = create_growing(file, object, dtype, chunk);
    DS_CHECK(id >= 0, DS_ERR_IO, "%s: cannot create %s: %s", file->path, object, h5_lib_reason());
    H5Appender *a = *appender = MEM_NEW(H5Appender, 1);
    *a = (H5Appender){.file = file, .object = mem_strdup(object), .dtype = dtype, .id = id, .chunk = chunk};
    a->buffer = mem_array(chunk, dtype_bytes(dtype));
done:
    mem_free(parent);
    return h5_lib_judge(file, err);
}

static Err flush(H5Appender *a) {
    Err err = DS_OK;
    if (!a->buffered) return DS_OK;
    hsize_t start = (hsize_t)a->written, n = (hsize_t)a->buffered, size = start + n;
    hid_t memory = H5Screate_simple(1, &n, NULL), space = H5I_INVALID_HID;
    bool ok = H5Dset_extent(a->id, &size) >= 0 && (space = H5Dget_space(a->id)) >= 0 &&
              H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &n, NULL) >= 0 &&
              H5Dwrite(a->id, h5_lib_type(a->dtype), memory, space, H5P_DEFAULT, a->buffer) >= 0;
    DS_CHECK(ok, DS_ERR_IO, "%s: cannot write %s: %s", a->file->path, a->object, h5_lib_reason());
    a->written += a->buffered;
    a->buffered = 0;
done:
    H5Sclose(memory);
    if (space >= 0) H5Sclose(space);
    return h5_lib_judge(a->file, err);
}

Err h5_append(H5Appender *a, const void *data, int64_t count) {
    Err err = DS_OK;
    size_t size = dtype_bytes(a->dtype);
    for (const char *p = data; count > 0;) {
        int64_t n = ds_min(count, a->chunk - a->buffered);
        memcpy(a->buffer + (size_t)a->buffered * size, p, (size_t)n * size);
        a->buffered += n, count -= n, p += (size_t)n * size;
        if (a->buffered == a->chunk) DS_TRY(flush(a));
    }
done:
    return err;
}

int64_t h5_appender_count(const H5Appender *a) { return a->written + a->buffered; }

Err h5_appender_close(H5Appender **appender) {
    H5Appender *a = *appender;
    if (!a) return DS_OK;
    Err err = flush(a);
    if (H5Dclose(a->id) < 0 && !err)
        err = err_set(DS_ERR_IO, "%s: cannot write %s: %s", a->file->path, a->object, h5_lib_reason());
    err = h5_lib_judge(a->file, err);
    mem_free(a->buffer);
    mem_free(a->object);
    mem_free(a);
    *appender = NULL;
    return err;
}
