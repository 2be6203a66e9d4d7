// h5.c: start of the library, types, opening, replacing, groups and lists.
#include "io/h5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/h5_inspect.h"
#include "io/h5_lib.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "memory types are little endian");

enum { DTYPES = DS_U32 + 1 };
static hid_t types[DTYPES];
static bool started;

// A float of 2 bytes: sign 15, exponent above the mantissa.
static hid_t make_float16(size_t exponent_bits, size_t bias) {
    size_t mantissa = 15 - exponent_bits;
    hid_t t = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(t, 15, mantissa, exponent_bits, 0, mantissa);
    H5Tset_size(t, 2);
    H5Tset_ebias(t, bias);
    return t;
}

static void clear_environment(void) {
    static const char *const names[] = {"HDF5_PLUGIN_PATH",    "HDF5_PLUGIN_PRELOAD", "HDF5_VDS_PREFIX",
                                        "HDF5_EXTFILE_PREFIX", "HDF5_EXT_PREFIX",     "HDF5_DRIVER",
                                        "HDF5_DRIVER_CONFIG",  "HDF5_VOL_CONNECTOR",  "HDF5_DEBUG"};
    for (int i = 0; i < DS_COUNT(names); i++) unsetenv(names[i]);
}

void h5_init(void) {
    if (started) return;
    started = true;
    clear_environment();
    H5dont_atexit(); // a file that could not be flushed would be flushed again, for ever
    if (H5open() < 0) err_fatal("the HDF5 library does not start");
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (H5PLset_loading_state(0) < 0) err_fatal("HDF5's plug-ins cannot be switched off");
    types[DS_F32] = H5T_IEEE_F32LE;
    types[DS_BF16] = make_float16(8, 127);
    types[DS_F16] = make_float16(5, 15);
    types[DS_F64] = H5T_IEEE_F64LE;
    types[DS_I32] = H5T_STD_I32LE;
    types[DS_I64] = H5T_STD_I64LE;
    types[DS_U8] = H5T_STD_U8LE;
    types[DS_U32] = H5T_STD_U32LE;
}

const char *h5_library_version(void) {
    static char text[48];
    unsigned major = 0, minor = 0, release = 0;
    h5_init();
    H5get_libversion(&major, &minor, &release);
    snprintf(text, sizeof text, "%u.%u.%u", major, minor, release);
    return text;
}

hid_t h5_lib_type(DType t) { return types[t]; }

static bool same_type(hid_t stored, hid_t little) {
    if (H5Tequal(stored, little) > 0) return true;
    hid_t big = H5Tcopy(little);
    H5Tset_order(big, H5T_ORDER_BE);
    bool same = H5Tequal(stored, big) > 0;
    H5Tclose(big);
    return same;
}

bool h5_lib_dtype(hid_t type, DType *t) {
    for (int i = 0; i < DTYPES; i++)
        if (same_type(type, types[i])) return *t = (DType)i, true;
    return false;
}

bool h5_lib_plain(hid_t type) {
    DType t;
    const hid_t integers[] = {H5T_STD_I8LE, H5T_STD_I16LE, H5T_STD_U16LE, H5T_STD_U64LE};
    for (int i = 0; i < DS_COUNT(integers); i++)
        if (same_type(type, integers[i])) return true;
    return h5_lib_dtype(type, &t);
}

static herr_t first_words(unsigned n, const H5E_error2_t *e, void *out) {
    if (n == 0 && e->desc) snprintf(out, 256, "%s", e->desc);
    return 0;
}

const char *h5_lib_reason(void) {
    static char text[256];
    snprintf(text, sizeof text, "the HDF5 library gives no reason");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_words, text);
    return text;
}

Err h5_lib_judge(const H5File *f, Err err) {
    const char *words;
    Err failure = h5_drive_failure(f->drive, &words);
    if (!failure) return err;
    err_clear(); // what the library made of it
    return err_set(failure, "%s", words);
}

