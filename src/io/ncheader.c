// ncheader.c: walks the header of a classic netCDF file (the grammar of "The netCDF classic format specification"):
//     magic numrecs dims global-attributes vars
//     list: tag count items     name: length bytes     all padded to 4 bytes, big-endian, counts of 4 (CDF-2) or 8
//     bytes (CDF-5)
// It checks bounds only; what the names and values mean is asked of PnetCDF afterwards.
#include "io/ncheader.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum { MAX_HEADER = 1 << 20, TAG_DIM = 10, TAG_VAR = 11, TAG_ATT = 12 };

// Where the walk stands. `bad` stays set once something did not fit; nothing is read after that.
typedef struct {
    const unsigned char *data;
    size_t at, bytes;
    int width; // bytes of a count
    uint64_t n_dims;
    bool bad;
} Walk;

static uint64_t take_number(Walk *w, int width) {
    uint64_t value = 0;
    if (w->bad || w->bytes - w->at < (size_t)width) {
        w->bad = true;
        return 0;
    }
    for (int i = 0; i < width; i++) value = value << 8 | w->data[w->at + (size_t)i];
    w->at += (size_t)width;
    return value;
}

// Skips n items of `size` bytes and the padding to 4.
static void skip(Walk *w, uint64_t n, size_t size) {
    size_t bytes = 0;
    if (w->bad || !mem_mul(n, size, &bytes) || !mem_add(bytes, 3, &bytes) || bytes / 4 * 4 > w->bytes - w->at)
        w->bad = true;
    else w->at += bytes / 4 * 4;
}

// The head of a list: its count, which cannot exceed the bytes that are left.
static uint64_t take_list(Walk *w, uint64_t want_tag) {
    uint64_t tag = take_number(w, 4), n = take_number(w, w->width);
    if (w->bad || n > w->bytes - w->at || (tag != want_tag && (tag != 0 || n != 0))) w->bad = true;
    return w->bad ? 0 : n;
}

static size_t take_type(Walk *w) {
    static const size_t bytes[] = {0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8};
    uint64_t type = take_number(w, 4);
    if (type == 0 || type >= sizeof bytes / sizeof bytes[0] || (type > 6 && w->width == 4)) w->bad = true;
    return w->bad ? 0 : bytes[type];
}

static void skip_name(Walk *w) { skip(w, take_number(w, w->width), 1); }

static void skip_attributes(Walk *w) {
    uint64_t n = take_list(w, TAG_ATT);
    for (uint64_t i = 0; i < n && !w->bad; i++) {
        skip_name(w);
        size_t size = take_type(w);
        skip(w, take_number(w, w->width), size);
    }
}

static void skip_var(Walk *w) {
    skip_name(w);
    uint64_t n_dims = take_number(w, w->width);
    for (uint64_t i = 0; i < n_dims && !w->bad; i++)
        if (take_number(w, w->width) >= w->n_dims) w->bad = true;
    skip_attributes(w);
    take_type(w);
    take_number(w, w->width); // bytes of a record: recomputed by readers
    take_number(w, 8);        // where it begins
}

static void walk_header(Walk *w) {
    w->at = 4;
    take_number(w, w->width); // records
    w->n_dims = take_list(w, TAG_DIM);
    for (uint64_t i = 0; i < w->n_dims && !w->bad; i++) {
        skip_name(w);
        if (take_number(w, w->width) > INT64_MAX) w->bad = true;
    }
    skip_attributes(w);
    uint64_t n_vars = take_list(w, TAG_VAR);
    for (uint64_t i = 0; i < n_vars && !w->bad; i++) skip_var(w);
}

Err ncheader_check(const char *path, int cdf, int64_t *file_bytes) {
    Err err = DS_OK;
    int fd = -1;
    unsigned char *data = NULL;
    DS_TRY(file_open_read(path, &fd, file_bytes));
    size_t bytes = (size_t)ds_min(*file_bytes, MAX_HEADER);
    data = mem_alloc(bytes);
    DS_TRY(file_pread(fd, path, data, bytes, 0));
    DS_CHECK(bytes >= 4 && memcmp(data, "CDF", 3) == 0 && data[3] == cdf, DS_ERR_DATA,
             "%s: not a netCDF file of format CDF-%d", path, cdf);
    Walk w = {.data = data, .bytes = bytes, .width = cdf == 5 ? 8 : 4};
    walk_header(&w);
    DS_CHECK(!w.bad, DS_ERR_DATA, "%s: its netCDF header is damaged near byte %zu", path, w.at);
done:
    if (fd >= 0) close(fd);
    mem_free(data);
    return err;
}
