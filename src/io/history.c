// history.c: history.nc and rollouts.nc through PnetCDF; the only file that names ncmpi_, and the MPI_ types of its
// calls.
//
// Both are netCDF files whose variables all have the one unlimited dimension: a record is one contiguous block.
// history.nc is written by rank 0 alone (nobody waits for a file system in a step), rollouts.nc by all ranks at once,
// each its own answers. The record count in the header grows only after the records' bytes are written, so a kill
// leaves whole records. Going back to a checkpoint is a smaller count (netCDF libraries cannot shrink a file). Every
// record has a checksum (recordsum.h), looked at before a run goes on from it.
#include "io/history.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pnetcdf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/text.h"
#include "base/watchdog.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "comm/world.h"
#include "io/ncheader.h"
#include "io/recordsum.h"
#include "io/rollout_part.h"

// Every call of PnetCDF is a section of the watchdog.
#define NC(call, file, what) nc_check((enter(file, #call), (call)), (file), (what))
#define NC_TRY(call, file, what) DS_TRY(NC(call, file, what))

// A variable that every file of a kind has, before the caller's.
typedef struct {
    const char *name;
    nc_type type;
    int n_dims;                    // 1: the record dimension alone, 2: records x positions
    const char *units, *long_name; // units NULL: none
} FixedVar;

// One of the two kinds of file.
typedef struct {
    const char *format, *title, *dim; // the value of attribute dschat_format, ...
    int cdf;                          // 2 or 5
    nc_type var_type;                 // of the caller's variables
    int var_dims;                     // and how many dimensions they have
    FixedVar fixed[5];
    int n_fixed, sum; // of fixed[], the one that holds the checksum
} Kind;

enum { FORMAT_MAX = 32, CHECK_SECONDS = 60 };
enum { H_STAGE, H_STEP, H_TIME, H_SUM, H_FIXED };
enum { R_ITERATION, R_SAMPLE, R_LENGTH, R_SUM, R_TOKEN, R_FIXED };
#define SUM_VAR                                                                                                        \
    { "checksum", NC_INT, 1, NULL, "of the record's other bytes: 32 bits of xxh3-128" }

static const Kind kind_history = {
    .format = "history 2",
    .title = "scalars of a dschat run, one record a step",
    .dim = "record",
    .cdf = 2,
    .var_type = NC_DOUBLE,
    .var_dims = 1,
    .fixed = {{"stage", NC_INT, 1, NULL, "stage of training"},
              {"step", NC_INT, 1, "1", "step within the stage"},
              {"time", NC_DOUBLE, 1, "seconds since 1970-01-01 00:00:00", "time at the end of the step"},
              SUM_VAR},
    .n_fixed = H_FIXED,
    .sum = H_SUM};

static const Kind kind_rollouts = {
    .format = "rollouts 2",
    .title = "answers sampled by a dschat run, one record an answer",
    .dim = "answer",
    .cdf = 5,
    .var_type = NC_FLOAT,
    .var_dims = 2,
    .fixed = {{"iteration", NC_INT, 1, "1", "PPO iteration"},
              {"sample", NC_INT64, 1, NULL, "sample id, unique within an iteration"},
              {"length", NC_INT, 1, "1", "tokens of the answer"},
              SUM_VAR,
              {"token_id", NC_UINT, 2, NULL, "id of the token in the actor's vocabulary"}},
    .n_fixed = R_FIXED,
    .sum = R_SUM};

// An open file, or on the ranks that do not take part (ncid < 0) just its name.
typedef struct {
    const Kind *kind;
    char *path;
    int ncid;
    int n;            // variables: kind->n_fixed + the caller's
    int *varid;       // [n]
    int64_t width;    // length of dimension position; 0: there is none
    int64_t records;  // in the file
    bool shared;      // all ranks have it open
    Xxh128Hex header; // its hash
} NcFile;

struct History {
    NcFile file;
    char *stages;
    Err err; // the first failure of history_put, with its words
    char *why;
};

struct Rollouts {
    NcFile file;
    int64_t last_iteration; // -1: none
};

static void enter(const NcFile *f, const char *call) {
    if (f->shared) coll_outside(group_world(), call, f->path);
    else watchdog_enter(WATCH_FILE, call, f->path);
}

