// preflight.c: stage by stage: its data sets, then its models. A product of a stage that has not run yet has the shape
// of the model that the stage begins with.
#include "stage/preflight.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/watchdog.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "data/dataset.h"
#include "gen/hybrid.h"
#include "model/load.h"
#include "model/new_model.h"
#include "stage/checker.h"
#include "stage/preflight_disk.h"
#include "stage/role.h"

enum { FILES = 12 }; // four data sets at most, and models of which each key names one

typedef struct {
    char *path;
    bool is_model;
    Dataset *data; // of a data set that could be opened
    Arch arch;     // of a model that could be
    bool good;
} Seen;

typedef struct {
    const Params *p;
    int ranks, there, coming; // bits of StageKind: products that are there, and those made before the stage at hand
    Arch made[STAGE_KINDS];   // shapes of products, where `made_known`
    bool made_known[STAGE_KINDS];
    Seen seen[FILES]; // each file is opened once
    int n_seen;
    Tokenizer *tok; // of the first data set
    const char *tok_path;
    DiskNeed disk;
    Err err;
    char *words; // of all that is wrong
    void (*say)(const char *line, void *user);
    void *user;
} Look;

// ---- notes ----

// One more thing that is wrong, or none.
static void note(Look *l, Err err) {
    if (!err) return;
    if (!l->err) l->err = err;
    if (l->words && strstr(l->words, err_text())) { // the same of a model with two parts
        err_clear();
        return;
    }
    char *longer = l->words ? mem_printf("%s; also: %s", l->words, err_text()) : mem_strdup(err_text());
    mem_free(l->words);
    l->words = longer;
    err_clear();
}

static void say(const Look *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const Look *l, const char *fmt, ...) {
    char line[512];
    va_list ap;
    if (!l->say) return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    l->say(line, l->user);
}

// The place for a file, *is_new if nobody has looked at it yet.
static Seen *see(Look *l, bool is_model, const char *path, bool *is_new) {
    for (int i = 0; i < l->n_seen; i++)
        if (l->seen[i].is_model == is_model && !strcmp(l->seen[i].path, path)) return *is_new = false, &l->seen[i];
    if (l->n_seen == FILES) err_fatal("preflight: more than %d files", FILES);
    *is_new = true;
    l->seen[l->n_seen] = (Seen){.path = mem_strdup(path), .is_model = is_model};
    return &l->seen[l->n_seen++];
}

// ---- data sets ----

// "[data] rm_file", or "[data] file" where the stage has none of its own.
static const char *data_key(const Params *p, DataKind kind) {
    static const char *const own[] = {"data.sft_file", "data.rm_file", "data.ppo_file", "data.ptx_file"};
    return params_was_set(p, own[kind]) ? own[kind] + strlen("data.") : "file";
}

static Err data_missing(const Params *p, DataKind kind, const char *path) {
    const char *key = data_key(p, kind);
    const bool by_default = !strcmp(key, "file") && !params_was_set(p, "data.file");
    return err_set(by_default ? DS_ERR_PARAMS : DS_ERR_IO,
                   "%s: [data] %s = %s%s: there is no such file; build it with bin/dschat-data build SPEC.in "
                   "(inputs/data/ has examples), or name another with data.%s=FILE.h5",
                   p->path, key, path, by_default ? " (default)" : "", key);
}

static Err open_data(Look *l, DataKind kind, const char *path, Dataset **d) {
    Err err = DS_OK;
    Tokenizer *tok = NULL;
    if (!file_exists(path)) return data_missing(l->p, kind, path);
    DS_TRY(dataset_open(path, d));
    DS_TRY(dataset_tokenizer(*d, &tok));
    if (!l->tok_path) {
        l->tok_path = path;
        l->tok = tok;
        return DS_OK;
    }
    DS_CHECK(!tok == !l->tok && (!tok || !strcmp(tok_hash(tok), tok_hash(l->tok))), DS_ERR_DATA,
             "%s: was made with another tokenizer than %s: build both with one", path, l->tok_path);
done:
    tok_free(&tok);
    return err;
}

