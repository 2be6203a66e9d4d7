// h5_drive.h: the driver by which the HDF5 library reaches a file's bytes. For h5*.c only. Not collective (all of it).
//
// The library's own would swallow a failed read in places (a virtual set's source, an optional message) and hand out
// something else. Here the first failure of a file is kept with its errno, whatever the library makes of it; parts and
// interruptions are seen to; and of a file with sums (h5_sums.h) no byte reaches the library that is not what was
// written. Files up to H5_WHOLE bytes are read once, when they are opened.
#ifndef DS_H5_DRIVE_H
#define DS_H5_DRIVE_H

#define H5_USE_110_API // the same calls with newer libraries
#include <hdf5.h>

#include "base/err.h"

enum { H5_WHOLE = 1 << 26 };

typedef struct H5Drive H5Drive;

// Opens for reading. DS_ERR_IO; DS_ERR_DATA: its sums say that it is damaged. Owner: caller, h5_drive_free.
Err h5_drive_open(const char *path, H5Drive **drive);
// Makes a new file. DS_ERR_IO.
Err h5_drive_create(const char *path, H5Drive **drive);
// After the library closed a file that it wrote: its sums (if `sums`) behind it, all of it on the disk, closed.
// DS_ERR_IO: it is not known to be whole.
Err h5_drive_finish(H5Drive *drive, bool sums);
// After the library closed its file. still_open: it could not, and may come back to the drive. Accepts NULL, sets NULL.
void h5_drive_free(H5Drive **drive, bool still_open);

// Makes the library use this drive for the file that is opened or created with `fapl`.
void h5_drive_use(H5Drive *drive, hid_t fapl);

int h5_drive_fd(const H5Drive *drive);
int64_t h5_drive_bytes(const H5Drive *drive); // of the HDF5 part
bool h5_drive_has_sums(const H5Drive *drive);

// The first failure of the drive and its words; DS_OK, "".
Err h5_drive_failure(const H5Drive *drive, const char **words);

#endif
