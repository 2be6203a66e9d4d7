// export_dir.c: see export_dir.h. A new folder is made beside its place and renamed; into one that is there (it may lie
// on another file system than the folder above it) the files are moved from a folder inside it.
#include "io/export_dir.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

static bool matches(const char *file, const char *name) {
    const size_t n = strlen(name);
    return n && name[n - 1] == '*' ? !strncmp(file, name, n - 1) : !strcmp(file, name);
}

static Err check_free(const char *dir, const char *const *names, int n) {
    Err err = DS_OK;
    DIR *d = opendir(dir);
    DS_CHECK(d, DS_ERR_IO, "%s: cannot list: %s", dir, strerror(errno));
    for (struct dirent *e; errno = 0, (e = readdir(d));)
        for (int i = 0; i < n; i++)
            DS_CHECK(!matches(e->d_name, names[i]), DS_ERR_IO,
                     "%s/%s: is there already, expected a folder without a model", dir, e->d_name);
    DS_CHECK(!errno, DS_ERR_IO, "%s: cannot list: %s", dir, strerror(errno));
done:
    if (d) closedir(d);
    return err;
}

// The highest folder above `path` that is not there; NULL: its own folder is. Owner: caller, mem_free.
static char *first_missing(const char *path) {
    char *missing = NULL, *at = mem_strdup(path);
    for (;;) {
        char *copy = mem_strdup(at), *parent = mem_strdup(dirname(copy));
        mem_free(copy);
        mem_free(at);
        at = parent;
        if (file_exists(at)) break;
        mem_free(missing);
        missing = mem_strdup(at);
    }
    mem_free(at);
    return missing;
}

// dir without the slashes at its end.
static char *plain_name(const char *dir) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    return mem_strndup(dir, n);
}

Err export_dir_begin(const char *dir, const char *const *names, int n, ExportDir *d) {
    Err err = DS_OK;
    char *plain = plain_name(dir);
    *d = (ExportDir){0};
    if (file_exists(plain)) {
        DS_CHECK(file_is_dir(plain), DS_ERR_IO, "%s: is not a folder", plain);
        DS_TRY(check_free(plain, names, n));
        d->work = mem_printf("%s/.export.tmp.%ld", plain, (long)getpid());
    } else {
        d->made = first_missing(plain);
        d->work = mem_printf("%s.tmp.%ld", plain, (long)getpid());
    }
    d->dir = mem_strdup(plain);
    DS_TRY(file_remove_tree(d->work));
    DS_TRY(file_make_dirs(d->work));
done:
    mem_free(plain);
    if (err) export_dir_end(d);
    return err;
}

// Moves one file; what is in its place is an error.
static Err move_in(const ExportDir *d, const char *name) {
    Err err = DS_OK;
    struct stat st;
    char *from = mem_printf("%s/%s", d->work, name), *to = mem_printf("%s/%s", d->dir, name);
    DS_CHECK(lstat(to, &st) != 0, DS_ERR_IO, "%s: is there already", to);
    DS_CHECK(rename(from, to) == 0, DS_ERR_IO, "%s: cannot rename to %s: %s", from, to, strerror(errno));
done:
    mem_free(from);
    mem_free(to);
    return err;
}

static void take_back(const ExportDir *d, const char *name) {
    char *path = mem_printf("%s/%s", d->dir, name);
    unlink(path);
    mem_free(path);
}

// Into a folder that is there: all files, or, on an error, none of them.
static Err move_all(const ExportDir *d) {
    enum { MAX_FILES = 4096 };
    Err err = DS_OK;
    DIR *list = opendir(d->work);
    char **moved = MEM_NEW(char *, MAX_FILES);
    int n = 0;
    DS_CHECK(list, DS_ERR_IO, "%s: cannot list: %s", d->work, strerror(errno));
    for (struct dirent *e; errno = 0, (e = readdir(list));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        DS_CHECK(n < MAX_FILES, DS_ERR_IO, "%s: more than %d files", d->work, MAX_FILES);
        DS_TRY(move_in(d, e->d_name));
        moved[n++] = mem_strdup(e->d_name);
    }
    DS_CHECK(!errno, DS_ERR_IO, "%s: cannot list: %s", d->work, strerror(errno));
    DS_CHECK(rmdir(d->work) == 0, DS_ERR_IO, "%s: cannot remove: %s", d->work, strerror(errno)); // no file was left out
    DS_TRY(file_sync(d->dir));
done:
    if (list) closedir(list);
    for (int i = 0; i < n; i++) {
        if (err) take_back(d, moved[i]);
        mem_free(moved[i]);
    }
    mem_free(moved);
    return err;
}

Err export_dir_commit(ExportDir *d) {
    Err err = DS_OK;
    if (file_is_dir(d->dir)) DS_TRY(move_all(d));
    else DS_TRY(file_rename_durable(d->work, d->dir));
    MEM_FREE(d->work);
done:
    return err;
}

// The folders between dir and `made`, which hold nothing any more.
static void remove_made(const ExportDir *d) {
    char *at = mem_strdup(d->dir);
    do {
        char *copy = mem_strdup(at), *parent = mem_strdup(dirname(copy));
        mem_free(copy);
        mem_free(at);
        at = parent;
    } while (rmdir(at) == 0 && strcmp(at, d->made) != 0);
    mem_free(at);
}

void export_dir_end(ExportDir *d) {
    if (d->work) {
        (void)file_remove_tree(d->work);
        if (d->made) remove_made(d);
    }
    mem_free(d->dir);
    mem_free(d->work);
    mem_free(d->made);
    *d = (ExportDir){0};
}