static Err check_counts(const Params *p, const Dataset *d, DataKind kind, const char *path) {
    static const char *const words[] = {"samples for sft", "pairs for rm", "prompts for ppo", "texts for ptx"};
    const TrainParams *train[] = {&p->sft.train, &p->rm.train, &p->ppo.train};
    const int64_t held_out = dataset_count(d, kind, true);
    Err err = DS_OK;
    DS_CHECK(
        dataset_count(d, kind, false) > 0, DS_ERR_DATA,
        "%s: holds no %s to train on: its records went to other stages ([data] split, [sourceN] stages of its spec)",
        path, words[kind]);
    DS_CHECK(kind == DATA_PTX || held_out > 0 || train[kind]->eval_every == 0, DS_ERR_DATA,
             "%s: holds out no %s, but [%s] eval_every = %lld: set it to 0, or build with eval_fraction", path,
             words[kind], dataset_kind_name(kind), (long long)train[kind]->eval_every);
    DS_CHECK(kind != DATA_RM || held_out > 0 || !p->ppo.normalize_reward, DS_ERR_DATA,
             "%s: holds out no pairs, by whose scores [ppo] normalize_reward = yes measures; build with eval_fraction",
             path);
done:
    return err;
}

// NULL: something is wrong with it, and noted.
static const Dataset *look_data(Look *l, DataKind kind, const char *path) {
    bool is_new;
    int64_t row;
    Seen *s = see(l, false, path, &is_new);
    if (is_new) {
        const Err err = open_data(l, kind, path, &s->data);
        s->good = !err;
        note(l, err);
    }
    if (!s->good) return NULL;
    note(l, check_counts(l->p, s->data, kind, path));
    say(l, "  data   %s: %s: %lld to train on, %lld held out, the longest has %lld tokens", dataset_kind_name(kind),
        path, (long long)dataset_count(s->data, kind, false), (long long)dataset_count(s->data, kind, true),
        (long long)dataset_longest_row(s->data, kind, &row));
    return s->data;
}

static Err check_prompts(const Params *p, const Dataset *d) {
    for (int64_t i = 0; i < dataset_count(d, DATA_PPO, false); i++) {
        const int64_t n = dataset_prompt_length(d, dataset_record(d, DATA_PPO, false, i));
        if (n > 0 && n <= p->generate.max_prompt) return DS_OK;
    }
    return err_set(DS_ERR_DATA, "%s: no prompt has at most [generate] max_prompt = %lld tokens", p->data.ppo_file,
                   (long long)p->generate.max_prompt);
}

// ---- models ----

static const char *const model_names[] = {"actor", "critic", "reference", "reward"};

static const ModelParams *keys_of(const Params *p, JobModel model) {
    const ModelParams *const keys[] = {&p->actor.common, &p->critic.common, &p->reference.common, &p->reward.common};
    return keys[model];
}

static Err open_model(Look *l, JobModel model, const char *path, Arch *a) {
    Err err = DS_OK;
    ModelFile *file = NULL;
    if (!file_exists(path))
        return err_set(DS_ERR_IO,
                       "%s: [%s] model = %s: there is no such file; bin/dschat-model import DIR %s makes one of a "
                       "Hugging Face folder or GGUF",
                       l->p->path, model_names[model], path, path);
    DS_TRY(modelfile_open(path, &file));
    *a = *modelfile_arch(file);
    DS_TRY(role_check_tokenizer(l->tok, file, a, path));
done:
    modelfile_close(&file);
    return err;
}

// The shape of a file that is there, or will be; false: it is not known, because of something that is noted.
static bool arch_of_path(Look *l, JobModel model, const char *path, Arch *a) {
    bool is_new;
    for (int kind = 0; kind < STAGE_KINDS; kind++) {
        if (!(l->coming >> kind & 1)) continue;
        char *product = stage_product_path(l->p, (StageKind)kind);
        const bool same = !strcmp(product, path);
        mem_free(product);
        if (same) return *a = l->made[kind], l->made_known[kind];
    }
    Seen *s = see(l, true, path, &is_new);
    if (is_new) {
        const Err err = open_model(l, model, path, &s->arch);
        s->good = !err;
        note(l, err);
    }
    *a = s->arch;
    return s->good;
}