Err h5_trouble(const H5File *f) { return h5_lib_judge(f, DS_OK); }

static hid_t access_list(H5Drive *drive) {
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    h5_drive_use(drive, fapl);
    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG);
    H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110);
    return fapl;
}

// Once: a file that the library could not close must not be closed again.
static bool close_id(H5File *f) {
    if (f->id >= 0 && H5Fclose(f->id) < 0) f->stuck = true;
    f->id = H5I_INVALID_HID;
    return !f->stuck;
}

static void release(H5File **file) {
    H5File *f = *file;
    h5_drive_free(&f->drive, !close_id(f));
    mem_free(f->path);
    mem_free(f->temporary);
    MEM_FREE(*file);
}

Err h5_lib_open(const char *path, H5File **file) {
    Err err = DS_OK;
    h5_init();
    H5File *f = *file = MEM_NEW(H5File, 1);
    *f = (H5File){.id = H5I_INVALID_HID, .path = mem_strdup(path)};
    DS_TRY(h5_drive_open(path, &f->drive));
done:
    if (err) release(file);
    return err;
}

Err h5_lib_start(H5File *f) {
    hid_t fapl = access_list(f->drive);
    f->id = H5Fopen(f->path, H5F_ACC_RDONLY, fapl);
    H5Pclose(fapl);
    if (f->id >= 0) return h5_trouble(f);
    return h5_lib_judge(f,
                        err_set(DS_ERR_DATA, "%s: is not an HDF5 file, or is damaged: %s", f->path, h5_lib_reason()));
}

// Symbolic links resolved: shards lie beside the file itself, not beside a link to it.
static Err open_file(const char *path, bool own, H5File **file) {
    Err err = DS_OK;
    char *real = realpath(path, NULL);
    *file = NULL;
    DS_TRY(h5_lib_open(real ? real : path, file));
    DS_CHECK(!own || h5_drive_has_sums((*file)->drive), DS_ERR_DATA,
             "%s: has no hashes behind it, so it is not as this version of the program wrote it", path);
    if (!own) DS_TRY(h5_inspect(*file));
    DS_TRY(h5_lib_start(*file));
done:
    if (err && *file) release(file);
    free(real); // lint: realpath's memory
    return err;
}

Err h5_open_checked(const char *path, H5File **file) { return open_file(path, false, file); }
Err h5_open_own(const char *path, H5File **file) { return open_file(path, true, file); }

const char *h5_path(const H5File *file) { return file->path; }

void h5_close(H5File **file) {
    if (!*file) return;
    if ((*file)->temporary) h5_abandon(file);
    else release(file);
}

Err h5_create(const char *path, H5File **file) {
    Err err = DS_OK;
    hid_t fapl = H5I_INVALID_HID, fcpl = H5I_INVALID_HID;
    h5_init();
    H5File *f = *file = MEM_NEW(H5File, 1);
    *f = (H5File){.id = H5I_INVALID_HID, .path = mem_strdup(path)};
    f->temporary = mem_printf("%s.tmp.%ld", path, (long)getpid());
    unlink(f->temporary);
    DS_TRY(h5_drive_create(f->temporary, &f->drive));
    fapl = access_list(f->drive), fcpl = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(fcpl, false); // equal contents give equal bytes
    f->id = H5Fcreate(f->temporary, H5F_ACC_EXCL, fcpl, fapl);
    DS_CHECK(f->id >= 0, DS_ERR_IO, "%s: cannot create: %s", f->temporary, h5_lib_reason());
done:
    if (err && f->drive) err = h5_lib_judge(f, err);
    if (fapl >= 0) H5Pclose(fapl), H5Pclose(fcpl);
    if (err) h5_abandon(file);
    return err;
}

// Closes, and judges what the drive met with until then.
static Err finish(H5File *f) {
    if (close_id(f)) return h5_trouble(f);
    return h5_lib_judge(f, err_set(DS_ERR_IO, "%s: cannot write: %s", f->path, h5_lib_reason()));
}