// What the library says of a file's contents has small numbers, what it says of its calls large ones.
static Err nc_check(int status, const NcFile *f, const char *what) {
    if (status == NC_ENOMEM) err_fatal("%s: %s: out of memory", f->path, what);
    watchdog_leave();
    if (status == NC_NOERR) return DS_OK;
    const bool contents = (status <= NC_EINVAL && status > NC_ENOMEM) || (status < NC_ENOMEM && status >= NC_ETRUNC) ||
                          status == NC_ENULLPAD;
    return err_set(contents ? DS_ERR_DATA : DS_ERR_IO, "%s: %s: %s", f->path, what, ncmpi_strerror(status));
}

const char *history_library(void) { return ncmpi_inq_libvers(); }

// What variable i is to be, fixed or the caller's.
static FixedVar var_spec(const Kind *kind, const HistorySpec *spec, int i) {
    if (i < kind->n_fixed) return kind->fixed[i];
    const HistoryVar *own = &spec->vars[i - kind->n_fixed];
    return (FixedVar){own->name, kind->var_type, kind->var_dims, own->units, own->long_name};
}

static void file_init(NcFile *f, const Kind *kind, const char *path, const HistorySpec *spec) {
    *f = (NcFile){.kind = kind, .path = mem_strdup(path), .ncid = -1, .n = kind->n_fixed + spec->n_vars};
    f->width = kind->var_dims == 2 ? spec->max_answer : 0;
    f->varid = MEM_NEW(int, f->n);
}

static void file_free(NcFile *f) { mem_free(f->varid), mem_free(f->path); }

static Err put_text(const NcFile *f, int varid, const char *name, const char *text) {
    if (!text) return DS_OK;
    return NC(ncmpi_put_att_text(f->ncid, varid, name, (MPI_Offset)strlen(text), text), f, name);
}

// Variable `stage` tells what its numbers mean: flag_values = 1 .. n for the n names of flag_meanings.
static Err define_flags(const NcFile *f, const char *stages) {
    Err err = DS_OK;
    int values[32], n = 0;
    for (const char *s = stages; *s && n < DS_COUNT(values); n++) {
        values[n] = n + 1;
        s += strcspn(s, " ");
        s += strspn(s, " ");
    }
    NC_TRY(ncmpi_put_att_int(f->ncid, f->varid[H_STAGE], "flag_values", NC_INT, n, values), f, "flag_values");
    DS_TRY(put_text(f, f->varid[H_STAGE], "flag_meanings", stages));
done:
    return err;
}

static Err define_var(NcFile *f, const FixedVar *v, const int *dims, int *id) {
    Err err = DS_OK;
    static const float nan_value = NAN;
    static const uint32_t no_token = UINT32_MAX;
    NC_TRY(ncmpi_def_var(f->ncid, v->name, v->type, v->n_dims, dims, id), f, v->name);
    DS_TRY(put_text(f, *id, "long_name", v->long_name));
    DS_TRY(put_text(f, *id, "units", v->units));
    if (v->type == NC_FLOAT)
        NC_TRY(ncmpi_put_att_float(f->ncid, *id, "_FillValue", NC_FLOAT, 1, &nan_value), f, v->name);
    if (v->type == NC_UINT) NC_TRY(ncmpi_put_att_uint(f->ncid, *id, "_FillValue", NC_UINT, 1, &no_token), f, v->name);
done:
    return err;
}

// Header of a new file: dimension, variables, attributes.
static Err define_file(NcFile *f, const HistorySpec *spec) {
    Err err = DS_OK;
    int dims[2] = {-1, -1};
    DS_TRY(put_text(f, NC_GLOBAL, "Conventions", "CF-1.8"));
    DS_TRY(put_text(f, NC_GLOBAL, "title", f->kind->title));
    DS_TRY(put_text(f, NC_GLOBAL, "dschat_format", f->kind->format));
    for (int i = 0; spec->origin && i < spec->origin->n; i++)
        DS_TRY(put_text(f, NC_GLOBAL, spec->origin->entries[i].name, spec->origin->entries[i].value));
    NC_TRY(ncmpi_def_dim(f->ncid, f->kind->dim, NC_UNLIMITED, &dims[0]), f, f->kind->dim);
    if (f->width > 0) NC_TRY(ncmpi_def_dim(f->ncid, "position", f->width, &dims[1]), f, "position");
    for (int i = 0; i < f->n; i++) {
        FixedVar v = var_spec(f->kind, spec, i);
        DS_TRY(define_var(f, &v, dims, &f->varid[i]));
    }
    if (f->kind == &kind_history) DS_TRY(define_flags(f, spec->stages));
    NC_TRY(ncmpi_enddef(f->ncid), f, "header");
done:
    return err;
}

