// h5_drive.c: see h5_drive.h. A drive outlives the library's own object (Port), which the library makes and frees.
#include "io/h5_drive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/h5_sums.h"

enum { SLOTS = 16, OWN_DRIVER = 600 }; // numbers from 512 on are nobody's

struct H5Drive {
    char *path;
    int fd;
    bool writing;
    int64_t bytes; // the library's end of file
    H5Sums sums;
    char *whole; // all of a small file; else blocks that were looked at in part, block k in slot k % SLOTS
    char *slot[SLOTS];
    int64_t in_slot[SLOTS];
    Err err;
    char words[512];
    H5Drive *stuck; // the next one that the library never let go of
};

typedef struct {
    H5FD_t pub;
    H5Drive *drive;
    haddr_t end; // of what the library has allocated
} Port;

// ---- bytes ----

// Keeps the first failure. Words that were there before (of an error that is being cleaned up) stay.
static bool keep(H5Drive *d, bool words_before, Err err) {
    if (!err) return true;
    if (!d->err) {
        d->err = err;
        snprintf(d->words, sizeof d->words, "%s", err_text());
    }
    if (!words_before) err_clear();
    return false;
}

static Err load_slot(H5Drive *d, int64_t k, const char **block) {
    Err err = DS_OK;
    int64_t s = k % SLOTS;
    if (!d->slot[s]) d->slot[s] = mem_alloc(H5_SUM_BLOCK), d->in_slot[s] = -1;
    if (d->in_slot[s] != k) {
        d->in_slot[s] = -1;
        DS_TRY(h5_sums_read_block(&d->sums, d->fd, d->path, k, d->slot[s]));
        d->in_slot[s] = k;
    }
    *block = d->slot[s];
done:
    return err;
}

// Whole blocks go straight to `out`.
static Err read_blocks(H5Drive *d, int64_t at, size_t n, char *out) {
    Err err = DS_OK;
    const char *block;
    while (n) {
        int64_t k = at / H5_SUM_BLOCK;
        size_t into = (size_t)(at % H5_SUM_BLOCK), part = (size_t)ds_min((int64_t)n, H5_SUM_BLOCK - (int64_t)into);
        if (part == H5_SUM_BLOCK) DS_TRY(h5_sums_read_block(&d->sums, d->fd, d->path, k, out));
        else {
            DS_TRY(load_slot(d, k, &block));
            memcpy(out, block + into, part);
        }
        at += (int64_t)part, out += part, n -= part;
    }
done:
    return err;
}

static Err read_bytes(H5Drive *d, int64_t at, size_t n, char *out) {
    int64_t there = ds_max(0, ds_min((int64_t)n, d->bytes - at));
    memset(out + there, 0, n - (size_t)there); // of a new file, what was not written yet
    if (d->whole) memcpy(out, d->whole + at, (size_t)there);
    else if (d->sums.blocks) return read_blocks(d, at, (size_t)there, out);
    else return file_pread(d->fd, d->path, out, (size_t)there, at);
    return DS_OK;
}

static Err read_whole(H5Drive *d) {
    if (d->bytes > H5_WHOLE) return DS_OK;
    char *whole = mem_alloc((size_t)d->bytes);
    Err err = read_bytes(d, 0, (size_t)d->bytes, whole);
    if (err) mem_free(whole);
    else d->whole = whole;
    return err;
}

// ---- drives ----

static H5Drive *new_drive(const char *path, bool writing) {
    H5Drive *d = MEM_NEW(H5Drive, 1);
    *d = (H5Drive){.path = mem_strdup(path), .fd = -1, .writing = writing};
    return d;
}

Err h5_drive_open(const char *path, H5Drive **drive) {
    Err err = DS_OK;
    int64_t bytes = 0;
    H5Drive *d = *drive = new_drive(path, false);
    DS_TRY(file_open_read(path, &d->fd, &bytes));
    DS_TRY(h5_sums_load(d->fd, path, bytes, &d->sums));
    d->bytes = d->sums.bytes;
    DS_TRY(read_whole(d));
done:
    if (err) h5_drive_free(drive, false);
    return err;
}

