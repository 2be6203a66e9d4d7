// hash.c: see hash.h. The one file that names libcrypto and xxhash.
#include "base/hash.h"

#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"

enum { BLOCK = 1 << 20 };

static void to_hex(const unsigned char *bytes, int n, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < n; i++) out[2 * i] = digits[bytes[i] >> 4], out[2 * i + 1] = digits[bytes[i] & 15];
    out[2 * n] = 0;
}

Sha256Hex hash_sha256(const void *data, size_t bytes) {
    unsigned char d[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    Sha256Hex out;
    if (!EVP_Digest(data, bytes, d, &n, EVP_sha256(), NULL))
        err_fatal("SHA-256 is not available in libcrypto, or out of memory");
    to_hex(d, 32, out.hex);
    return out;
}

static Xxh128Hex digest_hex(XXH128_hash_t h) {
    XXH128_canonical_t c;
    Xxh128Hex out;
    XXH128_canonicalFromHash(&c, h);
    to_hex(c.digest, 16, out.hex);
    return out;
}

Xxh128Hex hash_xxh128(const void *data, size_t bytes) { return digest_hex(XXH3_128bits(data, bytes)); }

// The file in blocks to `update`; read, not mapped, so that a failed read is an error.
static Err feed_file(const char *path, void (*update)(void *state, const void *data, size_t bytes), void *state) {
    Err err = DS_OK;
    int fd = -1;
    int64_t bytes = 0;
    char *block = mem_alloc(BLOCK);
    DS_TRY(file_open_read(path, &fd, &bytes));
    for (int64_t at = 0; at < bytes; at += BLOCK) {
        size_t n = (size_t)ds_min(BLOCK, bytes - at);
        DS_TRY(file_pread(fd, path, block, n, at));
        update(state, block, n);
    }
done:
    if (fd >= 0) close(fd);
    mem_free(block);
    return err;
}

static void update_sha256(void *state, const void *data, size_t bytes) { EVP_DigestUpdate(state, data, bytes); }
static void update_xxh128(void *state, const void *data, size_t bytes) { XXH3_128bits_update(state, data, bytes); }

Err hash_sha256_file(const char *path, Sha256Hex *out) {
    unsigned char d[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_MD_CTX *state = EVP_MD_CTX_new();
    if (!state || !EVP_DigestInit_ex(state, EVP_sha256(), NULL))
        err_fatal("SHA-256 is not available in libcrypto, or out of memory");
    Err err = feed_file(path, update_sha256, state);
    EVP_DigestFinal_ex(state, d, &n);
    EVP_MD_CTX_free(state);
    to_hex(d, 32, out->hex);
    return err;
}

Err hash_xxh128_file(const char *path, Xxh128Hex *out) {
    XXH3_state_t *state = XXH3_createState();
    if (!state) err_fatal("no memory for a hash");
    XXH3_128bits_reset(state);
    Err err = feed_file(path, update_xxh128, state);
    *out = digest_hex(XXH3_128bits_digest(state));
    XXH3_freeState(state);
    return err;
}

uint64_t hash_string(const char *s) { return XXH3_64bits(s, strlen(s)); }
