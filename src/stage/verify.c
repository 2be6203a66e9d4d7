// verify.c: see verify.h.
#include "stage/verify.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "io/h5_inspect.h"
#include "io/modelfile.h"

enum { MOST_FILES = 16 };

// Each path once.
typedef struct {
    char *path[MOST_FILES];
    bool model[MOST_FILES];
    int n;
} Inputs;

static void add(Inputs *in, const char *path, bool model) {
    if (!path[0]) return;
    for (int i = 0; i < in->n; i++)
        if (!strcmp(in->path[i], path)) return;
    in->model[in->n] = model;
    in->path[in->n++] = mem_strdup(path);
}

// A model of this run that a stage before has written.
static void add_product(Inputs *in, const Run *run, const char *name) {
    char *path = stage_model_path(run, name);
    add(in, path, true);
    mem_free(path);
}

static void list_inputs(Inputs *in, const Run *run, int stages) {
    const Params *p = run->p;
    const bool sft = stages & 1 << STAGE_SFT, rm = stages & 1 << STAGE_RM, ppo = stages & 1 << STAGE_PPO;
    if (sft) add(in, p->data.sft_file, false);
    if (rm) add(in, p->data.rm_file, false);
    if (ppo) add(in, p->data.ppo_file, false);
    if (ppo && p->ppo.ptx_coef > 0) add(in, p->data.ptx_file, false);
    if (sft || rm || ppo) add(in, p->actor.common.model, true);
    if (rm || ppo) add(in, p->reward.common.model, true);
    if (ppo) add(in, p->critic.common.model, true);
    if (ppo) add(in, p->reference.common.model, true);
    if (rm || ppo) add_product(in, run, "sft");
    if (ppo) add_product(in, run, "rm");
}

// This rank's share of a file that is there.
static Err verify_file(const Run *run, const char *path, bool model, H5Verified *v) {
    const int part = group_rank(run->world), parts = group_size(run->world);
    ModelFile *m = NULL;
    if (!model) return h5_sums_verify(path, part, parts, v);
    Err err = modelfile_open(path, &m);
    if (!err) err = modelfile_verify_until(m, part, parts, v);
    modelfile_close(&m);
    return err;
}

// All ranks' counts, and what they mean.
static void say(const Run *run, int files, H5Verified v, double seconds) {
    int64_t sum[] = {v.bytes, v.verified};
    char of[32], all[32];
    coll_sum_i64(run->world, sum, DS_COUNT(sum));
    coll_max_f64(run->world, &seconds, 1);
    text_bytes(of, (double)sum[1]);
    text_bytes(all, (double)sum[0]);
    if (sum[1] < sum[0])
        log_info(
            "note: inputs: %s of %s were verified in %d s, then the job began ([job] verify); the rest is when it is "
            "read",
            of, all, VERIFY_SECONDS);
    else if (files > 0) log_info("  inputs verified: %d files, %s, in %.1f s", files, of, seconds);
}

Err verify_inputs(const Run *run, int stages_left) {
    Err err = DS_OK;
    Inputs in = {0};
    const double began = clock_now();
    H5Verified v = {.until = began + VERIFY_SECONDS};
    int files = 0;
    if (run->p->job.verify == VERIFY_NO) {
        log_info("note: inputs are not verified before the job begins ([job] verify = no)");
        return DS_OK;
    }
    list_inputs(&in, run, run->p->job.verify == VERIFY_ALL ? ~0 : stages_left);
    for (int i = 0; i < in.n; i++) {
        int64_t there = group_rank(run->world) == 0 && !file_absent(in.path[i]);
        coll_bcast(run->world, &there, sizeof there, 0);
        if (!there) continue;
        v.without = 0;
        err = h5_inspect_for_all(run->world, in.path[i]);
        if (!err) err = verify_file(run, in.path[i], in.model[i], &v);
        DS_TRY(agree_err(run->world, err));
        if (v.without) log_info("note: %s has no hashes in it, so damage would not be noticed", in.path[i]);
        files++;
    }
    say(run, files, v, clock_now() - began);
done:
    for (int i = 0; i < in.n; i++) mem_free(in.path[i]);
    return err;
}
