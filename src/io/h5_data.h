// h5_data.h: data sets in an open HDF5 file: whole ones, flat ranges of row-major tensors, strips of matrices, virtual
// ones, growing ones.
// Not collective (all of it).
//
// Data are host memory. bf16 is stored as an HDF5 float type (sign 15, exponent 7-14, mantissa 0-6), which h5dump and
// h5py read as numbers.
#ifndef DS_H5_DATA_H
#define DS_H5_DATA_H

#include "io/h5.h"
#include "io/h5_runs.h"

enum { H5_MAX_NDIM = 4 };

typedef struct {
    DType dtype;
    int ndim;                   // 0 (scalar) to H5_MAX_NDIM
    int64_t shape[H5_MAX_NDIM]; // slowest first; entries past ndim are 1
    int64_t count;              // product
} H5Info;

// DS_ERR_DATA: no such data set, or a type or rank that this program has no use for (8- and 16-bit signed integers,
// ...).
Err h5_info(const H5File *file, const char *object, H5Info *info);

// Whether `object` is a virtual data set of a type of ours, which is *dtype. h5_info and h5_read refuse those
// (DS_ERR_DATA): the library would hand out fill values where a source cannot be read. h5_parts.h reads what they stand
// for.
bool h5_is_virtual(const H5File *file, const char *object, DType *dtype);

// The byte of the file at which a contiguous data set begins. DS_ERR_BUG: nowhere yet.
Err h5_offset(const H5File *file, const char *object, int64_t *offset);

// out[count] = elements first .. first + count - 1 of the row-major data set, as `as`: the stored type itself, or
// between fp32, bf16 and fp16 (to bf16 rounds to nearest even; to fp16 is refused), or uint8/int32/uint32 to int64.
// DS_ERR_DATA: missing, out of range, another type, cannot be read (a broken checksum).
Err h5_read(const H5File *file, const char *object, DType as, int64_t first, int64_t count, void *out);
// The same of a series of runs: out[runs.count].
Err h5_read_runs(const H5File *file, const char *object, DType as, H5Runs runs, void *out);

// The conversions of h5_read; `from` and `to` may not be equal in h5_convert.
bool h5_can_convert(DType from, DType to);
void h5_convert(DType from, const void *in, DType to, void *out, int64_t n);

// `code` with words unless h5_runs_ok.
Err h5_check_range(const H5File *file, const char *object, const H5Info *info, H5Runs r, Err code);

// Creates a contiguous data set, with its parents; its contents are undefined until written. DS_ERR_IO; DS_ERR_DATA for
// a shape that overflows.
Err h5_dataset_create(H5File *file, const char *object, DType dtype, int ndim, const int64_t *shape);

// Writes a flat range; data[count] has the stored type. DS_ERR_IO with the path.
Err h5_write(H5File *file, const char *object, int64_t first, int64_t count, const void *data);
// The same of a series of runs: data[runs.count].
Err h5_write_runs(H5File *file, const char *object, H5Runs runs, const void *data);

// h5_dataset_create and h5_write of the whole.
Err h5_write_new(H5File *file, const char *object, DType dtype, int ndim, const int64_t *shape, const void *data);

// One source of a virtual data set: the elements `runs` of the whole are the 1-D data set `dataset` [runs.count] in
// `<own name>.shards/<shard as 5 digits>.h5`.
typedef struct {
    int shard; // 0 .. 99999
    const char *dataset;
    H5Runs runs;
} H5Source;

// Creates a virtual data set; sources must tile it (DS_ERR_BUG). Where a shard is missing tools show nan (floats) or 0.
Err h5_write_virtual(H5File *file, const char *object, DType dtype, int ndim, const int64_t *shape,
                     const H5Source *sources, int64_t n_sources);

// A 1-D data set that grows: chunked, with fletcher32 checksums. Buffers one chunk.
typedef struct H5Appender H5Appender;
Err h5_appender_open(H5File *file, const char *object, DType dtype, int64_t chunk, H5Appender **appender);
Err h5_append(H5Appender *appender, const void *data, int64_t count);
int64_t h5_appender_count(const H5Appender *appender); // elements appended so far
// Writes what is buffered. Accepts NULL, sets NULL; call it before h5_commit. DS_ERR_IO.
Err h5_appender_close(H5Appender **appender);

#endif
