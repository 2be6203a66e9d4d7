// h5_chunks.c: chunked data sets: every chunk is there, together they have the bytes that the shape asks for, and a
// compressed one inflates to its chunk's size, not more. The library would let a crafted chunk inflate until memory
// ends.
#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "io/h5_check.h"

enum { MAX_CHUNK_BYTES = 1 << 28, MAX_DEFLATED_CHUNKS = 1 << 16, WINDOW = 1 << 16 };

// What a chunk may have beyond its elements: a checksum before, and one after compression.
enum { EXTRA = 8 };

static int find_filter(hid_t dcpl, H5Z_filter_t wanted) {
    int n = H5Pget_nfilters(dcpl);
    for (int i = 0; i < n; i++) {
        unsigned flags = 0;
        size_t values = 0;
        if (H5Pget_filter2(dcpl, (unsigned)i, &flags, &values, NULL, 0, NULL, NULL) == wanted) return i;
    }
    return -1;
}

// Whether `data` inflates, whole and to at most `limit` bytes.
static bool inflates_within(const void *data, size_t bytes, size_t limit) {
    unsigned char window[WINDOW];
    z_stream z = {.next_in = (Bytef *)data, .avail_in = (uInt)bytes};
    if (inflateInit(&z) != Z_OK) return false;
    size_t total = 0;
    int status = Z_OK;
    while (status == Z_OK && total <= limit) {
        z.next_out = window, z.avail_out = WINDOW;
        status = inflate(&z, Z_NO_FLUSH);
        total += WINDOW - z.avail_out;
    }
    inflateEnd(&z);
    return status == Z_STREAM_END && total <= limit;
}

static Err check_one(const H5Check *c, hid_t dataset, hsize_t index, int deflate_at, size_t chunk_bytes) {
    Err err = DS_OK;
    hsize_t offset[H5S_MAX_RANK] = {0}, stored = 0;
    unsigned mask = 0;
    haddr_t at = HADDR_UNDEF;
    void *raw = NULL;
    hid_t all = H5Dget_space(dataset);
    herr_t got = H5Dget_chunk_info(dataset, all, index, offset, &mask, &at, &stored);
    H5Sclose(all);
    DS_CHECK(got >= 0 && at != HADDR_UNDEF && stored <= (hsize_t)c->bytes && at <= (hsize_t)c->bytes - stored,
             DS_ERR_DATA, "%s: chunk %llu of %s lies outside the file", c->path, (unsigned long long)index, c->object);
    bool plain = mask & (1u << deflate_at); // the writer found that it does not shrink
    DS_CHECK(stored <= 2 * (hsize_t)chunk_bytes + 1024 && (!plain || stored <= chunk_bytes + EXTRA), DS_ERR_DATA,
             "%s: chunk %llu of %s has %llu bytes stored for %zu", c->path, (unsigned long long)index, c->object,
             (unsigned long long)stored, chunk_bytes);
    if (plain) goto done;
    raw = mem_alloc(stored);
    uint32_t filters = 0;
    DS_CHECK(H5Dread_chunk(dataset, H5P_DEFAULT, offset, &filters, raw) >= 0, DS_ERR_DATA, "%s: %s cannot be read: %s",
             c->path, c->object, h5_lib_reason());
    DS_CHECK(inflates_within(raw, stored, chunk_bytes + EXTRA), DS_ERR_DATA,
             "%s: chunk %llu of %s is damaged, or inflates to more than its %zu bytes", c->path,
             (unsigned long long)index, c->object, chunk_bytes);
done:
    mem_free(raw);
    return err;
}

// Elements of a chunk in bytes, and how many chunks the shape has. false: not sane for a file of this size.
static bool count_chunks(const H5Check *c, hid_t dcpl, int ndim, const hsize_t *shape, size_t *chunk_bytes,
                         size_t *chunks) {
    hsize_t chunk[H5S_MAX_RANK];
    if (H5Pget_chunk(dcpl, H5S_MAX_RANK, chunk) != ndim) return false;
    *chunks = 1;
    for (int d = 0; d < ndim; d++) {
        if (chunk[d] == 0 || !mem_mul(*chunk_bytes, (size_t)chunk[d], chunk_bytes)) return false;
        size_t along = (size_t)(shape[d] / chunk[d] + (shape[d] % chunk[d] != 0));
        if (!mem_mul(*chunks, along, chunks)) return false;
    }
    return *chunk_bytes <= MAX_CHUNK_BYTES && *chunks <= (uint64_t)c->bytes; // each needs at least a byte
}

Err h5_chunks_check(const H5Check *c, hid_t dataset, hid_t dcpl, int ndim, const hsize_t *shape, size_t type_bytes) {
    Err err = DS_OK;
    size_t chunk_bytes = type_bytes, chunks = 0, wanted = 0;
    hsize_t there = 0, stored = 0;
    hid_t all = H5I_INVALID_HID;
    DS_CHECK(count_chunks(c, dcpl, ndim, shape, &chunk_bytes, &chunks), DS_ERR_DATA,
             "%s: the shape and chunks of %s are not possible in a file of %lld bytes", c->path, c->object,
             (long long)c->bytes);
    if (chunks == 0) goto done;
    all = H5Dget_space(dataset);
    DS_CHECK(H5Dget_num_chunks(dataset, all, &there) >= 0, DS_ERR_DATA, "%s: the chunks of %s are damaged: %s", c->path,
             c->object, h5_lib_reason());
    stored = H5Dget_storage_size(dataset);
    DS_CHECK(there == chunks, DS_ERR_DATA, "%s: %s holds %llu of its %zu chunks", c->path, c->object,
             (unsigned long long)there, chunks);
    int deflate_at = find_filter(dcpl, H5Z_FILTER_DEFLATE);
    DS_CHECK(stored <= (hsize_t)c->bytes &&
                 (deflate_at >= 0 || (mem_mul(chunks, chunk_bytes, &wanted) && stored >= wanted)),
             DS_ERR_DATA, "%s: %s has %llu bytes stored for %zu chunks of %zu in a file of %lld", c->path, c->object,
             (unsigned long long)stored, chunks, chunk_bytes, (long long)c->bytes);
    if (deflate_at < 0) goto done;
    DS_CHECK(chunks <= MAX_DEFLATED_CHUNKS, DS_ERR_DATA, "%s: %s has %zu compressed chunks, at most %d are accepted",
             c->path, c->object, chunks, MAX_DEFLATED_CHUNKS);
    for (size_t i = 0; i < chunks; i++) DS_TRY(check_one(c, dataset, i, deflate_at, chunk_bytes));
done:
    if (all >= 0) H5Sclose(all);
    return err;
}