Err h5_drive_create(const char *path, H5Drive **drive) {
    H5Drive *d = *drive = new_drive(path, true);
    d->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (d->fd >= 0) return DS_OK;
    Err err = err_set(DS_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    h5_drive_free(drive, false);
    return err;
}

// By the descriptor that wrote: another one need not hear of what failed.
Err h5_drive_finish(H5Drive *d, bool sums) {
    Err err = DS_OK;
    if (sums) DS_TRY(h5_sums_append(d->fd, d->path));
    DS_TRY(file_sync_open(d->fd, d->path));
    const int closed = close(d->fd);
    d->fd = -1;
    DS_CHECK(closed == 0, DS_ERR_IO, "%s: close failed: %s", d->path, strerror(errno));
done:
    return err;
}

void h5_drive_free(H5Drive **drive, bool still_open) {
    static H5Drive *stuck;
    H5Drive *d = *drive;
    *drive = NULL;
    if (!d) return;
    if (d->fd >= 0) close(d->fd);
    d->fd = -1; // whatever the library still tries fails
    if (still_open) {
        d->stuck = stuck, stuck = d;
        return;
    }
    for (int s = 0; s < SLOTS; s++) mem_free(d->slot[s]);
    mem_free(d->whole);
    h5_sums_free(&d->sums);
    mem_free(d->path);
    mem_free(d);
}

int h5_drive_fd(const H5Drive *d) { return d->fd; }
int64_t h5_drive_bytes(const H5Drive *d) { return d->bytes; }
bool h5_drive_has_sums(const H5Drive *d) { return d->sums.blocks > 0; }

Err h5_drive_failure(const H5Drive *d, const char **words) {
    *words = d->words;
    return d->err;
}

// ---- what the library calls ----

static H5FD_t *port_open(const char *name, unsigned flags, hid_t fapl, haddr_t max) {
    (void)name, (void)flags, (void)max;
    H5Drive *const *drive = H5Pget_driver_info(fapl);
    if (!drive) return NULL;
    Port *p = MEM_NEW(Port, 1);
    p->drive = *drive;
    return &p->pub;
}

static herr_t port_close(H5FD_t *port) {
    mem_free(port);
    return 0;
}

// Those of the library's own driver, so that files are laid out as by it.
static herr_t port_query(const H5FD_t *port, unsigned long *flags) {
    (void)port;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t port_get_eoa(const H5FD_t *port, H5FD_mem_t type) {
    (void)type;
    return ((const Port *)port)->end;
}

static herr_t port_set_eoa(H5FD_t *port, H5FD_mem_t type, haddr_t end) {
    (void)type;
    ((Port *)port)->end = end;
    return 0;
}

static haddr_t port_get_eof(const H5FD_t *port, H5FD_mem_t type) {
    (void)type;
    return (haddr_t)((const Port *)port)->drive->bytes;
}

static herr_t port_read(H5FD_t *port, H5FD_mem_t type, hid_t dxpl, haddr_t at, size_t n, void *out) {
    (void)type, (void)dxpl;
    H5Drive *d = ((Port *)port)->drive;
    bool before = err_text()[0] != 0;
    if (!d->writing && (n > (size_t)d->bytes || at > (haddr_t)d->bytes - n)) return -1; // too short to be an HDF5 file
    return keep(d, before, read_bytes(d, (int64_t)at, n, out)) ? 0 : -1;
}

static herr_t port_write(H5FD_t *port, H5FD_mem_t type, hid_t dxpl, haddr_t at, size_t n, const void *data) {
    (void)type, (void)dxpl;
    H5Drive *d = ((Port *)port)->drive;
    bool before = err_text()[0] != 0;
    if (!keep(d, before, file_pwrite(d->fd, d->path, data, n, (int64_t)at))) return -1;
    d->bytes = ds_max(d->bytes, (int64_t)(at + n));
    return 0;
}

static herr_t port_truncate(H5FD_t *port, hid_t dxpl, hbool_t closing) {
    (void)dxpl, (void)closing;
    Port *p = (Port *)port;
    H5Drive *d = p->drive;
    bool before = err_text()[0] != 0;
    if (!d->writing || d->bytes == (int64_t)p->end) return 0;
    if (ftruncate(d->fd, (off_t)p->end) != 0)
        return keep(d, before, err_set(DS_ERR_IO, "%s: cannot set its size: %s", d->path, strerror(errno))) ? 0 : -1;
    d->bytes = (int64_t)p->end;
    return 0;
}

void h5_drive_use(H5Drive *drive, hid_t fapl) {
    static hid_t driver = H5I_INVALID_HID;
    static const H5FD_class_t class = {
#if H5_VERSION_GE(1, 13, 0)
        .version = H5FD_CLASS_VERSION,
        .value = OWN_DRIVER,
#endif
        .name = "dschat",
        .maxaddr = (haddr_t)1 << 62,
        .fc_degree = H5F_CLOSE_WEAK,
        .fapl_size = sizeof(H5Drive *),
        .open = port_open,
        .close = port_close,
        .query = port_query,
        .get_eoa = port_get_eoa,
        .set_eoa = port_set_eoa,
        .get_eof = port_get_eof,
        .read = port_read,
        .write = port_write,
        .truncate = port_truncate,
        .fl_map = H5FD_FLMAP_DICHOTOMY
    };
    if (driver < 0) driver = H5FDregister(&class);
    if (driver < 0 || H5Pset_driver(fapl, driver, &drive) < 0) err_fatal("the HDF5 library does not take a driver");
}
