// preflight_disk.c: see preflight_disk.h.
#include "stage/preflight_disk.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "model/new_model.h"

enum { FLOATS = 3 }; // a weight in a checkpoint: fp32 with two moments

void disk_need_product(DiskNeed *d, const Arch *a, const ModelParams *keys, bool average) {
    d->products += arch_param_count(a) * (int64_t)dtype_bytes(keys->dtype) * (1 + average);
}

void disk_need_checkpoint(DiskNeed *d, StageKind stage, const Arch *a, const ModelParams *keys, bool average) {
    d->checkpoint[stage] += new_model_trained(a, keys) * (int64_t)sizeof(float) * (FLOATS + average);
}

// The folder, or the nearest one above it that is there. Owner: caller, mem_free.
static char *nearest_folder(const char *path) {
    char *at = mem_strdup(path);
    while (access(at, F_OK) != 0) {
        char *slash = strrchr(at, '/');
        if (!slash || slash == at) {
            mem_free(at);
            return mem_strdup(slash ? "/" : ".");
        }
        *slash = 0;
    }
    return at;
}

// So many checkpoints lie there at a time: the one that is being written, beside those that are kept.
static int64_t checkpoints_at_once(const Params *p) {
    const bool regular = p->checkpoint.every_steps > 0 || p->checkpoint.every_minutes > 0;
    return regular ? p->checkpoint.keep + 1 : 1;
}

Err disk_check(const DiskNeed *d, const Params *p, char **words) {
    Err err = DS_OK;
    int64_t largest = 0, there = 0, need;
    uint64_t room = 0;
    char text[4][32], *folder = nearest_folder(p->job.out), *old = mem_printf("%s/checkpoints", p->job.out);
    *words = NULL;
    DS_CHECK(file_is_dir(folder), DS_ERR_IO, "[job] out = %s: %s is not a folder", p->job.out, folder);
    DS_CHECK(access(folder, W_OK | X_OK) == 0, DS_ERR_IO, "[job] out = %s: %s cannot be written: %s", p->job.out,
             folder, strerror(errno));
    DS_TRY(file_free_bytes(folder, &room));
    if (file_exists(old)) DS_TRY(file_tree_bytes(old, &there));
    for (int i = 0; i < STAGE_KINDS; i++) largest = ds_max(largest, d->checkpoint[i]);
    // What lies there goes before as much again is written.
    need = d->products + ds_max(largest, checkpoints_at_once(p) * largest - there);
    if (d->products + largest == 0) goto done; // nothing is left to do, or nothing is known
    *words = mem_printf("%s: products of %s, up to %lld checkpoints of %s; %s are free", p->job.out,
                        text_bytes(text[0], (double)d->products), (long long)checkpoints_at_once(p),
                        text_bytes(text[1], (double)largest), text_bytes(text[2], (double)room));
    DS_CHECK((uint64_t)need <= room, DS_ERR_IO,
             "%s: the run needs %s more: expected room for that, another [job] out, or a smaller [checkpoint] keep "
             "than %lld",
             *words, text_bytes(text[3], (double)need - (double)room), (long long)p->checkpoint.keep);
done:
    mem_free(folder);
    mem_free(old);
    return err;
}
