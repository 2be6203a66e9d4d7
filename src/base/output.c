// output.c: see output.h.
#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

// Whom new files in the folder belong to: not always this process's user (a file server that takes root for nobody).
static Err owner_of_new(const char *folder, uid_t *owner) {
    Err err = DS_OK;
    struct stat st;
    uint64_t token = 0; // processes of several nodes may have the same number
    if (getrandom(&token, sizeof token, GRND_NONBLOCK) < 0) token = (uint64_t)getpid();
    char *path = mem_printf("%s/.owner.%016llx", folder, (unsigned long long)token);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    DS_CHECK(fd >= 0 && fstat(fd, &st) == 0, DS_ERR_IO, "%s: nothing can be created in it: %s", folder,
             strerror(errno));
    *owner = st.st_uid;
done:
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    mem_free(path);
    return err;
}

static Err check_folder(const char *path) {
    Err err = DS_OK;
    struct stat st;
    uid_t owner = geteuid();
    DS_CHECK(stat(path, &st) == 0, DS_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    if (st.st_uid != owner) DS_TRY(owner_of_new(path, &owner));
    DS_CHECK(st.st_uid == owner, DS_ERR_IO,
             "%s: belongs to user %ld, expected a folder of yours (user %ld): take another name", path, (long)st.st_uid,
             (long)owner);
    DS_CHECK(!(st.st_mode & S_IWOTH) || st.st_mode & S_ISVTX, DS_ERR_IO,
             "%s: everybody may write in it (mode %04o), so its files could be anybody's: chmod o-w %s", path,
             (unsigned)st.st_mode & 07777, path);
done:
    return err;
}

Err output_folder(const char *path) {
    Err err = file_make_dirs(path);
    return err ? err : check_folder(path);
}

Err output_folder_inside(const char *path) {
    struct stat st;
    if (lstat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        return err_set(DS_ERR_IO, "%s: is %s, expected a folder: remove it", path,
                       S_ISLNK(st.st_mode) ? "a symbolic link" : "no folder");
    return output_folder(path);
}

Err output_check(const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? DS_OK : err_set(DS_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    if (S_ISREG(st.st_mode)) return DS_OK;
    return err_set(DS_ERR_IO, "%s: is %s, expected a regular file or none: remove it", path,
                   S_ISLNK(st.st_mode) ? "a symbolic link" : "no regular file");
}

Err output_append(const char *path, int *fd) {
    Err err = DS_OK;
    *fd = -1;
    DS_TRY(output_check(path));
    *fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    DS_CHECK(*fd >= 0, DS_ERR_IO, "%s: cannot open: %s", path,
             errno == ELOOP ? "it is a symbolic link" : strerror(errno));
done:
    return err;
}

Err output_flush(FILE *f) {
    const bool lost = ferror(f) != 0; // of an earlier write, whose reason is not kept
    if (fflush(f) == 0 && !lost) return DS_OK;
    return err_set(DS_ERR_IO, "the output cannot be written: %s", lost ? "a write failed" : strerror(errno));
}