static Err new_arch(Look *l, StageKind stage, JobModel model, ArchHead head, Arch *a) {
    if (stage == STAGE_PPO)
        return err_set(DS_ERR_PARAMS, "ppo: no model for [%s]: expected [%s] model = FILE, or an earlier stage",
                       model_names[model], model_names[model]);
    if (!l->tok)
        return err_set(DS_ERR_PARAMS,
                       "[actor] init = random needs a tokenizer in the data set, or [actor] model = FILE");
    return new_model_arch(l->p, keys_of(l->p, model), tok_vocab_size(l->tok), head, a);
}

// What the model of shape a, from path (NULL: new), must be for its part.
static Err check_arch(const Look *l, StageKind stage, JobModel model, const char *path, ArchHead head, Arch *a) {
    const Params *p = l->p;
    Err err = DS_OK;
    DS_CHECK(head != ARCH_HEAD_LM || a->head == ARCH_HEAD_LM, DS_ERR_DATA,
             "%s: is a model with a scalar head (reward model, critic); [%s] needs a language model", path,
             model_names[model]);
    DS_CHECK(model != MODEL_REWARD || stage != STAGE_PPO || a->head == ARCH_HEAD_SCALAR, DS_ERR_DATA,
             "%s: is a language model: its scores would be random; [reward] model of ppo needs what rm made", path);
    a->head = head;
    if (head == ARCH_HEAD_LM && l->ranks) DS_TRY(hybrid_check(a, l->ranks, p->generate.tensor));
    DS_TRY(new_model_check(a, (int)p->layout.tensor, keys_of(p, model), model_names[model]));
done:
    return err;
}

// d: what it reads (NULL: not known) of this kind, besides answers in ppo. Returns whether *a is its shape.
static bool look_model(Look *l, StageKind stage, JobModel model, const Dataset *d, DataKind kind, Arch *a) {
    const ArchHead head = model == MODEL_ACTOR || model == MODEL_REFERENCE ? ARCH_HEAD_LM : ARCH_HEAD_SCALAR;
    char *path = role_path(l->p, l->there | l->coming, stage, model);
    char *words = mem_printf("the %s (%s)", model_names[model], path ? path : "random weights");
    bool known;
    if (path) {
        known = arch_of_path(l, model, path, a);
    } else {
        const bool echo = !l->tok && l->err; // of a data set that is missing
        const Err err = echo ? DS_OK : new_arch(l, stage, model, head, a);
        known = !echo && !err;
        note(l, err);
    }
    if (known) {
        char *shape = arch_describe(a);
        say(l, "  model  %s: %s from %s: %s, %lld positions", stage == STAGE_PPO ? "ppo" : dataset_kind_name(kind),
            model_names[model], path ? path : "random weights", shape, (long long)a->max_positions);
        mem_free(shape);
        note(l, check_arch(l, stage, model, path, head, a));
        if (d) note(l, dataset_check_positions(d, kind, a->max_positions, words));
        if (stage == STAGE_PPO) note(l, new_model_check_answer(a, l->p, words));
    }
    mem_free(words);
    mem_free(path);
    return known;
}

// ---- stages ----

static void look_trained(Look *l, StageKind stage, JobModel model, const Dataset *d, DataKind kind) {
    Arch *a = &l->made[stage];
    l->made_known[stage] = look_model(l, stage, model, d, kind, a);
    if (!l->made_known[stage]) return;
    disk_need_product(&l->disk, a, keys_of(l->p, model), false);
    disk_need_checkpoint(&l->disk, stage, a, keys_of(l->p, model), false);
}

