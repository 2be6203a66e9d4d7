// job.c: params -> models and data -> stages in order -> the last screen. What a stage does is in src/stage/.
#include "job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/launcher.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/watchdog.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "comm/cores.h"
#include "comm/watch.h"
#include "comm/world.h"
#include "data/dataset.h"
#include "io/ckpt.h"
#include "io/h5.h"
#include "io/h5_inspect.h"
#include "io/starts.h"
#include "plan/plan.h"
#include "stage/preflight.h"
#include "stage/rerun.h"
#include "stage/screen.h"
#include "stage/stage_ppo.h"
#include "stage/stage_rm.h"
#include "stage/stage_sft.h"
#include "stage/stop.h"
#include "stage/verify.h"

// In the order of the key [job] stages.
static const Stage *const stages[] = {&stage_sft, &stage_rm, &stage_ppo};

typedef struct {
    Run run;
    Params *p;
    Origin origin;
    char *resume; // newest checkpoint, NULL: none
    const char *resume_stage;
    int64_t records;   // of history.nc that stay
    int64_t iteration; // of PPO from which rollouts.nc is written anew
    char *stop_file;
    Group *node;  // [checkpoint] files = node
    int threads;  // of this rank
    int bound;    // hardware threads that it keeps to, 0: any
    bool counted; // rank 0: starts.log waits for this start's end
} Job;

const char *job_commit(void) { return origin_commit(); }

static void fill_origin(Job *j) {
    const OriginLib libs[] = {{"MPI", world_mpi_version()},
                              {"HDF5", h5_library_version()},
                              {"PnetCDF", history_library()},
                              {"kernels", kernels_describe()}};
    origin_fill(&j->origin, "dschat", libs, DS_COUNT(libs));
    char *hash = params_hash(j->p), ranks[16];
    snprintf(ranks, sizeof ranks, "%d", world_size());
    origin_add(&j->origin, "ranks", ranks);
    origin_add(&j->origin, "params_sha256", hash);
    mem_free(hash);
    j->run.origin = &j->origin;
}

// Rank 0 takes the folder for this job; before that nothing in it is touched. A file STOP that lies there was meant for
// an earlier job, or for this one before it began: both ways it does not run.
static Err hold_folder(Job *j) {
    Err err = DS_OK;
    const char *out = j->p->job.out;
    j->stop_file = mem_printf("%s/STOP", out);
    watchdog_enter(WATCH_FILE, "taking the run's folder", out);
    if (world_rank() == 0) {
        DS_TRY(output_folder(out));
        DS_TRY(runlock_take(out, &j->run.lock));
        DS_TRY(stop_leftover(j->stop_file));
    }
done:
    watchdog_leave();
    return agree_root(group_world(), err);
}

// Rank 0's files of the run.
static Err open_folder(Job *j) {
    Err err = DS_OK;
    const char *out = j->p->job.out;
    char *log = mem_printf("%s/log.txt", out), *summary = mem_printf("%s/summary.json", out);
    char *models = mem_printf("%s/models", out), *checkpoints = mem_printf("%s/checkpoints", out);
    watchdog_enter(WATCH_FILE, "opening the run's folder", out);
    DS_TRY(output_folder(out));
    DS_TRY(output_folder_inside(models));
    DS_TRY(output_folder_inside(checkpoints));
    DS_TRY(summary_open(summary, &j->run.summary));
    if (world_rank() == 0) {
        DS_TRY(log_to_file(log));
        if (runlock_note(j->run.lock)) log_warn("%s: %s", out, runlock_note(j->run.lock));
        DS_TRY(ckpt_clean(checkpoints));
    }
done:
    watchdog_leave();
    mem_free(log);
    mem_free(summary);
    mem_free(models);
    mem_free(checkpoints);
    return err;
}

static bool stage_done(const Job *j, int i) { return j->run.products >> i & 1; }
static bool nothing_left(const Job *j) { return !(j->p->job.stages & ~j->run.products); }

