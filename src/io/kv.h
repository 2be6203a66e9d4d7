// kv.h: named numbers and arrays: what trainer.h5 holds (cursor, counters, loss scale, KL coefficient, schedule, ...).
// Keys are like "loader.cursor": letters, digits, '_', '-' and '.', at most 100. Stored as 1-D data sets /state/<key>.
// Not collective (all of it).
#ifndef DS_KV_H
#define DS_KV_H

#include "io/h5_data.h"

typedef struct Kv Kv;

Kv *kv_create(void);
void kv_destroy(Kv **kv); // accepts NULL

// Put replaces an older value of that key. data[count] is copied. An illegal key is a bug (fatal).
void kv_put_i64(Kv *kv, const char *key, int64_t value);
void kv_put_f64(Kv *kv, const char *key, double value);
void kv_put_array(Kv *kv, const char *key, DType dtype, int64_t count, const void *data);

bool kv_has(const Kv *kv, const char *key);

// DS_ERR_DATA, naming the file and the key, if it is missing, has another type or more than one element.
Err kv_get_i64(const Kv *kv, const char *key, int64_t *value);
Err kv_get_f64(const Kv *kv, const char *key, double *value);
// *data: [*count], valid until the key is put again or kv is destroyed.
Err kv_get_array(const Kv *kv, const char *key, DType dtype, int64_t *count, const void **data);
// The same, copied to out; the array must have exactly `count` elements.
Err kv_copy_array(const Kv *kv, const char *key, DType dtype, int64_t count, void *out);

// Bytes of all values.
int64_t kv_bytes(const Kv *kv);

Err kv_write(const Kv *kv, H5File *file);
// Reads a file opened by h5_open_checked into a fresh Kv. DS_ERR_DATA.
Err kv_read(const H5File *file, Kv **kv);

#endif
