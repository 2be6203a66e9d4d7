// safetensors.h: reads and writes Hugging Face's safetensors files. Not collective.
//
// A file is: 8 bytes header length (little endian), the header (JSON: name -> dtype, shape, [begin, end)), the data.
// Nothing in it is believed: lengths, offsets, overlaps, holes, products of shapes, duplicate names and nesting are
// checked when it is opened, and DS_ERR_DATA says what is wrong. After that every tensor's `data` has `bytes` bytes.
#ifndef DS_SAFETENSORS_H
#define DS_SAFETENSORS_H

#include "base/err.h"
#include "base/file.h"

#define SAFETENSORS_MAX_DIMS 8
#define SAFETENSORS_MAX_HEADER ((size_t)100 << 20) // 100 MB, the format's own limit
#define SAFETENSORS_MAX_FILES 4096

typedef struct {
    char *name;
    const char *dtype; // as the file spells it: "F32", "BF16", ...
    int ndim;
    int64_t shape[SAFETENSORS_MAX_DIMS]; // slowest first
    int64_t count;                       // elements
    const char *data;                    // view into the mapped file; may be unaligned
    size_t bytes;
} SafeTensor;

typedef struct {
    char *path; // what was opened, for messages
    int n;
    SafeTensor *t; // [n] sorted by name
    int files;
    FileMap *maps; // [files]
} Safetensors;

// Opens `path`: a folder (its model.safetensors, else its model.safetensors.index.json with the shards), a
// *.safetensors file or a *.index.json. Shards are opened only as plain file names inside the index's folder. Owner:
// caller, safetensors_close. DS_ERR_IO if files cannot be opened, DS_ERR_DATA if they are malformed.
Err safetensors_open(const char *path, Safetensors *st);
void safetensors_close(Safetensors *st); // accepts an empty one

// By name, NULL if there is none.
const SafeTensor *safetensors_find(const Safetensors *st, const char *name);

// The type of a weight: F32, F16 or BF16; anything else is DS_ERR_DATA naming tensor and type.
Err safetensors_float_type(const Safetensors *st, const SafeTensor *t, DType *type);

// out[n] = elements first .. first + n of a tensor whose type safetensors_float_type accepts, as fp32 (exact).
Err safetensors_read_f32(const Safetensors *st, const SafeTensor *t, int64_t first, int64_t n, float *out);

// One tensor of a file to be written.
typedef struct {
    const char *name;
    int ndim;
    int64_t shape[SAFETENSORS_MAX_DIMS];
} SafeSpec;

typedef struct SafetensorsWriter SafetensorsWriter;

// Starts writing specs[n], all of type `dtype` (DS_F32, DS_F16, DS_BF16), in this order, into folder `dir` (which
// exists): one model.safetensors, or, where they take more than max_bytes, model-0000i-of-0000k.safetensors with an
// index. Temporary names until safetensors_finish. `specs` is a view that must outlive the writer. Owner: caller,
// safetensors_destroy.
Err safetensors_create(const char *dir, const SafeSpec *specs, int n, DType dtype, size_t max_bytes,
                       SafetensorsWriter **w);

// The next `bytes` bytes of data: whole tensors or pieces of them, in the order of the specs.
Err safetensors_write(SafetensorsWriter *w, const void *data, size_t bytes);

// Checks that all data came, syncs, gives the files their names.
Err safetensors_finish(SafetensorsWriter *w);

// Frees; removes what is unfinished. Accepts NULL, sets NULL.
void safetensors_destroy(SafetensorsWriter **w);

#endif