// Finds what to go on from, and how much of the history that keeps.
static Err find_resume(Job *j) {
    Err err = DS_OK;
    Kv *kv = NULL;
    int64_t step = 0;
    char *dir = mem_printf("%s/checkpoints", j->p->job.out);
    watchdog_enter(WATCH_FILE, "looking for a checkpoint", dir);
    DS_TRY(ckpt_find_newest(j->run.world, dir, &j->resume));
    for (int i = 0; i < DS_COUNT(stages); i++) {
        char key[32];
        snprintf(key, sizeof key, "%s.records", stages[i]->name);
        if (stage_done(j, i) && isfinite(summary_get(j->run.summary, key)))
            j->records = (int64_t)summary_get(j->run.summary, key);
    }
    coll_bcast(j->run.world, &j->records, sizeof j->records, 0); // as rank 0 reads summary.json
    if (!j->resume) goto done;
    ckpt_parse(j->resume, &j->resume_stage, &step);
    for (int i = 0; i < DS_COUNT(stages); i++)
        if (!strcmp(stages[i]->name, j->resume_stage) && stage_done(j, i)) j->resume_stage = "";
    if (!j->resume_stage[0]) goto done;
    err = ckpt_read_state(j->resume, &kv);
    if (!err) err = kv_get_i64(kv, "history.records", &j->records);
    DS_TRY(agree_err(j->run.world, err));
    if (!strcmp(j->resume_stage, "ppo")) j->iteration = step;
    log_info("going on from %s", j->resume);
done:
    watchdog_leave();
    kv_destroy(&kv);
    mem_free(dir);
    return err;
}

// What this start may change of the run that it goes on with, and whether the run gets anywhere.
static Err check_start(Job *j) {
    Err err = DS_OK;
    int begun = 0, done_stages = 0;
    char *changes = NULL;
    const bool goes_on = j->resume && j->resume_stage[0];
    const char *name = nothing_left(j) ? "its end" : goes_on ? strrchr(j->resume, '/') + 1 : "between stages";
    for (int i = 0; i < DS_COUNT(stages); i++) {
        done_stages |= stage_done(j, i) << i;
        if (j->resume_stage && !strcmp(stages[i]->name, j->resume_stage)) begun = 1 << i;
    }
    DS_TRY(rerun_settle(&j->run, begun | done_stages, done_stages, name, &changes));
    if (changes) {
        origin_add(&j->origin, "params_changes", changes);
        summary_put_text(j->run.summary, "params_changes", changes);
    }
    j->counted = world_rank() == 0 && !nothing_left(j);
    if (j->counted) err = starts_begin(j->p->job.out, j->resume);
    j->counted = j->counted && !err;
    err = agree_root(j->run.world, err);
done:
    mem_free(changes);
    return err;
}

// The numbers of an answer's tokens in rollouts.nc, as stage_ppo.c puts them.
static const HistoryVar rollout_vars[] = {{"logprob", "1", "log-probability of the token when it was drawn, nats"},
                                          {"logprob_reference", "1", "the same by the reference model, nats"},
                                          {"value", "1", "the critic's value before the token"},
                                          {"reward", "1", "reward of the token: KL penalty, and the score at the last"},
                                          {"advantage", "1", "generalised advantage estimate"},
                                          {"return", "1", "advantage + value"}};

static Err open_history(Job *j) {
    Err err = DS_OK;
    char *path = mem_printf("%s/history.nc", j->p->job.out), *rollouts = mem_printf("%s/rollouts.nc", j->p->job.out);
    HistorySpec spec = {.vars = record_vars(), .n_vars = RECORD_N, .stages = "sft rm ppo", .origin = &j->origin};
    HistorySpec tokens = {.vars = rollout_vars,
                          .n_vars = DS_COUNT(rollout_vars),
                          .max_answer = j->p->generate.max_answer,
                          .origin = &j->origin};
    DS_TRY(history_open(path, &spec, j->records, &j->run.history));
    if (j->p->job.stages & (1 << STAGE_PPO) && !stage_done(j, STAGE_PPO))
        DS_TRY(history_open_rollouts(rollouts, &tokens, j->iteration, &j->run.rollouts));
done:
    mem_free(path);
    mem_free(rollouts);
    return err;
}

// The tokenizer and template of the data set of the first stage that will run.
static Err load_tokenizer(Job *j) {
    Err err = DS_OK;
    Dataset *d = NULL;
    const char *const files[] = {j->p->data.sft_file, j->p->data.rm_file, j->p->data.ppo_file};
    int first = 0;
    if (nothing_left(j)) return DS_OK;
    while (!(j->p->job.stages & (1 << first)) || stage_done(j, first)) first++;
    err = h5_inspect_for_all(j->run.world, files[first]);
    if (!err) err = dataset_open(files[first], &d);
    if (!err) err = dataset_tokenizer(d, &j->run.tok);
    DS_TRY(agree_err(j->run.world, err));
    ChatRoles roles = chat_text_roles(dataset_template(d));
    j->run.template = chat_text(dataset_template(d)->name, &roles);
done:
    dataset_close(&d);
    return err;
}

