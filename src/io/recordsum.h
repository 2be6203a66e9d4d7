// recordsum.h: the checksum that each record of a netCDF file holds: 32 bits of the xxh3 of the record's bytes as they
// lie in the file (big-endian), its own four as zeros, together with the header's, so that a record tells of damage in
// either. Not collective.
#ifndef DS_RECORDSUM_H
#define DS_RECORDSUM_H

#include "base/hash.h"

// A record that is being put together, variable by variable in the order of the file.
typedef struct {
    unsigned char *data; // [room]
    size_t room, bytes;
    Xxh128Hex header;
} RecordSum;

// The hash of the file's first `bytes` bytes, without the count of records (at byte 4, 4 or 8 bytes of format
// CDF-`cdf`). DS_ERR_IO, DS_ERR_DATA.
Err recordsum_header(const char *path, int cdf, size_t bytes, Xxh128Hex *hash);

void recordsum_open(RecordSum *r, const Xxh128Hex *header, size_t room); // bytes of a record
void recordsum_free(RecordSum *r);
void recordsum_add(RecordSum *r, const void *values, int64_t n, size_t size); // n numbers of 4 or 8 bytes
int32_t recordsum_take(RecordSum *r);                                         // and begins the next record

// Of a record of history.nc: stage, step, time, the checksum itself, values[n].
int32_t recordsum_of_step(const Xxh128Hex *header, int stage, int step, double time_unix, const double *values, int n);

// Where the records of a file lie.
typedef struct {
    size_t begin, record_bytes, at; // of record 0 in the file; of one; of the checksum in it
    Xxh128Hex header;
} RecordPlace;

// Every record below `records` has its checksum. DS_ERR_DATA names the first that has not, DS_ERR_IO: cannot be read.
// Stops after `seconds`; *checked: how many it looked at.
Err recordsum_check(const char *path, const RecordPlace *place, int64_t records, double seconds, int64_t *checked);

#endif
