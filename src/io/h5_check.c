// h5_check.c: the visit of every object of an HDF5 file before anything of it is believed or read.
//
// Order matters: links are judged before they are followed, a data set's creation properties (storage, filters) before
// its extent is asked for (of a growing virtual set that would open its sources, which may be any file of the victim's:
// a virtual set is not asked, and never read), counts before anything that loops over them. What it cannot do: make the
// library itself safe against damage inside its own structures. So it runs in a process of its own (h5_inspect.h), and
// tries there what a reader would do: every attribute, and an element of every data set.
#include "io/h5_check.h"

#include <string.h>

#include "base/mem.h"
#include "io/h5_attr.h"

enum { MAX_DEPTH = 16, MAX_OBJECTS = 1 << 20, MAX_ATTRIBUTES = 1 << 17 };

#define REFUSE(c, ...) ((c)->err = err_set(DS_ERR_DATA, __VA_ARGS__))

static const char *class_name(H5T_class_t class) {
    static const char *const names[] = {"integer",     "float",           "time",     "string",
                                        "bit field",   "opaque",          "compound", "reference",
                                        "enumeration", "variable-length", "array"};
    return class >= 0 && class < DS_COUNT(names) ? names[class] : "unknown";
}

// ---- attributes ----

typedef struct {
    H5Check *c;
    int64_t n;
} AttributeVisit;

static bool attribute_type_ok(hid_t type) {
    if (H5Tcommitted(type) != 0) return false;
    return H5Tget_class(type) == H5T_STRING || h5_lib_plain(type);
}

// Strings of variable length are left alone.
static bool try_attribute(hid_t attr, hid_t type) {
    hsize_t bytes = H5Aget_storage_size(attr);
    if (H5Tis_variable_str(type) != 0 || bytes > H5_ATTR_MAX_BYTES) return true;
    void *value = mem_alloc(bytes);
    bool ok = H5Aread(attr, type, value) >= 0;
    mem_free(value);
    return ok;
}

static herr_t visit_attribute(hid_t object, const char *name, const H5A_info_t *info, void *context) {
    AttributeVisit *v = context;
    H5Check *c = v->c;
    if (++v->n > MAX_ATTRIBUTES || info->data_size > H5_ATTR_MAX_BYTES) {
        REFUSE(c, "%s: %s has more than %d attributes, or one larger than %d bytes", c->path, c->object, MAX_ATTRIBUTES,
               H5_ATTR_MAX_BYTES);
        return -1;
    }
    hid_t attr = H5Aopen(object, name, H5P_DEFAULT);
    hid_t type = attr >= 0 ? H5Aget_type(attr) : H5I_INVALID_HID;
    if (type < 0) REFUSE(c, "%s: an attribute of %s is damaged: %s", c->path, c->object, h5_lib_reason());
    else if (!attribute_type_ok(type))
        REFUSE(c, "%s: attribute %.80s of %s has the type %s; expected an integer, a float or a string", c->path, name,
               c->object, class_name(H5Tget_class(type)));
    else if (!try_attribute(attr, type))
        REFUSE(c, "%s: attribute %.80s of %s cannot be read: %s", c->path, name, c->object, h5_lib_reason());
    if (type >= 0) H5Tclose(type);
    if (attr >= 0) H5Aclose(attr);
    return c->err ? -1 : 0;
}

static Err check_attributes(H5Check *c, hid_t object) {
    AttributeVisit v = {.c = c};
    if (H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit_attribute, &v) < 0 && !c->err)
        REFUSE(c, "%s: the attributes of %s are damaged: %s", c->path, c->object, h5_lib_reason());
    return c->err;
}

// ---- data sets ----

static Err check_filters(H5Check *c, hid_t dcpl) {
    int n = H5Pget_nfilters(dcpl), before = 0;
    for (int i = 0; i < n; i++) {
        unsigned flags = 0;
        size_t values = 0;
        char name[64] = "";
        H5Z_filter_t id = H5Pget_filter2(dcpl, (unsigned)i, &flags, &values, NULL, sizeof name - 1, name, NULL);
        int place = id == H5Z_FILTER_SHUFFLE ? 1 : id == H5Z_FILTER_DEFLATE ? 2 : id == H5Z_FILTER_FLETCHER32 ? 3 : 0;
        if (!place)
            return REFUSE(c, "%s: %s uses filter %d (%s); only shuffle, deflate and fletcher32 are accepted", c->path,
                          c->object, id, name);
        // What deflate gives back could be more than was checked, if another filter came between.
        if (place <= before)
            return REFUSE(c, "%s: %s uses filter %d (%s) twice, or not in the order shuffle, deflate, fletcher32",
                          c->path, c->object, id, name);
        before = place;
    }
    return DS_OK;
}