// recompute = fit: rank 0 decides for all, by the least memory that any of them has.
static Err fit_memory(Job *j) {
    Params *p = j->p;
    ModelParams *const trained[] = {&p->actor.common, &p->critic.common, &p->reward.common};
    double least = -plan_memory_gib(p, world_node_ranks());
    coll_max_f64(j->run.world, &least, 1);
    Err err = world_rank() == 0 ? plan_fit(p, world_size(), -least) : DS_OK;
    err = agree_err(j->run.world, err);
    for (int i = 0; i < DS_COUNT(trained); i++)
        coll_bcast(j->run.world, &trained[i]->keep_layers, sizeof trained[i]->keep_layers, 0);
    return err;
}

static void greet_fit(const char *model, const ModelParams *keys) {
    if (keys->recompute == RECOMPUTE_FIT)
        log_info("  %s: the last %lld layers keep their activations", model, (long long)keys->keep_layers);
}

static void say_line(const char *line, void *user) {
    (void)user;
    log_info("  %s", line);
}

static void greet(const Job *j) {
    log_info("dschat %s (%s), %d ranks on %d nodes, %s; %s -> %s", DS_VERSION, job_commit(), world_size(),
             world_node_count(), kernels_describe(), j->p->path, j->p->job.out);
    if (j->bound) log_info("  %d threads a rank, bound: rank 0 to %d hardware threads", j->threads, j->bound);
    else log_info("  %d threads a rank, not bound", j->threads);
    params_list_preset(j->p, say_line, NULL);
    greet_fit("actor", &j->p->actor.common);
    greet_fit("critic", &j->p->critic.common);
    greet_fit("reward", &j->p->reward.common);
}

// One instruction set on all ranks, the best that all have: ranks hold copies of weights that must stay the same bits.
static Err agree_isa(const Job *j, const char **isa) {
    Err err = DS_OK;
    int own = 0;
    const Isa wish = j->p->job.isa;
    DS_TRY(agree_err(j->run.world, kernels_isa(wish == ISA_AUTO ? "auto" : kernels_isa_name((int)wish - 1), &own)));
    int64_t bounds[] = {own, -own};
    coll_max_i64(j->run.world, bounds, DS_COUNT(bounds));
    *isa = kernels_isa_name((int)-bounds[1]);
    if (bounds[0] != -bounds[1])
        log_info("note: some ranks' CPUs have %s, others only %s: all use that", kernels_isa_name((int)bounds[0]),
                 *isa);
done:
    return err;
}

// The kernels with the threads of this rank, each in its place.
static Err open_kernels(Job *j) {
    Err err = DS_OK;
    const char *isa = NULL;
    int *cpus = NULL;
    DS_TRY(agree_isa(j, &isa));
    const int own = cores_count(), threads = j->p->job.threads > 0 ? (int)j->p->job.threads : own;
    if (j->p->job.bind == BIND_AUTO) j->bound = cores_share(threads, &cpus);
    DS_TRY(agree_err(j->run.world, kernels_open("cpu", isa, threads, &j->run.k)));
    j->threads = threads;
    if (j->bound) kernels_bind(cpus, j->bound);
done:
    mem_free(cpus);
    return err;
}

static Err setup(Job *j) {
    Err err = DS_OK;
    Run *run = &j->run;
    *run = (Run){.p = j->p, .world = group_world(), .started = clock_now(), .last_checkpoint = clock_now()};
    const LayoutWish wish = {j->p->layout.tensor, j->p->layout.zero, j->p->layout.lanes};
    err = layout_check(group_size(run->world), wish);
    DS_TRY(agree_err(run->world, err));
    DS_TRY(open_kernels(j));
    DS_TRY(preflight_job(run)); // a job that cannot run leaves no folder
    DS_TRY(hold_folder(j));     // may wait longer than deadline_minutes
    DS_TRY(watch_share(j->p->job.out));
    DS_TRY(preflight_find_products(run));
    layout_create(&run->layout, run->world, wish);
    run->layout.library = j->p->layout.reduce == REDUCE_LIBRARY;
    run->layout.sequence = j->p->layout.sequence;
    if (j->p->checkpoint.files == FILES_NODE) run->sharing = j->node = group_split_node(run->world);
    h5_init();
    DS_TRY(fit_memory(j));
    fill_origin(j);
    DS_TRY(agree_err(run->world, open_folder(j)));
    greet(j);
    DS_TRY(find_resume(j));
    DS_TRY(check_start(j));
    DS_TRY(verify_inputs(run, j->p->job.stages & ~run->products));
    DS_TRY(open_history(j));
    DS_TRY(load_tokenizer(j));
    stop_limit(j->stop_file, clock_deadline(clock_unix(), j->p->job.max_hours), 60 * j->p->job.stop_margin_minutes);
    stop_say_limit(summary_get(run->summary, "checkpoint.seconds"));
done:
    return err;
}

