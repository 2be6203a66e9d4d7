// file.c: see file.h. Durable replacement is: write a new name, sync it, rename, sync the folder.
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/expand.h"
#include "base/mem.h"
#include "base/watchdog.h"

static Err check_regular(int fd, const char *path, int64_t *bytes) {
    struct stat st;
    if (fstat(fd, &st) != 0) return err_set(DS_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return err_set(DS_ERR_IO, "%s: is not a regular file", path);
    *bytes = st.st_size;
    return DS_OK;
}

Err file_open_read(const char *path, int *fd, int64_t *bytes) {
    Err err = DS_OK;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // NONBLOCK: a FIFO must not hang us
    const int error = errno;
    char *hint = *fd < 0 ? expand_refusal(path) : NULL; // of an argument that no shell has seen
    DS_CHECK(*fd >= 0, DS_ERR_IO, "%s: cannot open: %s%s%s", path, strerror(error), hint ? "; " : "", hint ? hint : "");
    err = check_regular(*fd, path, bytes);
    if (err) close(*fd), *fd = -1;
done:
    mem_free(hint);
    return err;
}

Err file_open_inside(const char *dir, const char *name, int *fd, int64_t *bytes) {
    Err err = DS_OK;
    int folder = -1;
    *fd = -1;
    DS_CHECK(name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0, DS_ERR_DATA,
             "%s: names the file \"%s\", which is not a plain file name inside the folder", dir, name);
    folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DS_CHECK(folder >= 0, DS_ERR_IO, "%s: cannot open folder: %s", dir, strerror(errno));
    *fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    DS_CHECK(*fd >= 0, DS_ERR_IO, "%s/%s: cannot open: %s", dir, name,
             errno == ELOOP ? "it is a symbolic link" : strerror(errno));
    err = check_regular(*fd, name, bytes);
    if (err) close(*fd), *fd = -1;
done:
    if (folder >= 0) close(folder);
    return err;
}

Err file_pread(int fd, const char *path, void *out, size_t bytes, int64_t at) {
    for (size_t got = 0; got < bytes;) {
        ssize_t n = pread(fd, (char *)out + got, bytes - got, (off_t)(at + (int64_t)got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return err_set(DS_ERR_IO, "%s: cannot read %zu bytes at %lld: %s", path, bytes, (long long)at,
                           strerror(errno));
        if (n == 0)
            return err_set(DS_ERR_DATA, "%s: ends at byte %lld, where %zu more are expected", path,
                           (long long)at + (long long)got, bytes - got);
        got += (size_t)n;
    }
    return DS_OK;
}

Err file_pwrite(int fd, const char *path, const void *data, size_t bytes, int64_t at) {
    for (size_t put = 0; put < bytes;) {
        ssize_t n = pwrite(fd, (const char *)data + put, bytes - put, (off_t)(at + (int64_t)put));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return err_set(DS_ERR_IO, "%s: cannot write %zu bytes at %lld: %s", path, bytes, (long long)at,
                           strerror(n ? errno : ENOSPC));
        put += (size_t)n;
    }
    return DS_OK;
}

static Err map_fd(int fd, int64_t bytes, const char *path, FileMap *map) {
    *map = (FileMap){.data = "", .bytes = (size_t)bytes};
    if (bytes > 0) {
        void *p = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            close(fd);
            *map = (FileMap){0};
            return err_set(DS_ERR_IO, "%s: cannot map %lld bytes: %s", path, (long long)bytes, strerror(errno));
        }
        map->data = map->mapped = p;
    }
    close(fd);
    return DS_OK;
}

Err file_map(const char *path, FileMap *map) {
    int fd;
    int64_t bytes;
    *map = (FileMap){0};
    Err err = file_open_read(path, &fd, &bytes);
    return err ? err : map_fd(fd, bytes, path, map);
}

Err file_map_inside(const char *dir, const char *name, FileMap *map) {
    int fd;
    int64_t bytes;
    *map = (FileMap){0};
    Err err = file_open_inside(dir, name, &fd, &bytes);
    return err ? err : map_fd(fd, bytes, name, map);
}

void file_unmap(FileMap *map) {
    if (map->mapped) munmap(map->mapped, map->bytes);
    *map = (FileMap){0};
}

Err file_read_all(const char *path, size_t max_bytes, char **data, size_t *bytes) {
    Err err = DS_OK;
    int fd = -1;
    int64_t n = 0;
    *data = NULL;
    DS_TRY(file_open_read(path, &fd, &n));
    DS_CHECK((uint64_t)n <= max_bytes, DS_ERR_DATA, "%s: has %lld bytes, at most %zu are allowed here", path,
             (long long)n, max_bytes);
    *data = mem_alloc((size_t)n + 1);
    DS_TRY(file_pread(fd, path, *data, (size_t)n, 0));
    *bytes = (size_t)n;
done:
    if (fd >= 0) close(fd);
    if (err) MEM_FREE(*data);
    return err;
}

// Writes back what the system still holds of a file, in pieces: the watchdog sees that it moves.
static Err write_back(int fd, const char *path) {
    enum { PIECE = 64 << 20, NOW = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER };
    Err err = DS_OK;
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return DS_OK;
    for (off_t at = 0; at < st.st_size; at += PIECE) {
        const bool here = sync_file_range(fd, at, PIECE, NOW) == 0;
        DS_CHECK(here || (errno != EIO && errno != ENOSPC && errno != EDQUOT), DS_ERR_IO, "%s: cannot write: %s", path,
                 strerror(errno));
        if (!here) break; // a file system without it
        watchdog_tick();
    }
done:
    return err;
}

Err file_sync_open(int fd, const char *path) {
    Err err = DS_OK;
    watchdog_enter(WATCH_FILE, "syncing", path);
    DS_TRY(write_back(fd, path));
    DS_CHECK(fsync(fd) == 0, DS_ERR_IO, "%s: fsync failed: %s", path, strerror(errno));
done:
    watchdog_leave();
    return err;
}

Err file_sync(const char *path) {
    Err err = DS_OK;
    watchdog_enter(WATCH_FILE, "syncing", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    DS_CHECK(fd >= 0, DS_ERR_IO, "%s: cannot open to sync: %s", path, strerror(errno));
    DS_TRY(file_sync_open(fd, path));
done:
    watchdog_leave();
    if (fd >= 0) close(fd);
    return err;
}

static Err sync_parent(const char *path) {
    char *copy = mem_strdup(path);
    Err err = file_sync(dirname(copy));
    mem_free(copy);
    return err;
}

Err file_rename_durable(const char *from, const char *to) {
    if (rename(from, to) != 0) return err_set(DS_ERR_IO, "%s: cannot rename to %s: %s", from, to, strerror(errno));
    return sync_parent(to);
}

Err file_write_atomic(const char *path, const void *data, size_t bytes) {
    Err err = DS_OK;
    char *temporary = mem_printf("%s.tmp.%ld", path, (long)getpid());
    watchdog_enter(WATCH_FILE, "writing", path);
    unlink(temporary); // of a process of that number that was ended
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    DS_CHECK(fd >= 0, DS_ERR_IO, "%s: cannot create: %s", temporary, strerror(errno));
    DS_TRY(file_pwrite(fd, temporary, data, bytes, 0));
    DS_CHECK(fsync(fd) == 0, DS_ERR_IO, "%s: fsync failed: %s", temporary, strerror(errno));
    int closed = close(fd);
    fd = -1;
    DS_CHECK(closed == 0, DS_ERR_IO, "%s: close failed: %s", temporary, strerror(errno));
    DS_TRY(file_rename_durable(temporary, path));
done:
    watchdog_leave();
    if (fd >= 0) close(fd);
    if (err) unlink(temporary);
    mem_free(temporary);
    return err;
}

Err file_make_dirs(const char *path) {
    Err err = DS_OK;
    char *copy = mem_strdup(path);
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p != 0) continue;
        char keep = *p;
        *p = 0;
        DS_CHECK(mkdir(copy, 0775) == 0 || errno == EEXIST, DS_ERR_IO, "%s: cannot create folder: %s", copy,
                 strerror(errno));
        *p = keep;
        if (!keep) break;
    }
    DS_CHECK(file_is_dir(path), DS_ERR_IO, "%s: is not a folder", path);
done:
    mem_free(copy);
    return err;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    watchdog_tick();
    return remove(path);
}

Err file_remove_tree(const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0) return DS_OK;
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return err_set(DS_ERR_IO, "%s: cannot remove: %s", path, strerror(errno));
    return DS_OK;
}

bool file_exists(const char *path) { return access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR); }

Err file_look(const char *path, bool *there) {
    *there = access(path, F_OK) == 0;
    if (*there || errno == ENOENT || errno == ENOTDIR) return DS_OK;
    return err_set(DS_ERR_IO, "%s: whether it is there cannot be told: %s", path, strerror(errno));
}

bool file_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

Err file_free_bytes(const char *path, uint64_t *bytes) {
    struct statvfs v;
    if (statvfs(path, &v) != 0) return err_set(DS_ERR_IO, "%s: cannot ask for free space: %s", path, strerror(errno));
    *bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return DS_OK;
}

static _Thread_local int64_t tree_bytes; // nftw hands nothing on

static int add_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)path, (void)ftw;
    if (type == FTW_F) tree_bytes += (int64_t)st->st_blocks * 512;
    return 0;
}

Err file_tree_bytes(const char *path, int64_t *bytes) {
    tree_bytes = 0;
    if (nftw(path, add_entry, 16, FTW_PHYS) != 0)
        return err_set(DS_ERR_IO, "%s: cannot be listed: %s", path, strerror(errno));
    *bytes = tree_bytes;
    return DS_OK;
}
