// recordsum.c: see recordsum.h.
#include "io/recordsum.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

enum { BLOCK_BYTES = 1 << 22 }; // read at once

Err recordsum_header(const char *path, int cdf, size_t bytes, Xxh128Hex *hash) {
    Err err = DS_OK;
    int fd = -1;
    int64_t file_bytes;
    unsigned char *data = mem_alloc(bytes);
    DS_TRY(file_open_read(path, &fd, &file_bytes));
    DS_TRY(file_pread(fd, path, data, bytes, 0));
    if (bytes >= 12) memset(data + 4, 0, cdf == 5 ? 8 : 4);
    *hash = hash_xxh128(data, bytes);
done:
    if (fd >= 0) close(fd);
    mem_free(data);
    return err;
}

void recordsum_open(RecordSum *r, const Xxh128Hex *header, size_t room) {
    *r = (RecordSum){.data = mem_alloc(room), .room = room, .header = *header};
}

void recordsum_free(RecordSum *r) { mem_free(r->data); }

void recordsum_add(RecordSum *r, const void *values, int64_t n, size_t size) {
    const unsigned char *from = values;
    if (r->bytes + (size_t)n * size > r->room) err_fatal("a record has more than its %zu bytes", r->room);
    for (int64_t i = 0; i < n; i++)
        for (size_t b = 0; b < size; b++) r->data[r->bytes++] = from[(size_t)i * size + size - 1 - b];
}

static uint32_t sum_of(const Xxh128Hex *header, const unsigned char *data, size_t bytes) {
    uint32_t sum = 0;
    const Xxh128Hex both[] = {*header, hash_xxh128(data, bytes)}, hash = hash_xxh128(both, sizeof both);
    for (int i = 0; i < 8; i++)
        sum = sum << 4 | (uint32_t)(hash.hex[i] <= '9' ? hash.hex[i] - '0' : hash.hex[i] - 'a' + 10);
    return sum;
}

int32_t recordsum_take(RecordSum *r) {
    if (r->bytes != r->room) err_fatal("a record has %zu of its %zu bytes", r->bytes, r->room);
    r->bytes = 0;
    return (int32_t)sum_of(&r->header, r->data, r->room);
}

int32_t recordsum_of_step(const Xxh128Hex *header, int stage, int step, double time_unix, const double *values, int n) {
    static const int own;
    RecordSum r;
    recordsum_open(&r, header, 3 * sizeof(int) + (size_t)(1 + n) * sizeof(double));
    recordsum_add(&r, &stage, 1, sizeof stage);
    recordsum_add(&r, &step, 1, sizeof step);
    recordsum_add(&r, &time_unix, 1, sizeof time_unix);
    recordsum_add(&r, &own, 1, sizeof own);
    recordsum_add(&r, values, n, sizeof *values);
    const int32_t sum = recordsum_take(&r);
    recordsum_free(&r);
    return sum;
}

// The records in data[n]; the first that is damaged, n: none.
static int64_t find_damaged(unsigned char *data, int64_t n, const RecordPlace *p) {
    for (int64_t i = 0; i < n; i++) {
        unsigned char *record = data + (size_t)i * p->record_bytes, *own = record + p->at;
        const uint32_t stored =
            (uint32_t)own[0] << 24 | (uint32_t)own[1] << 16 | (uint32_t)own[2] << 8 | (uint32_t)own[3];
        memset(own, 0, 4);
        if (sum_of(&p->header, record, p->record_bytes) != stored) return i;
    }
    return n;
}

Err recordsum_check(const char *path, const RecordPlace *p, int64_t records, double seconds, int64_t *checked) {
    Err err = DS_OK;
    int fd = -1;
    int64_t file_bytes, n;
    const int64_t most = ds_max(1, BLOCK_BYTES / (int64_t)p->record_bytes);
    const double end = clock_now() + seconds;
    unsigned char *data = mem_alloc((size_t)most * p->record_bytes);
    DS_TRY(file_open_read(path, &fd, &file_bytes));
    for (*checked = 0; *checked < records && clock_now() < end; *checked += n) {
        n = ds_min(most, records - *checked);
        DS_TRY(file_pread(fd, path, data, (size_t)n * p->record_bytes,
                          (int64_t)p->begin + *checked * (int64_t)p->record_bytes));
        const int64_t damaged = find_damaged(data, n, p);
        DS_CHECK(damaged == n, DS_ERR_DATA, "%s: record %lld of %lld, or the header, is damaged: the checksum differs",
                 path, (long long)(*checked + damaged), (long long)records);
    }
done:
    if (fd >= 0) close(fd);
    mem_free(data);
    return err;
}
