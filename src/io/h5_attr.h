// h5_attr.h: attributes: one integer, real number or string each, on a group or data set. Not collective (all of it).
#ifndef DS_H5_ATTR_H
#define DS_H5_ATTR_H

#include "io/h5.h"

enum { H5_ATTR_MAX_BYTES = 1 << 20 }; // of one string

// The object must exist. A name written twice is DS_ERR_IO. Strings are stored with fixed length, UTF-8, at most
// H5_ATTR_MAX_BYTES bytes (DS_ERR_DATA beyond).
Err h5_attr_put_i64(H5File *file, const char *object, const char *name, int64_t value);
Err h5_attr_put_f64(H5File *file, const char *object, const char *name, double value);
Err h5_attr_put_str(H5File *file, const char *object, const char *name, const char *value);

bool h5_attr_exists(const H5File *file, const char *object, const char *name);

// DS_ERR_DATA if it is missing, not a scalar, of another type (f64 accepts integers too) or out of range.
Err h5_attr_get_i64(const H5File *file, const char *object, const char *name, int64_t *value);
Err h5_attr_get_f64(const H5File *file, const char *object, const char *name, double *value);
// Owner: caller, mem_free.
Err h5_attr_get_str(const H5File *file, const char *object, const char *name, char **value);

// Names of all attributes of an object, sorted. Owner: caller, h5_names_free.
Err h5_attr_list(const H5File *file, const char *object, H5Names *names);

#endif