static void finish(Job *j) {
    group_destroy(&j->node);
    layout_destroy(&j->run.layout);
    tok_free(&j->run.tok);
    chat_text_free(&j->run.template);
    summary_destroy(&j->run.summary);
    origin_clear(&j->origin);
    mem_free(j->resume);
    mem_free(j->stop_file);
    params_free(&j->p);
}

// The most device memory that a rank held for each purpose, in this start or an earlier one, into summary.json (what
// --plan foretells).
static Err note_memory(Job *j) {
    Err err = DS_OK;
    for (int tag = 0; tag < MEM_TAGS; tag++) {
        char key[48];
        int64_t peak = kernels_mem_peak((MemTag)tag);
        coll_max_i64(j->run.world, &peak, 1);
        snprintf(key, sizeof key, "memory.%s", kernels_mem_name((MemTag)tag));
        summary_put(j->run.summary, key, fmax((double)peak, summary_get(j->run.summary, key))); // fmax passes over NaN
    }
    if (world_rank() == 0) err = summary_write(j->run.summary);
    return agree_err(j->run.world, err);
}

static Err all_stages(Job *j) {
    Err err = DS_OK;
    for (int i = 0; i < DS_COUNT(stages); i++) {
        if (!(j->p->job.stages & (1 << i))) continue;
        if (stage_done(j, i)) {
            log_info("%s: done before", stages[i]->name);
            continue;
        }
        bool resumes = j->resume_stage && !strcmp(j->resume_stage, stages[i]->name);
        DS_TRY(stage_run(&j->run, stages[i], resumes ? j->resume : NULL));
    }
    DS_TRY(note_memory(j));
    screen_last(&j->run);
done:
    return err;
}

// Rank 0 reads the file for all: no rank sees another version of it.
static Err load_params(const char *path, int n_overrides, char **overrides, Params **p) {
    char *text = NULL;
    size_t bytes = 0;
    watchdog_enter(WATCH_FILE, "reading params", path);
    Err err = world_rank() == 0 ? params_read(path, &text, &bytes) : DS_OK;
    watchdog_leave();
    err = agree_root(group_world(), err);
    if (!err) {
        coll_bcast(group_world(), &bytes, sizeof bytes, 0);
        if (!text) text = mem_alloc(bytes + 1);
        coll_bcast(group_world(), text, bytes, 0);
        err = agree_err(group_world(), params_parse(path, text, bytes, n_overrides, overrides, p));
    }
    mem_free(text);
    return err;
}

// What is wrong with the params themselves is said before MPI starts, which can take a while on many ranks; the job
// then ends with it as with any other error. True: it was said.
static bool say_at_once(const char *path, int n_overrides, char **overrides) {
    Params *p = NULL;
    if (launcher_rank() != 0) return false;
    Err err = params_load(path, n_overrides, overrides, &p);
    if (!err) err = preflight_params(p);
    if (err == DS_ERR_PARAMS) log_error("%s", err_text());
    err_clear(); // a file that cannot be read now may be readable then
    params_free(&p);
    return err == DS_ERR_PARAMS;
}

// The params file is read when MPI has started; what the command line says of the deadline holds before.
static void limit_early(int n_overrides, char **overrides) {
    double minutes = 0;
    for (int i = 0; i < n_overrides; i++)
        if (sscanf(overrides[i], "job.deadline_minutes=%lf", &minutes) == 1 && minutes > 0)
            watchdog_limit(60 * minutes);
}

Err job_run(const char *params_path, int n_overrides, char **overrides) {
    Job j = {0};
    stop_catch();
    watchdog_start();
    limit_early(n_overrides, overrides);
    const bool said = say_at_once(params_path, n_overrides, overrides);
    world_init();
    Err err = launcher_check(world_size());
    if (!err) err = load_params(params_path, n_overrides, overrides, &j.p);
    if (!err) watchdog_limit(60 * j.p->job.deadline_minutes);
    if (!err) err = setup(&j);
    if (!err) err = all_stages(&j);
    Err closing = history_close_rollouts(&j.run.rollouts);
    if (!err) err = closing;
    closing = history_close(&j.run.history);
    if (!err) err = closing;
    if (err && err_text()[0] && !(said && err == DS_ERR_PARAMS)) log_error("%s", err_text());
    err_clear();
    if (j.counted && starts_end(j.p->job.out, err)) log_warn("%s", err_text());
    Runlock *lock = j.run.lock;
    finish(&j);
    world_finalize();
    runlock_release(&lock); // no rank writes any more
    watchdog_end();
    return err;
}