// The shape of a data set and its bytes by checked arithmetic.
static Err get_shape(H5Check *c, hid_t dataset, int *ndim, hsize_t *shape, size_t type_bytes, size_t *bytes) {
    hid_t space = H5Dget_space(dataset);
    H5S_class_t class = space >= 0 ? H5Sget_simple_extent_type(space) : H5S_NO_CLASS;
    *ndim = class == H5S_SIMPLE ? H5Sget_simple_extent_dims(space, shape, NULL) : 0;
    if (space >= 0) H5Sclose(space);
    if (class != H5S_SCALAR && (class != H5S_SIMPLE || *ndim < 0))
        return REFUSE(c, "%s: %s has no simple shape", c->path, c->object);
    *bytes = type_bytes;
    bool fits = true;
    for (int d = 0; d < *ndim; d++) fits = fits && mem_mul(*bytes, (size_t)shape[d], bytes);
    if (!fits || *bytes > INT64_MAX) return REFUSE(c, "%s: the shape of %s overflows", c->path, c->object);
    return DS_OK;
}

static Err check_contiguous(H5Check *c, hid_t dataset, size_t bytes) {
    if (bytes == 0) return DS_OK;
    haddr_t at = H5Dget_offset(dataset);
    hsize_t stored = H5Dget_storage_size(dataset);
    uint64_t room = (uint64_t)c->bytes;
    if (at == HADDR_UNDEF || stored == 0) return REFUSE(c, "%s: %s was never written", c->path, c->object);
    if (stored != bytes || at > room || stored > room - at)
        return REFUSE(c, "%s: %s has %zu bytes by its shape, %llu stored at byte %llu of a file of %llu", c->path,
                      c->object, bytes, (unsigned long long)stored, (unsigned long long)at, (unsigned long long)room);
    return DS_OK;
}

static Err check_layout(H5Check *c, hid_t dataset, hid_t dcpl, hid_t type) {
    hsize_t shape[H5S_MAX_RANK] = {0};
    int ndim = 0;
    size_t bytes = 0, type_bytes = H5Tget_size(type);
    H5D_layout_t layout = H5Pget_layout(dcpl);
    if (layout == H5D_VIRTUAL) return DS_OK;
    if (get_shape(c, dataset, &ndim, shape, type_bytes, &bytes)) return c->err;
    switch (layout) {
    case H5D_COMPACT:
        if (H5Dget_storage_size(dataset) == bytes) return DS_OK;
        return REFUSE(c, "%s: %s is damaged: its shape and its bytes differ", c->path, c->object);
    case H5D_CONTIGUOUS: return check_contiguous(c, dataset, bytes);
    case H5D_CHUNKED: return c->err = h5_chunks_check(c, dataset, dcpl, ndim, shape, type_bytes);
    default: return REFUSE(c, "%s: %s has an unknown storage layout", c->path, c->object);
    }
}

// Everything that may be asked before the extent: no external files, known filters.
static Err check_properties(H5Check *c, hid_t dcpl) {
    int external = H5Pget_external_count(dcpl);
    if (external != 0)
        return REFUSE(c, "%s: %s keeps its data in an external file, which is not accepted", c->path, c->object);
    return H5Pget_layout(dcpl) == H5D_VIRTUAL ? DS_OK : check_filters(c, dcpl);
}

