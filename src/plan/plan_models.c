// plan_models.c: a model file that is there speaks for itself, else `arch`, else [actor] arch_*, else the model it
// comes from.
#include "plan/plan_models.h"

#include "base/file.h"
#include "base/mem.h"
#include "data/dataset.h"
#include "io/modelfile.h"
#include "model/load.h"
#include "model/new_model.h"

enum { ASSUMED_VOCAB = 32000, SETS = 3 }; // LLaMA's; sft, rm, ptx

static const DataKind kinds[SETS] = {DATA_SFT, DATA_RM, DATA_PTX};

// What the data sets tell, if they are there: lengths, and the tokenizer's size (0: unknown). They stay open.
static Err read_data(const Params *p, PlanModels *m, Dataset *d[SETS], int64_t *vocab) {
    const char *const files[] = {p->data.sft_file, p->data.rm_file, p->data.ptx_file};
    double *const mean[] = {&m->sft_tokens, &m->rm_tokens, NULL};
    Err err = DS_OK;
    Tokenizer *tok = NULL;
    m->sft_tokens = (double)(p->generate.max_prompt + p->generate.max_answer);
    m->rm_tokens = 2 * m->sft_tokens;
    for (int i = 0; i < SETS; i++) {
        m->longest[i] = (kinds[i] == DATA_RM ? 2 : 1) * (p->generate.max_prompt + p->generate.max_answer);
        if (!file_exists(files[i])) continue;
        DS_TRY(dataset_open(files[i], &d[i]));
        m->data_known = true;
        m->longest[i] = dataset_longest(d[i], kinds[i]);
        if (mean[i] && dataset_count(d[i], kinds[i], false) > 0) *mean[i] = dataset_mean(d[i], kinds[i]);
        if (*vocab) continue;
        DS_TRY(dataset_tokenizer(d[i], &tok));
        if (tok) *vocab = tok_vocab_size(tok);
        tok_free(&tok);
    }
done:
    tok_free(&tok);
    return err;
}

// Every model has a position for each token of what it reads.
static Err check_lengths(const Params *p, const PlanModels *m, Dataset *const d[SETS]) {
    static const PlanRole readers[SETS] = {ROLE_ACTOR, ROLE_REWARD, ROLE_ACTOR};
    const bool ppo = p->job.stages >> STAGE_PPO & 1;
    const bool reads[SETS] = {p->job.stages >> STAGE_SFT & 1, p->job.stages >> STAGE_RM & 1,
                              ppo && p->ppo.ptx_coef > 0};
    Err err = DS_OK;
    char *words[ROLES];
    for (int r = 0; r < ROLES; r++) words[r] = mem_printf("the %s (%s)", m->model[r].name, m->model[r].source);
    for (int i = 0; i < SETS; i++) {
        const PlanRole r = readers[i];
        if (reads[i] && d[i]) DS_TRY(dataset_check_positions(d[i], kinds[i], m->model[r].arch.max_positions, words[r]));
    }
    for (int r = 0; r < ROLES && ppo; r++)
        if (r != ROLE_REWARD || p->ppo.reward_source == REWARD_MODEL)
            DS_TRY(new_model_check_answer(&m->model[r].arch, p, words[r]));
done:
    for (int r = 0; r < ROLES; r++) mem_free(words[r]);
    return err;
}

static Err find_model(const Params *p, PlanModels *m, PlanRole role, PlanRole from, ArchHead head, int64_t vocab) {
    Err err = DS_OK;
    PlanModel *x = &m->model[role];
    ModelFile *file = NULL;
    const char *path = x->keys->model;
    if (path[0] && file_exists(path)) {
        DS_TRY(modelfile_open(path, &file));
        DS_TRY(load_arch(file, path, (int)head, &x->arch));
        x->source = mem_strdup(path);
    } else if (x->keys->arch[0]) {
        DS_TRY(new_model_arch(p, x->keys, 0, head, &x->arch));
        x->source = mem_printf("%s%sarch = %s", path, path[0] ? " is not there: " : "", x->keys->arch);
    } else if (from != role) {
        x->arch = m->model[from].arch;
        x->arch.head = head;
        x->source = mem_printf("as the %s", m->model[from].name);
    } else {
        DS_CHECK(!path[0], DS_ERR_PARAMS, "[actor] model = %s is not there; [actor] arch = NAME tells a plan its shape",
                 path);
        m->vocab_assumed = !vocab;
        DS_TRY(new_model_arch(p, x->keys, vocab ? vocab : ASSUMED_VOCAB, head, &x->arch));
        x->source = mem_strdup("[actor] arch_*");
    }
done:
    modelfile_close(&file);
    return err;
}

Err plan_models_find(const Params *p, PlanModels *m) {
    Err err = DS_OK;
    Dataset *data[SETS] = {0};
    int64_t vocab = 0;
    *m = (PlanModels){.model = {{.name = "actor"}, {.name = "critic"}, {.name = "reference"}, {.name = "reward"}}};
    plan_models_keys(m, p);
    DS_TRY(read_data(p, m, data, &vocab));
    DS_TRY(find_model(p, m, ROLE_ACTOR, ROLE_ACTOR, ARCH_HEAD_LM, vocab));
    DS_TRY(find_model(p, m, ROLE_REFERENCE, ROLE_ACTOR, ARCH_HEAD_LM, vocab));
    DS_TRY(find_model(p, m, ROLE_REWARD, ROLE_ACTOR, ARCH_HEAD_SCALAR, vocab));
    DS_TRY(find_model(p, m, ROLE_CRITIC, ROLE_REWARD, ARCH_HEAD_SCALAR, vocab));
    DS_TRY(check_lengths(p, m, data));
done:
    for (int i = 0; i < SETS; i++) dataset_close(&data[i]);
    if (err) plan_models_free(m);
    return err;
}

void plan_models_keys(PlanModels *m, const Params *p) {
    m->model[ROLE_ACTOR].keys = &p->actor.common;
    m->model[ROLE_CRITIC].keys = &p->critic.common;
    m->model[ROLE_REFERENCE].keys = &p->reference.common;
    m->model[ROLE_REWARD].keys = &p->reward.common;
}

void plan_models_free(PlanModels *m) {
    for (int i = 0; i < ROLES; i++) MEM_FREE(m->model[i].source);
}

DType plan_dtype(const Params *p, const ModelParams *keys) {
    const bool has = p->job.isa == ISA_AUTO || kernels_isa_has_bf16((int)p->job.isa - 1);
    return keys->dtype == DS_BF16 && !has ? DS_F32 : keys->dtype;
}