// Is the open file of this kind, as its attribute says?
static Err check_format(const NcFile *f) {
    Err err = DS_OK;
    char text[FORMAT_MAX + 1] = "";
    nc_type type = NC_NAT;
    MPI_Offset n = 0;
    int got = ncmpi_inq_att(f->ncid, NC_GLOBAL, "dschat_format", &type, &n);
    DS_CHECK(got == NC_NOERR && type == NC_CHAR && n <= FORMAT_MAX, DS_ERR_DATA,
             "%s: not written by dschat (no attribute dschat_format)", f->path);
    NC_TRY(ncmpi_get_att_text(f->ncid, NC_GLOBAL, "dschat_format", text), f, "dschat_format");
    DS_CHECK(strcmp(text, f->kind->format) == 0, DS_ERR_DATA, "%s: its format is '%s', expected '%s'", f->path, text,
             f->kind->format);
done:
    return err;
}

// Variable v is there, of its type, over the record dimension (and that of positions, of the right length).
static Err check_var(const NcFile *f, const FixedVar *v, int record_dim, int *id) {
    Err err = DS_OK;
    nc_type type = NC_NAT;
    int dims[2] = {-1, -1}, n_dims = 0;
    MPI_Offset width = 0;
    DS_CHECK(ncmpi_inq_varid(f->ncid, v->name, id) == NC_NOERR, DS_ERR_DATA,
             "%s: it has no variable '%s', so another version or another run wrote it", f->path, v->name);
    NC_TRY(ncmpi_inq_varndims(f->ncid, *id, &n_dims), f, v->name);
    DS_CHECK(n_dims == v->n_dims, DS_ERR_DATA, "%s: variable '%s' has %d dimensions, expected %d", f->path, v->name,
             n_dims, v->n_dims);
    NC_TRY(ncmpi_inq_var(f->ncid, *id, NULL, &type, NULL, dims, NULL), f, v->name);
    DS_CHECK(type == v->type && dims[0] == record_dim, DS_ERR_DATA,
             "%s: variable '%s' is of netCDF type %d, expected type %d over dimension '%s'", f->path, v->name, type,
             v->type, f->kind->dim);
    if (n_dims == 2) {
        NC_TRY(ncmpi_inq_dimlen(f->ncid, dims[1], &width), f, v->name);
        DS_CHECK(width == f->width, DS_ERR_DATA,
                 "%s: variable '%s' has room for %lld tokens an answer, this run has %lld", f->path, v->name,
                 (long long)width, (long long)f->width);
    }
done:
    return err;
}

// Where record 0 begins.
static Err records_begin(const NcFile *f, size_t *begin) {
    Err err = DS_OK;
    *begin = SIZE_MAX;
    for (int i = 0; i < f->n; i++) {
        MPI_Offset offset = 0;
        NC_TRY(ncmpi_inq_varoffset(f->ncid, f->varid[i], &offset), f, "offset of a variable");
        DS_CHECK(offset > 0, DS_ERR_DATA, "%s: damaged: a variable begins at byte %lld", f->path, (long long)offset);
        if ((size_t)offset < *begin) *begin = (size_t)offset;
    }
done:
    return err;
}

// The bytes that `records` records and all before them take.
static Err bytes_for(const NcFile *f, int64_t records, size_t *bytes) {
    Err err = DS_OK;
    size_t begin = 0, all = 0;
    MPI_Offset record_bytes = 0;
    DS_TRY(records_begin(f, &begin));
    NC_TRY(ncmpi_inq_recsize(f->ncid, &record_bytes), f, "size of a record");
    DS_CHECK(records >= 0 && record_bytes > 0 && mem_mul((size_t)records, (size_t)record_bytes, &all) &&
                 mem_add(all, begin, bytes),
             DS_ERR_DATA, "%s: damaged: it claims %lld records of %lld bytes", f->path, (long long)records,
             (long long)record_bytes);
done:
    return err;
}

