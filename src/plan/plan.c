// plan.c: the plan for a person, and what to change where it does not fit.
#include "plan/plan.h"

#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "model/acts.h"
#include "model/new_model.h"
#include "plan/plan_models.h"

enum { GIB = 1 << 30 };

// Figures of known machines, for one device: what a run can sustain, not what a data sheet promises.
static const struct {
    double memory_gib, flops, bandwidth, network, link;
} machines[] = {[MACHINE_NONE] = {0, 0, 0, 0, 0},
                [MACHINE_H100] = {80, 4e14, 2.6e12, 4e10, 3e11},
                [MACHINE_A100] = {80, 1.5e14, 1.6e12, 2e10, 2e11},
                [MACHINE_CPU] = {24, 4e11, 2.5e10, 5e9, 5e9}};

static double this_memory_gib(void) { return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / GIB; }

// p with the machine's figures filled in; this machine's memory is shared by `sharing` ranks. A shallow copy: its
// texts are views of p's.
static Params with_machine(const Params *p, int sharing) {
    Params q = *p;
    const MachinePreset preset = p->machine.preset;
    struct {
        const char *key;
        double *value, known;
    } figures[] = {{"machine.memory_gib", &q.machine.memory_gib, machines[preset].memory_gib},
                   {"machine.flops", &q.machine.flops, machines[preset].flops},
                   {"machine.bandwidth", &q.machine.bandwidth, machines[preset].bandwidth},
                   {"machine.network", &q.machine.network, machines[preset].network},
                   {"machine.link", &q.machine.link, machines[preset].link}};
    for (int i = 0; i < DS_COUNT(figures) && preset != MACHINE_NONE; i++)
        if (!params_was_set(p, figures[i].key)) *figures[i].value = figures[i].known;
    if (!(q.machine.memory_gib > 0)) q.machine.memory_gib = this_memory_gib() / sharing;
    return q;
}

double plan_memory_gib(const Params *p, int sharing) { return with_machine(p, sharing).machine.memory_gib; }

static bool fits(double memory_gib, const Plan *plan) { return (double)plan->total <= memory_gib * GIB; }

// ---- recompute = fit ----

// keys, which lie in p, are of a model of so many layers.
static Err fit_model(const Params *p, const PlanModels *m, int ranks, double memory_gib, ModelParams *keys,
                     int64_t layers) {
    Err err = DS_OK;
    Plan plan;
    int64_t low = 1, high = layers;
    while (low < high) {
        keys->keep_layers = (low + high + 1) / 2;
        DS_TRY(plan_make_of(p, m, ranks, &plan));
        if (fits(memory_gib, &plan)) low = keys->keep_layers;
        else high = keys->keep_layers - 1;
    }
    keys->keep_layers = low;
done:
    return err;
}

static bool wishes_fit(const Params *p) {
    return p->actor.common.recompute == RECOMPUTE_FIT || p->critic.common.recompute == RECOMPUTE_FIT ||
           p->reward.common.recompute == RECOMPUTE_FIT;
}

static Err fit_models(Params *p, const PlanModels *m, int ranks, double memory_gib) {
    static const PlanRole roles[] = {ROLE_ACTOR, ROLE_CRITIC, ROLE_REWARD};
    ModelParams *const keys[] = {&p->actor.common, &p->critic.common, &p->reward.common};
    Err err = DS_OK;
    for (int i = 0; i < DS_COUNT(keys); i++)
        if (keys[i]->recompute == RECOMPUTE_FIT) keys[i]->keep_layers = 1;
    for (int i = 0; i < DS_COUNT(keys); i++)
        if (keys[i]->recompute == RECOMPUTE_FIT)
            DS_TRY(fit_model(p, m, ranks, memory_gib, keys[i], m->model[roles[i]].arch.layers));
done:
    return err;
}

Err plan_fit(Params *p, int ranks, double memory_gib) {
    PlanModels m;
    if (!wishes_fit(p)) return DS_OK;
    Err err = plan_models_find(p, &m);
    if (err) return err;
    err = fit_models(p, &m, ranks, memory_gib);
    plan_models_free(&m);
    return err;
}

// ---- what to change ----

static void for_each_model(Params *p, void (*set)(ModelParams *m)) {
    ModelParams *const list[] = {&p->actor.common, &p->critic.common, &p->reference.common, &p->reward.common};
    for (int i = 0; i < DS_COUNT(list); i++) set(list[i]);
}

static void set_zero3(ModelParams *m) { m->zero_stage = 3; }
static void set_recompute(ModelParams *m) { m->recompute = RECOMPUTE_BLOCK, m->keep_layers = 1; }
// What is offloaded already stays so.
static void set_offload(ModelParams *m) {
    if (m->offload == OFFLOAD_NONE) m->offload = OFFLOAD_MOMENTS;
}
static void set_bf16(ModelParams *m) { m->dtype = DS_BF16; }