static Err commit(H5File **file, bool sums) {
    Err err = DS_OK;
    H5File *f = *file;
    DS_TRY(finish(f));
    DS_TRY(h5_drive_finish(f->drive, sums));
    DS_TRY(file_rename_durable(f->temporary, f->path));
done:
    if (err) unlink(f->temporary);
    release(file);
    return err;
}

Err h5_commit(H5File **file) { return commit(file, true); }
Err h5_commit_shard(H5File **file) { return commit(file, false); }

void h5_abandon(H5File **file) {
    if (!*file) return;
    unlink((*file)->temporary);
    release(file);
}

bool h5_name_ok(const char *name) {
    size_t n = strlen(name);
    if (n < 1 || n > 200 || !strcmp(name, ".") || !strcmp(name, "..")) return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] < ' ' || name[i] > '~' || name[i] == '/') return false;
    return true;
}

// H5Lexists wants every parent to be there.
bool h5_exists(const H5File *file, const char *object) {
    bool there = true;
    char *path = mem_strdup(object);
    for (char *p = path + 1; there && *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        there = H5Lexists(file->id, path, H5P_DEFAULT) > 0;
        *p = '/';
    }
    there = there && (!strcmp(path, "/") || H5Lexists(file->id, path, H5P_DEFAULT) > 0);
    mem_free(path);
    return there;
}

bool h5_is_group(const H5File *file, const char *object) {
    H5O_info_t info;
    return h5_exists(file, object) && H5Oget_info_by_name(file->id, object, &info, H5P_DEFAULT) >= 0 &&
           info.type == H5O_TYPE_GROUP;
}

static Err make_one(H5File *file, const char *group) {
    Err err = DS_OK;
    if (H5Lexists(file->id, group, H5P_DEFAULT) > 0) return DS_OK;
    hid_t gcpl = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(gcpl, false);
    hid_t id = H5Gcreate2(file->id, group, H5P_DEFAULT, gcpl, H5P_DEFAULT);
    H5Pclose(gcpl);
    DS_CHECK(id >= 0 && H5Gclose(id) >= 0, DS_ERR_IO, "%s: cannot make group %s: %s", file->path, group,
             h5_lib_reason());
done:
    return h5_lib_judge(file, err);
}

Err h5_make_group(H5File *file, const char *group) {
    Err err = DS_OK;
    char *path = mem_strdup(group);
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/') continue;
        char keep = *p;
        *p = 0;
        if (path[1]) DS_TRY(make_one(file, path));
        *p = keep;
        if (!keep) break;
    }
done:
    mem_free(path);
    return err;
}

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *out) {
    (void)group, (void)info;
    H5Names *names = out;
    if ((names->n & (names->n - 1)) == 0) // full at every power of two
        names->name = mem_grow(names->name, names->n, names->n ? 2 * names->n : 1, sizeof(char *));
    names->name[names->n++] = mem_strdup(name);
    return 0;
}

Err h5_list(const H5File *file, const char *group, H5Names *names) {
    Err err = DS_OK;
    *names = (H5Names){0};
    DS_CHECK(h5_is_group(file, group), DS_ERR_DATA, "%s: has no group %s", file->path, group);
    DS_CHECK(H5Literate_by_name(file->id, group, H5_INDEX_NAME, H5_ITER_INC, NULL, add_name, names, H5P_DEFAULT) >= 0,
             DS_ERR_DATA, "%s: cannot list %s: %s", file->path, group, h5_lib_reason());
done:
    err = h5_lib_judge(file, err);
    if (err) h5_names_free(names);
    return err;
}

void h5_names_free(H5Names *names) {
    for (int64_t i = 0; i < names->n; i++) mem_free(names->name[i]);
    mem_free(names->name);
    *names = (H5Names){0};
}
