// h5_attr.c: see h5_attr.h. Strings have fixed length: reading a variable-length one from a crafted file overruns the
// library's buffers.
#include "io/h5_attr.h"

#include <string.h>

#include "base/mem.h"
#include "io/h5_lib.h"

static Err put(H5File *file, const char *object, const char *name, hid_t type, const void *value) {
    Err err = DS_OK;
    hid_t space = H5Screate(H5S_SCALAR), attr = H5I_INVALID_HID;
    hid_t id = H5Oopen(file->id, object, H5P_DEFAULT);
    if (id >= 0) attr = H5Acreate2(id, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    DS_CHECK(attr >= 0 && H5Awrite(attr, type, value) >= 0, DS_ERR_IO, "%s: cannot write attribute %s of %s: %s",
             file->path, name, object, h5_lib_reason());
done:
    if (attr >= 0 && H5Aclose(attr) < 0 && !err)
        err = err_set(DS_ERR_IO, "%s: cannot write attribute %s of %s: %s", file->path, name, object, h5_lib_reason());
    if (id >= 0) H5Oclose(id);
    H5Sclose(space);
    return h5_lib_judge(file, err);
}

Err h5_attr_put_i64(H5File *file, const char *object, const char *name, int64_t value) {
    return put(file, object, name, H5T_STD_I64LE, &value);
}

Err h5_attr_put_f64(H5File *file, const char *object, const char *name, double value) {
    return put(file, object, name, H5T_IEEE_F64LE, &value);
}

Err h5_attr_put_str(H5File *file, const char *object, const char *name, const char *value) {
    size_t n = strlen(value);
    if (n > H5_ATTR_MAX_BYTES)
        return err_set(DS_ERR_DATA, "%s: attribute %s of %s would have %zu bytes, at most %d are allowed", file->path,
                       name, object, n, H5_ATTR_MAX_BYTES);
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, n ? n : 1);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    Err err = put(file, object, name, type, value);
    H5Tclose(type);
    return err;
}

bool h5_attr_exists(const H5File *file, const char *object, const char *name) {
    return h5_exists(file, object) && H5Aexists_by_name(file->id, object, name, H5P_DEFAULT) > 0;
}

// Opens a scalar attribute and its type. Handles are valid only without error.
static Err open_scalar(const H5File *file, const char *object, const char *name, hid_t *attr, hid_t *type) {
    Err err = DS_OK;
    *attr = *type = H5I_INVALID_HID;
    DS_CHECK(h5_attr_exists(file, object, name), DS_ERR_DATA, "%s: %s has no attribute %s", file->path, object, name);
    *attr = H5Aopen_by_name(file->id, object, name, H5P_DEFAULT, H5P_DEFAULT);
    DS_CHECK(*attr >= 0, DS_ERR_DATA, "%s: cannot open attribute %s of %s: %s", file->path, name, object,
             h5_lib_reason());
    hid_t space = H5Aget_space(*attr);
    hssize_t n = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    if (space >= 0) H5Sclose(space);
    *type = H5Aget_type(*attr);
    DS_CHECK(*type >= 0 && n == 1, DS_ERR_DATA, "%s: attribute %s of %s has %lld values, expected one", file->path,
             name, object, (long long)n);
done:
    return err;
}

static void close_both(hid_t attr, hid_t type) {
    if (type >= 0) H5Tclose(type);
    if (attr >= 0) H5Aclose(attr);
}

static Err get_number(const H5File *file, const char *object, const char *name, bool real, void *value) {
    Err err = DS_OK;
    hid_t attr, type;
    DS_TRY(open_scalar(file, object, name, &attr, &type));
    H5T_class_t class = H5Tget_class(type);
    DS_CHECK(h5_lib_plain(type) && (class == H5T_INTEGER || real), DS_ERR_DATA, "%s: attribute %s of %s is not %s",
             file->path, name, object, real ? "a number" : "an integer");
    DS_CHECK(H5Aread(attr, real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64, value) >= 0, DS_ERR_DATA,
             "%s: cannot read attribute %s of %s: %s", file->path, name, object, h5_lib_reason());
done:
    close_both(attr, type);
    return h5_lib_judge(file, err);
}

Err h5_attr_get_i64(const H5File *file, const char *object, const char *name, int64_t *value) {
    return get_number(file, object, name, false, value);
}

Err h5_attr_get_f64(const H5File *file, const char *object, const char *name, double *value) {
    return get_number(file, object, name, true, value);
}

Err h5_attr_get_str(const H5File *file, const char *object, const char *name, char **value) {
    Err err = DS_OK;
    hid_t attr, type;
    *value = NULL;
    DS_TRY(open_scalar(file, object, name, &attr, &type));
    DS_CHECK(H5Tget_class(type) == H5T_STRING, DS_ERR_DATA, "%s: attribute %s of %s is not a string", file->path, name,
             object);
    DS_CHECK(H5Tis_variable_str(type) == 0, DS_ERR_DATA,
             "%s: attribute %s of %s is a string of variable length; store it with fixed length", file->path, name,
             object);
    size_t n = H5Tget_size(type);
    DS_CHECK(n > 0 && n <= H5_ATTR_MAX_BYTES, DS_ERR_DATA,
             "%s: attribute %s of %s has %zu bytes, at most %d are allowed", file->path, name, object, n,
             H5_ATTR_MAX_BYTES);
    *value = mem_alloc(n + 1);
    DS_CHECK(H5Aread(attr, type, *value) >= 0, DS_ERR_DATA, "%s: cannot read attribute %s of %s: %s", file->path, name,
             object, h5_lib_reason());
done:
    close_both(attr, type);
    err = h5_lib_judge(file, err);
    if (err) MEM_FREE(*value);
    return err;
}

static herr_t add_name(hid_t object, const char *name, const H5A_info_t *info, void *out) {
    (void)object, (void)info;
    H5Names *names = out;
    names->name = mem_grow(names->name, names->n, names->n + 1, sizeof(char *));
    names->name[names->n++] = mem_strdup(name);
    return 0;
}

Err h5_attr_list(const H5File *file, const char *object, H5Names *names) {
    *names = (H5Names){0};
    if (h5_exists(file, object) &&
        H5Aiterate_by_name(file->id, object, H5_INDEX_NAME, H5_ITER_INC, NULL, add_name, names, H5P_DEFAULT) >= 0)
        return h5_trouble(file);
    h5_names_free(names);
    return h5_lib_judge(
        file, err_set(DS_ERR_DATA, "%s: cannot list the attributes of %s: %s", file->path, object, h5_lib_reason()));
}