static void use_zero3(Params *p) { for_each_model(p, set_zero3); }
static void use_recompute(Params *p) { for_each_model(p, set_recompute); }
static void use_offload(Params *p) { for_each_model(p, set_offload); }
static void use_bf16(Params *p) { for_each_model(p, set_bf16); }
static void use_gather_block(Params *p) { p->generate.gather = GATHER_BLOCK, p->generate.tensor = 1; }
static void use_small_micro(Params *p) {
    p->sft.train.micro_tokens = p->rm.train.micro_tokens = p->ppo.train.micro_tokens = 1; // one sequence at a time
}
static void use_small_batch(Params *p) { p->generate.batch = ds_max(1, p->generate.batch / 4); }

// Changes are tried one on top of the other, the cheapest in time first; then more ranks.
static Err advise(const Params *p, const PlanModels *m, int ranks, FILE *out) {
    static const struct {
        void (*change)(Params *p);
        const char *words;
    } steps[] = {{use_bf16, "dtype = bf16"},
                 {use_zero3, "zero_stage = 3"},
                 {use_recompute, "recompute = block"},
                 {use_gather_block, "[generate] gather = block and tensor = 1"},
                 {use_offload, "offload = moments"},
                 {use_small_batch, "[generate] batch a quarter"},
                 {use_small_micro, "micro_tokens = 1 (one sequence at a time)"}};
    Err err = DS_OK;
    Params q = *p;
    Plan plan;
    char words[256] = "";
    size_t at = 0;
    for (int i = 0; i < DS_COUNT(steps); i++) {
        steps[i].change(&q);
        at += (size_t)snprintf(words + at, sizeof words - at, "%s%s", i ? ", " : "", steps[i].words);
        DS_TRY(plan_make_of(&q, m, ranks, &plan));
        if (!fits(p->machine.memory_gib, &plan)) continue;
        fprintf(out, "it would fit with, in every model or stage, %s: %.2f GiB a rank\n", words,
                (double)plan.total / GIB);
        goto done;
    }
    for (int more = 2 * ranks; more <= 64 * ranks && more <= 65536; more *= 2) {
        q.layout.zero = q.layout.lanes = 0;
        DS_TRY(plan_make_of(&q, m, more, &plan));
        if (!fits(p->machine.memory_gib, &plan)) continue;
        fprintf(out, "it would fit on %d ranks with, in every model or stage, %s: %.2f GiB a rank\n", more, words,
                (double)plan.total / GIB);
        goto done;
    }
    fprintf(out, "up to 64 times as many ranks do not make it fit, even with %s\n", words);
done:
    return err;
}

// The largest micro_tokens of all stages, a power of two, with which it still fits.
static Err largest_micro(const Params *p, const PlanModels *m, int ranks, int64_t *micro) {
    Err err = DS_OK;
    Plan plan;
    Params q = *p;
    *micro = 0;
    for (int64_t n = 256; n <= 1 << 22; n *= 2) {
        q.sft.train.micro_tokens = q.rm.train.micro_tokens = q.ppo.train.micro_tokens = n;
        DS_TRY(plan_make_of(&q, m, ranks, &plan));
        if (!fits(p->machine.memory_gib, &plan)) break;
        *micro = n;
    }
done:
    return err;
}

// ---- printing ----

static const char *const phase_names[] = {"sft", "rm", "ppo"};

static void print_models(const Params *p, const PlanModels *m, FILE *out) {
    for (int i = 0; i < ROLES; i++) {
        const ModelParams *keys = m->model[i].keys;
        const int64_t layers = m->model[i].arch.layers;
        char *words = arch_describe(&m->model[i].arch), *kept = NULL;
        if (keys->recompute != RECOMPUTE_NONE)
            kept = mem_printf(", %lld of %lld layers keep activations", (long long)acts_kept(keys, layers),
                              (long long)layers);
        fprintf(out, "  %-10s %s; %s, ZeRO %lld%s; %s%s\n", m->model[i].name, words, dtype_name(plan_dtype(p, keys)),
                (long long)keys->zero_stage, kept ? kept : "", m->model[i].source,
                i == ROLE_REFERENCE && new_model_shares(p) ? ", whose frozen weights it has" : "");
        mem_free(words);
        mem_free(kept);
    }
    if (!m->data_known) fprintf(out, "  data       not there: samples of max_prompt + max_answer tokens are assumed\n");
    if (m->vocab_assumed)
        fprintf(out, "  tokens     no data set tells how many: a vocabulary of %lld is assumed\n",
                (long long)m->model[ROLE_ACTOR].arch.vocab);
}

static void print_row(FILE *out, const char *name, const int64_t bytes[MEM_TAGS], int64_t total) {
    fprintf(out, "  %-10s", name);
    for (int tag = 0; tag < MEM_TAGS; tag++) fprintf(out, " %15lld", (long long)bytes[tag]);
    fprintf(out, " %15lld  %9.3f GiB\n", (long long)total, (double)total / GIB);
}