static void look_ppo(Look *l) {
    const Params *p = l->p;
    const bool ema = p->ppo.ema;
    Checker checker;
    Arch a;
    note(l, checker_find(p->ppo.checker, &checker));
    const Dataset *prompts = look_data(l, DATA_PPO, p->data.ppo_file);
    if (prompts) note(l, check_prompts(p, prompts));
    const Dataset *texts = p->ppo.ptx_coef > 0 ? look_data(l, DATA_PTX, p->data.ptx_file) : NULL;
    if (look_model(l, STAGE_PPO, MODEL_ACTOR, texts, DATA_PTX, &a)) {
        disk_need_product(&l->disk, &a, &p->actor.common, ema);
        disk_need_checkpoint(&l->disk, STAGE_PPO, &a, &p->actor.common, ema);
    }
    if (look_model(l, STAGE_PPO, MODEL_CRITIC, NULL, DATA_PPO, &a)) {
        disk_need_product(&l->disk, &a, &p->critic.common, false);
        disk_need_checkpoint(&l->disk, STAGE_PPO, &a, &p->critic.common, false);
    }
    look_model(l, STAGE_PPO, MODEL_REFERENCE, NULL, DATA_PPO, &a);
    if (p->ppo.reward_source == REWARD_MODEL) look_model(l, STAGE_PPO, MODEL_REWARD, NULL, DATA_PPO, &a);
}

static void look_stage(Look *l, StageKind stage) {
    const Params *p = l->p;
    if (stage == STAGE_SFT) look_trained(l, stage, MODEL_ACTOR, look_data(l, DATA_SFT, p->data.sft_file), DATA_SFT);
    else if (stage == STAGE_RM) look_trained(l, stage, MODEL_REWARD, look_data(l, DATA_RM, p->data.rm_file), DATA_RM);
    else look_ppo(l);
    l->coming |= 1 << stage;
}

static void look_disk(Look *l) {
    char *words = NULL;
    note(l, disk_check(&l->disk, l->p, &words));
    if (words) say(l, "  disk   %s", words);
    mem_free(words);
}

static Err end(Look *l) {
    if (l->err) err_set(l->err, "%s", l->words);
    for (int i = 0; i < l->n_seen; i++) {
        dataset_close(&l->seen[i].data);
        mem_free(l->seen[i].path);
    }
    tok_free(&l->tok);
    mem_free(l->words);
    return l->err;
}

Err preflight(const Params *p, int ranks, int products, void (*say_line)(const char *line, void *user), void *user) {
    Look *l = MEM_NEW(Look, 1);
    *l = (Look){.p = p, .ranks = ranks, .there = products, .say = say_line, .user = user};
    for (int stage = 0; stage < STAGE_KINDS; stage++) {
        if (!(p->job.stages >> stage & 1)) continue;
        if (products >> stage & 1) say(l, "  %s is done", dataset_kind_name((DataKind)stage));
        else look_stage(l, (StageKind)stage);
    }
    look_disk(l);
    const Err err = end(l);
    mem_free(l);
    return err;
}

Err preflight_products(const Params *p, int *products) {
    Err err = DS_OK;
    *products = 0;
    for (int kind = 0; kind < STAGE_KINDS && !err; kind++) {
        bool there;
        char *path = stage_product_path(p, (StageKind)kind);
        err = file_look(path, &there);
        *products |= there << kind;
        mem_free(path);
    }
    return err;
}

Err preflight_params(const Params *p) {
    static const DataKind kinds[] = {DATA_SFT, DATA_RM, DATA_PPO};
    const char *const files[] = {p->data.sft_file, p->data.rm_file, p->data.ppo_file};
    if (params_was_set(p, "data.file") || file_exists(p->data.file)) return DS_OK;
    int done;
    Err err = preflight_products(p, &done);
    const int left = p->job.stages & ~done;
    for (int i = 0; i < DS_COUNT(kinds) && !err; i++)
        if (left >> i & 1 && !strcmp(files[i], p->data.file)) err = data_missing(p, kinds[i], files[i]);
    return err;
}

static Err look_at_all(const Params *p, int ranks) {
    int products;
    Err err = preflight_params(p);
    watchdog_enter(WATCH_FILE, "looking at what the stages need", NULL);
    if (!err) err = preflight_products(p, &products);
    if (!err) err = preflight(p, ranks, products, NULL, NULL);
    watchdog_leave();
    return err;
}

Err preflight_job(const Run *run) {
    const bool root = group_rank(run->world) == 0;
    return agree_root(run->world, root ? look_at_all(run->p, group_size(run->world)) : DS_OK);
}

Err preflight_find_products(Run *run) {
    Err err = agree_root(run->world, group_rank(run->world) == 0 ? preflight_products(run->p, &run->products) : DS_OK);
    coll_bcast(run->world, &run->products, sizeof run->products, 0);
    return err;
}
