// hash.c: see hash.h. The one file that names libcrypto and xxhash.
#include "base/hash.h"

#include <openssl/evp.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"

static void to_hex(const unsigned char *bytes, int n, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < n; i++) out[2 * i] = digits[bytes[i] >> 4], out[2 * i + 1] = digits[bytes[i] & 15];
    out[2 * n] = 0;
}

Sha256Hex hash_sha256(const void *data, size_t bytes) {
    unsigned char d[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    Sha256Hex out;
    if (!EVP_Digest(data, bytes, d, &n, EVP_sha256(), NULL)) err_fatal("SHA-256 is not available in libcrypto");
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

Err hash_sha256_file(const char *path, Sha256Hex *out) {
    Err err = DS_OK;
    FileMap map = {0};
    DS_TRY(file_map(path, &map));
    *out = hash_sha256(map.data, map.bytes);
done:
    file_unmap(&map);
    return err;
}

Err hash_xxh128_file(const char *path, Xxh128Hex *out) {
    Err err = DS_OK;
    FileMap map = {0};
    DS_TRY(file_map(path, &map));
    *out = hash_xxh128(map.data, map.bytes);
done:
    file_unmap(&map);
    return err;
}

uint64_t hash_string(const char *s) { return XXH3_64bits(s, strlen(s)); }
