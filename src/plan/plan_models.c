// plan_models.c: a model file that is there speaks for itself, else `arch`, else [actor] arch_*, else the model it
// comes from.
#include "plan/plan_models.h"

#include "base/file.h"
#include "base/mem.h"
#include "data/dataset.h"
#include "io/modelfile.h"
#include "model/load.h"
#include "model/new_model.h"

// What the data sets tell, if they are there: lengths, and the tokenizer's size (0: unknown).
static Err read_data(const Params *p, PlanModels *m, int64_t *vocab) {
    static const DataKind kinds[] = {DATA_SFT, DATA_RM, DATA_PTX};
    const char *const files[] = {p->data.sft_file, p->data.rm_file, p->data.ptx_file};
    double *const mean[] = {&m->sft_tokens, &m->rm_tokens, NULL};
    Err err = DS_OK;
    Dataset *d = NULL;
    Tokenizer *tok = NULL;
    m->sft_tokens = (double)(p->generate.max_prompt + p->generate.max_answer);
    m->rm_tokens = 2 * m->sft_tokens;
    for (int i = 0; i < DS_COUNT(kinds); i++) {
        if (!file_exists(files[i])) continue;
        DS_TRY(dataset_open(files[i], &d));
        m->data_known = true;
        m->longest[i] = dataset_longest(d, kinds[i]);
        if (mean[i] && dataset_count(d, kinds[i], false) > 0) *mean[i] = dataset_mean(d, kinds[i]);
        if (!*vocab) {
            DS_TRY(dataset_tokenizer(d, &tok));
            if (tok) *vocab = tok_vocab_size(tok);
        }
        tok_free(&tok);
        dataset_close(&d);
    }
done:
    tok_free(&tok);
    dataset_close(&d);
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
        DS_CHECK(
            vocab > 0, DS_ERR_PARAMS,
            "the plan needs the number of tokens: [actor] arch = NAME, or a data set with a tokenizer in [data] file");
        DS_TRY(new_model_arch(p, x->keys, vocab, head, &x->arch));
        x->source = mem_strdup("[actor] arch_*");
    }
done:
    modelfile_close(&file);
    return err;
}

Err plan_models_find(const Params *p, PlanModels *m) {
    Err err = DS_OK;
    int64_t vocab = 0;
    *m = (PlanModels){.model = {{.name = "actor"}, {.name = "critic"}, {.name = "reference"}, {.name = "reward"}}};
    plan_models_keys(m, p);
    DS_TRY(read_data(p, m, &vocab));
    DS_TRY(find_model(p, m, ROLE_ACTOR, ROLE_ACTOR, ARCH_HEAD_LM, vocab));
    DS_TRY(find_model(p, m, ROLE_REFERENCE, ROLE_ACTOR, ARCH_HEAD_LM, vocab));
    DS_TRY(find_model(p, m, ROLE_REWARD, ROLE_ACTOR, ARCH_HEAD_SCALAR, vocab));
    DS_TRY(find_model(p, m, ROLE_CRITIC, ROLE_REWARD, ARCH_HEAD_SCALAR, vocab));
done:
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
