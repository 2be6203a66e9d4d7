// h5_sums.c: see h5_sums.h.
#include "io/h5_sums.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#define HEAD "blocks of %d of %" PRId64 "\n"
#define WORD "dschat-sums "
#define FOOT WORD "%012" PRId64 " %s\n"
enum { FOOT_BYTES = 12 + 12 + 1 + 32 + 1, LINE = 33, MAX_TEXT = 1 << 30 };

static size_t block_bytes(const H5Sums *s, int64_t k) {
    return (size_t)ds_min(H5_SUM_BLOCK, s->bytes - k * H5_SUM_BLOCK);
}

void h5_sums_free(H5Sums *s) {
    mem_free(s->sum);
    *s = (H5Sums){0};
}

// ---- writing ----

static char *make_text(const H5Sums *s) {
    char *text = mem_array(s->blocks + 8, LINE), *p = text;
    p += snprintf(p, 2 * LINE, HEAD, H5_SUM_BLOCK, s->bytes);
    for (int64_t k = 0; k < s->blocks; k++) p += snprintf(p, LINE + 1, "%s\n", s->sum[k].hex);
    int64_t n = p - text;
    snprintf(p, FOOT_BYTES + 1, FOOT, n, hash_xxh128(text, (size_t)n).hex);
    return text;
}

Err h5_sums_append(int fd, const char *path) {
    Err err = DS_OK;
    H5Sums s = {0};
    char *block = mem_alloc(H5_SUM_BLOCK), *text = NULL;
    const int64_t bytes = lseek(fd, 0, SEEK_END);
    DS_CHECK(bytes >= 0, DS_ERR_IO, "%s: cannot find its end: %s", path, strerror(errno));
    s = (H5Sums){.bytes = bytes, .blocks = ds_ceil_div(bytes, H5_SUM_BLOCK)};
    s.sum = MEM_NEW(Xxh128Hex, s.blocks);
    for (int64_t k = 0; k < s.blocks; k++) {
        DS_TRY(file_pread(fd, path, block, block_bytes(&s, k), k * H5_SUM_BLOCK));
        s.sum[k] = hash_xxh128(block, block_bytes(&s, k));
    }
    text = make_text(&s);
    DS_TRY(file_pwrite(fd, path, text, strlen(text), bytes));
done:
    mem_free(text);
    mem_free(block);
    h5_sums_free(&s);
    return err;
}

// ---- reading ----

// The lines between head and foot.
static bool parse_sums(const char *text, int64_t n, int64_t bytes, H5Sums *s) {
    int block = 0, used = 0;
    int64_t of = 0;
    if (sscanf(text, "blocks of %9d of %18" SCNd64 "%n", &block, &of, &used) != 2 || text[used++] != '\n') return false;
    int64_t blocks = ds_ceil_div(of, H5_SUM_BLOCK);
    if (block != H5_SUM_BLOCK || of != bytes || n - used != blocks * LINE) return false;
    s->sum = MEM_NEW(Xxh128Hex, blocks);
    s->blocks = blocks;
    for (int64_t k = 0; k < blocks; k++) memcpy(s->sum[k].hex, text + used + k * LINE, LINE - 1);
    return true;
}

Err h5_sums_load(int fd, const char *path, int64_t bytes, H5Sums *s) {
    Err err = DS_OK;
    char foot[FOOT_BYTES + 1] = "", again[FOOT_BYTES + 1] = "", *text = NULL;
    int64_t n = 0;
    *s = (H5Sums){.bytes = bytes};
    if (bytes < FOOT_BYTES) return DS_OK;
    DS_TRY(file_pread(fd, path, foot, FOOT_BYTES, bytes - FOOT_BYTES));
    if (memcmp(foot, FOOT, strlen(WORD)) != 0) goto done;
    sscanf(foot, WORD "%12" SCNd64, &n);
    s->bytes = bytes - FOOT_BYTES - n;
    DS_CHECK(n > 0 && n <= MAX_TEXT && s->bytes >= 0, DS_ERR_DATA, "%s: is damaged: its sums have an impossible size",
             path);
    text = mem_alloc((size_t)n + 1);
    DS_TRY(file_pread(fd, path, text, (size_t)n, s->bytes));
    snprintf(again, sizeof again, FOOT, n, hash_xxh128(text, (size_t)n).hex);
    DS_CHECK(!strcmp(foot, again) && parse_sums(text, n, s->bytes, s), DS_ERR_DATA,
             "%s: is damaged: its sums are not what was written", path);
done:
    mem_free(text);
    return err;
}

Err h5_sums_read_block(const H5Sums *s, int fd, const char *path, int64_t k, void *out) {
    size_t n = block_bytes(s, k);
    Err err = file_pread(fd, path, out, n, k * H5_SUM_BLOCK);
    if (err || !strcmp(hash_xxh128(out, n).hex, s->sum[k].hex)) return err;
    return err_set(DS_ERR_DATA,
                   "%s: is damaged: bytes %lld to %lld do not have the hash they were written with; if you changed the "
                   "file on purpose, h5repack FILE NEW makes one without hashes",
                   path, (long long)k * H5_SUM_BLOCK, (long long)k * H5_SUM_BLOCK + (long long)n - 1);
}

Err h5_sums_content(const char *path, Xxh128Hex *content, bool *there) {
    Err err = DS_OK;
    int fd = -1;
    int64_t bytes = 0;
    H5Sums s = {0};
    DS_TRY(file_open_read(path, &fd, &bytes));
    DS_TRY(h5_sums_load(fd, path, bytes, &s));
    *there = s.blocks > 0;
    *content = hash_xxh128(s.sum, (size_t)s.blocks * sizeof *s.sum);
done:
    if (fd >= 0) close(fd);
    h5_sums_free(&s);
    return err;
}

Err h5_sums_verify(const char *path, int part, int parts, H5Verified *v) {
    Err err = DS_OK;
    int fd = -1;
    int64_t bytes = 0;
    H5Sums s = {0};
    char *block = NULL;
    DS_TRY(file_open_read(path, &fd, &bytes));
    DS_TRY(h5_sums_load(fd, path, bytes, &s));
    if (!s.blocks && part == 0) v->without += bytes;
    if (s.blocks) block = mem_alloc(block_bytes(&s, 0));
    for (int64_t k = part; k < s.blocks; k += parts) {
        v->bytes += (int64_t)block_bytes(&s, k);
        if (clock_now() >= v->until) continue;
        DS_TRY(h5_sums_read_block(&s, fd, path, k, block));
        v->verified += (int64_t)block_bytes(&s, k);
    }
done:
    if (fd >= 0) close(fd);
    mem_free(block);
    h5_sums_free(&s);
    return err;
}