// The open file holds what `spec` describes, and all the bytes that its header promises.
static Err check_file(NcFile *f, const HistorySpec *spec, int64_t file_bytes) {
    Err err = DS_OK;
    int n_vars = 0, record_dim = -1;
    size_t want = 0;
    MPI_Offset records = 0;
    DS_TRY(check_format(f));
    NC_TRY(ncmpi_inq(f->ncid, NULL, &n_vars, NULL, &record_dim), f, "header");
    DS_CHECK(n_vars == f->n && record_dim >= 0, DS_ERR_DATA,
             "%s: it has %d variables, expected %d over the unlimited dimension '%s'", f->path, n_vars, f->n,
             f->kind->dim);
    for (int i = 0; i < f->n; i++) {
        FixedVar v = var_spec(f->kind, spec, i);
        DS_TRY(check_var(f, &v, record_dim, &f->varid[i]));
    }
    NC_TRY(ncmpi_inq_dimlen(f->ncid, record_dim, &records), f, f->kind->dim);
    DS_TRY(bytes_for(f, records, &want));
    DS_CHECK(want <= (size_t)file_bytes, DS_ERR_DATA, "%s: cut short: %lld bytes, its %lld records need %zu", f->path,
             (long long)file_bytes, (long long)records, want);
    f->records = records;
done:
    return err;
}