static void print_memory(const Params *p, const Plan *plan, FILE *out) {
    fprintf(out, "memory of a rank, bytes (in ppo activations and KV cache share a workspace)\n  %-10s", "phase");
    for (int tag = 0; tag < MEM_TAGS; tag++) fprintf(out, " %15s", kernels_mem_name((MemTag)tag));
    fprintf(out, " %15s\n", "total");
    for (int phase = 0; phase < PLAN_PHASES; phase++)
        if (p->job.stages >> phase & 1)
            print_row(out, phase_names[phase], plan->phase[phase].bytes, plan->phase[phase].total);
    print_row(out, "most", plan->need, plan->total);
}

static void print_traffic(const PhasePlan *x, FILE *out) {
    static const char *const words[] = {"sums in zero groups", "gathers in zero groups", "sums over their copies",
                                        "activations in tensor groups"};
    bool any = false;
    for (int i = 0; i < PLAN_TRAFFIC; i++)
        if (x->sent[i] > 0) {
            fprintf(out, "%s %.4g GiB for %s", any ? "," : " a rank sends", x->sent[i] / GIB, words[i]);
            any = true;
        }
    if (!any) fprintf(out, " nothing is sent");
}

static void print_steps(const Params *p, const Plan *plan, FILE *out) {
    fprintf(out, "one step (ppo: one iteration; traffic of one minibatch)\n");
    for (int phase = 0; phase < PLAN_PHASES; phase++) {
        const PhasePlan *x = &plan->phase[phase];
        if (!(p->job.stages >> phase & 1)) continue;
        fprintf(out, "  %-10s", phase_names[phase]);
        print_traffic(x, out);
        fprintf(out, " (%lld micro-batches); checkpoint %.4g GiB in all\n", (long long)x->turns,
                (double)x->checkpoint / GIB);
        if (phase == PLAN_PPO)
            fprintf(out,
                    "  %-10s to the generation layout %.4g GiB; %.3g Tflop a rank; about %.3g s: generate %.3g, score "
                    "%.3g, train %.3g, travel %.3g\n",
                    "", x->rollout / GIB, (x->flops[0] + x->flops[1] + x->flops[2]) / 1e12,
                    x->seconds[0] + x->seconds[1] + x->seconds[2] + x->travel, x->seconds[0], x->seconds[1],
                    x->seconds[2], x->travel);
        else
            fprintf(out, "  %-10s %.3g Tflop a rank; about %.3g s, of which travel %.3g\n", "", x->flops[2] / 1e12,
                    x->seconds[2] + x->travel, x->travel);
    }
}

static void print_machine(const Params *p, FILE *out) {
    fprintf(out,
            "machine: %.4g GiB, %.3g flop/s, %.3g B/s memory, %.3g B/s network, %.3g B/s in tensor groups a rank; "
            "times are "
            "estimates from these\n",
            p->machine.memory_gib, p->machine.flops, p->machine.bandwidth, p->machine.network,
            p->machine.link > 0 ? p->machine.link : p->machine.network);
}

Err plan_print(const Params *given, int ranks, FILE *out, bool *good) {
    Err err = DS_OK;
    Plan plan;
    PlanModels m;
    int64_t micro;
    Params q = with_machine(given, 1), *const p = &q;
    err = plan_models_find(p, &m);
    if (err) return err;
    DS_TRY(fit_models(&q, &m, ranks, q.machine.memory_gib));
    DS_TRY(plan_make_of(p, &m, ranks, &plan));
    const int64_t data = ranks / p->layout.tensor;
    fputs("plan: ", out);
    text_print(out, p->path, (int64_t)strlen(p->path), false);
    fprintf(out, " on %d ranks: tensor groups of %lld%s, zero groups of %lld, %lld lanes\n", ranks,
            (long long)p->layout.tensor, p->layout.sequence ? " with sequence" : "",
            (long long)(p->layout.zero ? p->layout.zero : data), (long long)(p->layout.lanes ? p->layout.lanes : data));
    print_models(p, &m, out);
    print_memory(p, &plan, out);
    print_steps(p, &plan, out);
    print_machine(p, out);
    *good = fits(p->machine.memory_gib, &plan);
    if (*good) {
        DS_TRY(largest_micro(p, &m, ranks, &micro));
        fprintf(out, "it fits: %.2f of %.4g GiB; so does micro_tokens = %lld in all stages\n", (double)plan.total / GIB,
                p->machine.memory_gib, (long long)micro);
    } else {
        fprintf(out, "it does not fit: %.2f GiB needed, %.4g there\n", (double)plan.total / GIB, p->machine.memory_gib);
        DS_TRY(advise(p, &m, ranks, out));
    }
done:
    plan_models_free(&m);
    return err;
}
