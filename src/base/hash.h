// hash.h: content hashes: SHA-256 (libcrypto) for provenance, xxh3-128 (xxhash) for manifests. Not collective.
#ifndef DS_HASH_H
#define DS_HASH_H

#include "base/err.h"

typedef struct {
    char hex[65];
} Sha256Hex; // 64 hexadecimal digits and a NUL
typedef struct {
    char hex[33];
} Xxh128Hex; // 32 hexadecimal digits and a NUL

Sha256Hex hash_sha256(const void *data, size_t bytes);
Err hash_sha256_file(const char *path, Sha256Hex *out);

Xxh128Hex hash_xxh128(const void *data, size_t bytes);
Err hash_xxh128_file(const char *path, Xxh128Hex *out);

// 64-bit hash of a string, for keys of the random generator and of tables.
uint64_t hash_string(const char *s);

#endif