// The first element, through all filters.
static Err try_element(H5Check *c, hid_t dataset, hid_t dcpl, hid_t type) {
    hsize_t shape[H5S_MAX_RANK] = {0}, at[H5S_MAX_RANK] = {0}, one[H5S_MAX_RANK];
    char value[64] = "";
    if (H5Pget_layout(dcpl) == H5D_VIRTUAL) return DS_OK;
    hid_t space = H5Dget_space(dataset), memory = H5Screate(H5S_SCALAR);
    int ndim = H5Sget_simple_extent_dims(space, shape, NULL);
    for (int d = 0; d < H5S_MAX_RANK; d++) one[d] = 1;
    bool ok = H5Sget_simple_extent_npoints(space) == 0 ||
              ((ndim < 1 || H5Sselect_hyperslab(space, H5S_SELECT_SET, at, NULL, one, NULL) >= 0) &&
               H5Dread(dataset, type, memory, space, H5P_DEFAULT, value) >= 0);
    H5Sclose(space), H5Sclose(memory);
    return ok ? DS_OK : REFUSE(c, "%s: %s cannot be read: %s", c->path, c->object, h5_lib_reason());
}

static Err check_dataset(H5Check *c, hid_t dataset) {
    hid_t dcpl = H5Dget_create_plist(dataset), type = H5Dget_type(dataset);
    if (dcpl < 0 || type < 0) REFUSE(c, "%s: %s is damaged: %s", c->path, c->object, h5_lib_reason());
    else if (!h5_lib_plain(type) || H5Tcommitted(type) != 0)
        REFUSE(c, "%s: %s has elements of type %s; expected plain integers, fp16, bf16, fp32 or fp64", c->path,
               c->object, class_name(H5Tget_class(type)));
    else if (!check_properties(c, dcpl) && !check_layout(c, dataset, dcpl, type)) try_element(c, dataset, dcpl, type);
    if (type >= 0) H5Tclose(type);
    if (dcpl >= 0) H5Pclose(dcpl);
    return c->err;
}

// ---- groups ----

static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *info, void *context);

static Err check_group(H5Check *c, hid_t group) {
    if (c->depth >= MAX_DEPTH)
        return REFUSE(c, "%.200s: groups lie more than %d deep (links in a circle?)", c->path, MAX_DEPTH);
    c->depth++;
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit_link, c) < 0 && !c->err)
        REFUSE(c, "%s: group %s is damaged: %s", c->path, c->object[0] ? c->object : "/", h5_lib_reason());
    c->depth--;
    return c->err;
}

static Err check_object(H5Check *c, hid_t object) {
    if (++c->objects > MAX_OBJECTS) return REFUSE(c, "%s: holds more than %d objects", c->path, MAX_OBJECTS);
    if (check_attributes(c, object)) return c->err;
    switch (H5Iget_type(object)) {
    case H5I_GROUP: return check_group(c, object);
    case H5I_DATASET: return check_dataset(c, object);
    default: return REFUSE(c, "%s: %s is neither a group nor a data set", c->path, c->object);
    }
}

static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *info, void *context) {
    H5Check *c = context;
    size_t n = strlen(c->object), room = sizeof c->object - n;
    const char *kind = info->type == H5L_TYPE_SOFT       ? "soft"
                       : info->type == H5L_TYPE_EXTERNAL ? "external"
                                                         : "user-defined";
    if (!h5_name_ok(name) || strlen(name) + 2 > room)
        return REFUSE(c, "%s: a name in group %s is too long or not plain text", c->path, n ? c->object : "/"), -1;
    c->object[n] = '/';
    memcpy(c->object + n + 1, name, strlen(name) + 1);
    if (info->type != H5L_TYPE_HARD)
        return REFUSE(c, "%s: %s is a link of %s kind, which is not accepted", c->path, c->object, kind), -1;
    hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    if (object < 0) REFUSE(c, "%s: %s is damaged: %s", c->path, c->object, h5_lib_reason());
    else {
        check_object(c, object);
        H5Oclose(object);
    }
    c->object[n] = 0;
    return c->err ? -1 : 0;
}

static void check_root(H5Check *c, hid_t file) {
    hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
    if (root < 0) REFUSE(c, "%s: its root group is damaged: %s", c->path, h5_lib_reason());
    else {
        check_object(c, root);
        H5Gclose(root);
    }
}

Err h5_check_file(hid_t file, const char *path, int64_t bytes) {
    H5Check *c = MEM_NEW(H5Check, 1);
    *c = (H5Check){.path = path, .bytes = bytes};
    check_root(c, file);
    Err err = c->err;
    mem_free(c);
    return err;
}
