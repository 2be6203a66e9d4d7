// gguf.h: reads GGUF files (versions 2 and 3, little endian). Not collective.
//
// Layout: "GGUF", version, number of tensors, number of key-values; the key-values; the tensor infos; padding; the
// data. Nothing is believed: every length is checked against the file before it is used, names must be unique, tensors
// aligned, inside the file and apart from each other. DS_ERR_DATA says what is wrong. Limits: GGUF_MAX_* below.
#ifndef DS_GGUF_H
#define DS_GGUF_H

#include "base/err.h"
#include "base/file.h"

#define GGUF_MAX_KEYS 65536
#define GGUF_MAX_TENSORS 65536
#define GGUF_MAX_NAME 255  // bytes of a key's or a tensor's name
#define GGUF_MAX_NESTING 4 // arrays of arrays
#define GGUF_MAX_DIMS 4

// Types of values, by their number in the file.
typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
} GgufType;

typedef struct {
    char *key;
    GgufType type; // of the value; of the items if `array`
    bool array;
    int64_t count;    // items; 1 unless `array`
    const char *data; // view of the first item, as it lies in the file
} GgufValue;

typedef struct {
    char *name;
    uint32_t type; // ggml type, see gguf_quant.h
    int ndim;
    int64_t shape[GGUF_MAX_DIMS]; // slowest first (the file keeps the fastest first)
    int64_t count;                // elements
    const char *data;             // view, aligned as the file says
    size_t bytes;
} GgufTensor;

typedef struct {
    const char *s;
    int64_t n;
} GgufString; // a view, not NUL-terminated

typedef struct {
    char *path;
    FileMap map;
    uint32_t version;
    int keys;
    GgufValue *kv; // [keys] in the file's order
    int tensors;
    GgufTensor *t; // [tensors] in the file's order
} Gguf;

// Owner: caller, gguf_close. DS_ERR_IO, DS_ERR_DATA.
Err gguf_open(const char *path, Gguf *g);
void gguf_close(Gguf *g); // accepts an empty one

const GgufValue *gguf_find(const Gguf *g, const char *key);          // NULL if there is none
const GgufTensor *gguf_find_tensor(const Gguf *g, const char *name); // NULL if there is none

// A number or a bool as a double; false if the key is missing or something else.
bool gguf_get_number(const Gguf *g, const char *key, double *value);

// A string without NUL bytes, into fresh memory; NULL if the key is missing or something else. Owner: caller, mem_free.
char *gguf_get_string(const Gguf *g, const char *key);

// An array of strings into fresh memory of views; of integers; of floats. Missing, or of another type: DS_ERR_DATA
// naming it. Owner of *out: caller, mem_free. (*out)[*n].
Err gguf_get_strings(const Gguf *g, const char *key, GgufString **out, int64_t *n);
Err gguf_get_ints(const Gguf *g, const char *key, int64_t **out, int64_t *n);
Err gguf_get_floats(const Gguf *g, const char *key, float **out, int64_t *n);

// out[n] = elements first .. first + n of a tensor, dequantised to fp32. `first` must start a block of its type
// (gguf_quant_block), n is any number within the tensor that ends a block. DS_ERR_DATA names a type that we cannot
// read.
Err gguf_read_f32(const Gguf *g, const GgufTensor *t, int64_t first, int64_t n, float *out);

#endif