// Writes a smaller record count into the header (bytes 4.., big-endian, 4 or 8 of them) and cuts the file behind it.
static Err drop_records(const NcFile *f, int64_t keep, size_t bytes) {
    Err err = DS_OK;
    unsigned char count[8];
    int width = f->kind->cdf == 5 ? 8 : 4;
    for (int i = 0; i < width; i++) count[i] = (unsigned char)((uint64_t)keep >> (8 * (width - 1 - i)));
    int fd = open(f->path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    DS_CHECK(fd >= 0, DS_ERR_IO, "%s: %s", f->path, strerror(errno));
    DS_TRY(file_pwrite(fd, f->path, count, (size_t)width, 4));
    DS_CHECK(!ftruncate(fd, (off_t)bytes) && !fsync(fd), DS_ERR_IO, "%s: cannot be cut: %s", f->path, strerror(errno));
done:
    if (fd >= 0) close(fd);
    return err;
}

// The number of records of iterations below `from`: they are in ascending order.
static Err records_below(const NcFile *f, int64_t from, int64_t *records) {
    Err err = DS_OK;
    int64_t low = 0, high = f->records;
    while (low < high) {
        int iteration = 0;
        MPI_Offset middle = low + (high - low) / 2;
        NC_TRY(ncmpi_get_var1_int_all(f->ncid, f->varid[R_ITERATION], &middle, &iteration), f, "iteration");
        if (iteration < from) low = middle + 1;
        else high = middle;
    }
    *records = low;
done:
    return err;
}

// f->header of an open file.
static Err hash_header(NcFile *f) {
    MPI_Offset bytes = 0;
    Err err = NC(ncmpi_inq_header_size(f->ncid, &bytes), f, "size of the header");
    return err ? err : recordsum_header(f->path, f->kind->cdf, (size_t)bytes, &f->header);
}

// The records that stay have their checksums. On a file so large that this takes minutes it says how far it came.
static Err check_records(NcFile *f, int64_t records) {
    Err err = DS_OK;
    RecordPlace place = {0};
    MPI_Offset at = 0, record_bytes = 0;
    int64_t checked = 0;
    DS_TRY(records_begin(f, &place.begin));
    DS_TRY(hash_header(f));
    place.header = f->header;
    NC_TRY(ncmpi_inq_recsize(f->ncid, &record_bytes), f, "size of a record");
    NC_TRY(ncmpi_inq_varoffset(f->ncid, f->varid[f->kind->sum], &at), f, "offset of a variable");
    place.record_bytes = (size_t)record_bytes;
    place.at = (size_t)at - place.begin;
    DS_CHECK(place.at <= place.record_bytes - 4, DS_ERR_DATA, "%s: damaged: its variables do not lie side by side",
             f->path);
    DS_TRY(recordsum_check(f->path, &place, records, CHECK_SECONDS, &checked));
    if (checked < records)
        log_info("note: %s: %lld of its %lld records were verified in %d s, the others were not", f->path,
                 (long long)checked, (long long)records, CHECK_SECONDS);
done:
    return err;
}

// Looks through an existing file and drops what lies past the checkpoint: `keep` records (history) or iterations
// (rollouts) stay. One rank's work; the file is closed again at the end.
static Err rewind_file(NcFile *f, const HistorySpec *spec, int64_t keep) {
    Err err = DS_OK;
    int64_t file_bytes = 0, records = keep;
    size_t bytes = 0;
    DS_TRY(ncheader_check(f->path, f->kind->cdf, &file_bytes));
    NC_TRY(ncmpi_open(MPI_COMM_SELF, f->path, NC_NOWRITE, MPI_INFO_NULL, &f->ncid), f, "damaged header");
    DS_TRY(check_file(f, spec, file_bytes));
    if (f->kind == &kind_rollouts) DS_TRY(records_below(f, keep, &records));
    DS_CHECK(records <= f->records, DS_ERR_DATA, "%s: it has %lld records, the checkpoint was written after %lld",
             f->path, (long long)f->records, (long long)records);
    DS_TRY(bytes_for(f, records, &bytes));
    DS_TRY(check_records(f, records));
done:
    if (f->ncid >= 0) {
        enter(f, "ncmpi_close");
        ncmpi_close(f->ncid);
        watchdog_leave();
    }
    f->ncid = -1;
    if (!err && (records < f->records || bytes < (size_t)file_bytes)) err = drop_records(f, records, bytes);
    f->records = records;
    return err;
}

// Opens or creates the file; `comm` is NULL on the ranks that leave it to others. The code is the same on all ranks.
static Err open_file(NcFile *f, const HistorySpec *spec, int64_t keep, const MPI_Comm *comm) {
    Err err = DS_OK;
    int64_t state[2] = {0, 0}; // does the file go on? with how many records?
    if (world_rank() == 0) err = output_check(f->path);
    if (world_rank() == 0 && !err && keep > 0) {
        if (file_exists(f->path)) {
            err = rewind_file(f, spec, keep);
            state[0] = 1;
            state[1] = f->records;
        } else log_warn("%s is missing: the steps before the checkpoint are lost from it", f->path);
    }
    DS_TRY(agree_err(group_world(), err));
    coll_bcast(group_world(), state, sizeof state, 0);
    f->records = state[1];
    f->shared = comm == world_comm();
    if (comm && state[0]) {
        err = NC(ncmpi_open(*comm, f->path, NC_WRITE, MPI_INFO_NULL, &f->ncid), f, "cannot be opened");
        for (int i = 0; !err && i < f->n; i++)
            err = NC(ncmpi_inq_varid(f->ncid, var_spec(f->kind, spec, i).name, &f->varid[i]), f, "variable");
    } else if (comm) {
        int mode = NC_CLOBBER | (f->kind->cdf == 5 ? NC_64BIT_DATA : NC_64BIT_OFFSET);
        err = NC(ncmpi_create(*comm, f->path, mode, MPI_INFO_NULL, &f->ncid), f, "cannot be created");
        if (!err) err = define_file(f, spec);
        if (!err && world_rank() == 0) err = hash_header(f);
    }
    DS_TRY(agree_err(group_world(), err));
    coll_bcast(group_world(), &f->header, sizeof f->header, 0);
done:
    return err;
}

// Each rank by itself: in ncmpi_sync the others would wait for ever for one whose fsync fails.
static Err sync_file(const NcFile *f) { return f->ncid < 0 ? DS_OK : file_sync(f->path); }

static Err close_file(NcFile *f) {
    Err err = sync_file(f), closed = f->ncid < 0 ? DS_OK : NC(ncmpi_close(f->ncid), f, "close");
    f->ncid = -1;
    return err ? err : closed;
}

// ---- history.nc ----

Err history_open(const char *path, const HistorySpec *spec, int64_t keep_records, History **out) {
    MPI_Comm self = MPI_COMM_SELF;
    History *h = MEM_NEW(History, 1);
    file_init(&h->file, &kind_history, path, spec);
    h->stages = mem_strdup(spec->stages);
    *out = h;
    Err err = open_file(&h->file, spec, keep_records, world_rank() == 0 ? &self : NULL);
    if (err) history_close(out);
    return err;
}

static Err put_record(History *h, const char *stage, int64_t step, double time_unix, const double *values) {
    Err err = DS_OK;
    NcFile *f = &h->file;
    int number = text_word(h->stages, stage), small_step = (int)step, sum;
    MPI_Offset at = f->records, one = 1;
    DS_CHECK(number > 0, DS_ERR_BUG, "%s: stage '%s' is not among '%s'", f->path, stage, h->stages);
    DS_CHECK(step >= 0 && step <= INT_MAX, DS_ERR_BUG, "%s: step %lld", f->path, (long long)step);
    NC_TRY(ncmpi_iput_vara_int(f->ncid, f->varid[H_STAGE], &at, &one, &number, NULL), f, "stage");
    NC_TRY(ncmpi_iput_vara_int(f->ncid, f->varid[H_STEP], &at, &one, &small_step, NULL), f, "step");
    NC_TRY(ncmpi_iput_vara_double(f->ncid, f->varid[H_TIME], &at, &one, &time_unix, NULL), f, "time");
    sum = recordsum_of_step(&f->header, number, small_step, time_unix, values, f->n - H_FIXED);
    NC_TRY(ncmpi_iput_vara_int(f->ncid, f->varid[H_SUM], &at, &one, &sum, NULL), f, "checksum");
    for (int i = H_FIXED; i < f->n; i++)
        NC_TRY(ncmpi_iput_vara_double(f->ncid, f->varid[i], &at, &one, &values[i - H_FIXED], NULL), f, "scalar");
    NC_TRY(ncmpi_wait_all(f->ncid, NC_PUT_REQ_ALL, NULL, NULL), f, "writing a record");
    f->records++;
done:
    return err;
}

void history_put(History *h, const char *stage, int64_t step, double time_unix, const double *values) {
    if (h->file.ncid < 0 || h->err) return;
    h->err = put_record(h, stage, step, time_unix, values);
    if (h->err) h->why = mem_strdup(err_text());
}

int64_t history_records(const History *h) { return h->file.records; }

Err history_sync(History *h) {
    Err err = h->err ? err_set(h->err, "%s", h->why) : sync_file(&h->file);
    return agree_err(group_world(), err);
}

Err history_close(History **h) {
    if (!*h) return DS_OK;
    Err err = (*h)->err ? err_set((*h)->err, "%s", (*h)->why) : DS_OK, closed = close_file(&(*h)->file);
    file_free(&(*h)->file);
    mem_free((*h)->stages);
    mem_free((*h)->why);
    MEM_FREE(*h);
    return agree_err(group_world(), err ? err : closed);
}

// ---- rollouts.nc ----

Err history_open_rollouts(const char *path, const HistorySpec *spec, int64_t from_iteration, Rollouts **out) {
    Err err = DS_OK;
    Rollouts *r = MEM_NEW(Rollouts, 1);
    file_init(&r->file, &kind_rollouts, path, spec);
    *out = r;
    DS_TRY(open_file(&r->file, spec, from_iteration, world_comm()));
    r->last_iteration = r->file.records > 0 ? from_iteration - 1 : -1;
done:
    if (err) history_close_rollouts(out);
    return err;
}

// An answer as all ranks know it.
typedef struct {
    int64_t sample, length;
    int64_t rank, index; // who holds it, and where among its own
} Place;

static int by_sample(const void *a, const void *b) {
    int64_t x = ((const Place *)a)->sample, y = ((const Place *)b)->sample;
    return x < y ? -1 : x > y;
}

// Tells all ranks of all answers: *places [n_places], in the order of the file. Owner: caller. The same result on all
// ranks.
static Err place_answers(const NcFile *f, const RolloutAnswer *answers, int64_t n, Place **places, int64_t *n_places) {
    Err err = DS_OK;
    const Group *world = group_world();
    Place *mine = MEM_NEW(Place, n), *p;
    size_t *offset = mem_array(group_size(world) + 1, sizeof *offset);
    void *all = NULL;
    for (int64_t i = 0; i < n; i++) mine[i] = (Place){answers[i].sample, answers[i].length, group_rank(world), i};
    coll_allgatherv(world, mine, (size_t)n * sizeof *mine, &all, offset);
    *places = p = all;
    *n_places = (int64_t)(offset[group_size(world)] / sizeof *mine);
    qsort(p, (size_t)*n_places, sizeof *p, by_sample);
    for (int64_t i = 0; i < *n_places; i++) {
        DS_CHECK(p[i].length >= 0 && p[i].length <= f->width, DS_ERR_BUG,
                 "%s: sample %lld has %lld tokens, room is for %lld", f->path, (long long)p[i].sample,
                 (long long)p[i].length, (long long)f->width);
        DS_CHECK(i == 0 || p[i - 1].sample < p[i].sample, DS_ERR_BUG, "%s: two answers have the sample id %lld",
                 f->path, (long long)p[i].sample);
    }
done:
    mem_free(mine);
    mem_free(offset);
    return err;
}

static void part_fill(RolloutPart *p, const NcFile *f, int iteration, const RolloutAnswer *answers, const Place *places,
                      int64_t n_places) {
    int64_t n = 0;
    for (int64_t i = 0; i < n_places; i++) n += places[i].rank == world_rank();
    part_alloc(p, n, f->width, f->n - R_FIXED);
    n = 0;
    for (int64_t i = 0; i < n_places; i++) {
        if (places[i].rank != world_rank()) continue;
        if (i == 0 || places[i - 1].rank != world_rank()) {
            p->begin[p->runs] = n;
            p->first[p->runs++] = f->records + i;
        }
        part_set(p, n++, &answers[places[i].index], iteration, f->n - R_FIXED);
    }
    p->begin[p->runs] = n;
    part_sums(p, &f->header, f->n - R_FIXED);
}

// Queues this rank's runs, then writes all ranks' in one collective call, which no rank leaves out, whatever happened
// before.
static Err put_part(const NcFile *f, const RolloutPart *p) {
    Err err = DS_OK, written;
    const int *id = f->varid;
    for (int64_t k = 0; k < p->runs; k++) {
        int64_t at = p->begin[k];
        MPI_Offset s[2] = {p->first[k], 0}, c[2] = {p->begin[k + 1] - at, p->width};
        NC_TRY(ncmpi_iput_vara_int(f->ncid, id[R_ITERATION], s, c, p->iteration + at, NULL), f, "iteration");
        NC_TRY(ncmpi_iput_vara_longlong(f->ncid, id[R_SAMPLE], s, c, p->sample + at, NULL), f, "sample");
        NC_TRY(ncmpi_iput_vara_int(f->ncid, id[R_LENGTH], s, c, p->length + at, NULL), f, "length");
        NC_TRY(ncmpi_iput_vara_int(f->ncid, id[R_SUM], s, c, p->sum + at, NULL), f, "checksum");
        NC_TRY(ncmpi_iput_vara_uint(f->ncid, id[R_TOKEN], s, c, p->token + at * p->width, NULL), f, "token_id");
        for (int v = 0; v < f->n - R_FIXED; v++) {
            const float *rows = p->value + (v * p->n + at) * p->width;
            NC_TRY(ncmpi_iput_vara_float(f->ncid, id[R_FIXED + v], s, c, rows, NULL), f, "values");
        }
    }
done:
    written = NC(ncmpi_wait_all(f->ncid, NC_PUT_REQ_ALL, NULL, NULL), f, "writing answers");
    return err ? err : written;
}

Err history_put_rollouts(Rollouts *r, int64_t iteration, const RolloutAnswer *answers, int64_t n) {
    Err err = DS_OK;
    Place *places = NULL;
    RolloutPart part = {0};
    int64_t n_places = 0;
    DS_TRY(place_answers(&r->file, answers, n, &places, &n_places));
    DS_CHECK(iteration > r->last_iteration && iteration <= INT_MAX && n_places <= INT_MAX, DS_ERR_BUG,
             "%s: iteration %lld with %lld answers after iteration %lld", r->file.path, (long long)iteration,
             (long long)n_places, (long long)r->last_iteration);
    part_fill(&part, &r->file, (int)iteration, answers, places, n_places);
    DS_TRY(agree_err(group_world(), put_part(&r->file, &part)));
    r->file.records += n_places;
    r->last_iteration = iteration;
done:
    part_free(&part);
    mem_free(places);
    return err;
}

Err history_sync_rollouts(Rollouts *r) { return agree_err(group_world(), sync_file(&r->file)); }

Err history_close_rollouts(Rollouts **r) {
    if (!*r) return DS_OK;
    Err err = close_file(&(*r)->file);
    file_free(&(*r)->file);
    MEM_FREE(*r);
    return agree_err(group_world(), err);
}
