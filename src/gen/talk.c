// talk.c: see talk.h.
#include "gen/talk.h"

#include <sched.h>
#include <string.h>

#include "base/mem.h"
#include "model/load.h"

enum { PREFILL_TOKENS = 2048, KV_BLOCK = 16 };

static int cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static Err load_template(const ModelFile *file, Talk *t) {
    Err err = DS_OK;
    ChatText *text = &t->template;
    DS_TRY(modelfile_text(file, "template", &text->name));
    for (int i = 0; i < CHAT_FIELDS; i++) DS_TRY(modelfile_text(file, chat_field(i), &text->field[i]));
    if (!text->name) DS_TRY(modelfile_text(file, "chat_template", &t->jinja));
done:
    return err;
}

Err talk_open(Talk *t, const char *path, DType dtype, int head, int threads) {
    Err err = DS_OK;
    ModelFile *file = NULL;
    Arch arch;
    *t = (Talk){.path = mem_strdup(path), .stop_id = -1};
    DS_TRY(kernels_open("cpu", "auto", threads > 0 ? threads : cores(), &t->k));
    DS_TRY(modelfile_open(path, &file));
    DS_TRY(load_arch(file, path, head, &arch));
    DS_TRY(load_tokenizer(file, path, &t->tok));
    DS_TRY(load_template(file, t));
    layout_create(&t->layout, group_world(), (LayoutWish){0});
    model_create(&t->model, t->k, &arch, dtype, &t->layout, (ZeroKeep){0}, NULL);
    DS_TRY(load_weights(&t->model, file, path));
    if (t->tok) t->stop_id = tok_eos(t->tok);
done:
    modelfile_close(&file);
    return err;
}

void talk_close(Talk *t) {
    gen_destroy(&t->gen);
    model_destroy(&t->model);
    if (t->layout.data) layout_destroy(&t->layout);
    chat_destroy(&t->chat);
    tok_free(&t->tok);
    chat_text_free(&t->template);
    mem_free(t->jinja);
    mem_free(t->system);
    mem_free(t->path);
    *t = (Talk){0};
}

static const char *fitting_template(const Tokenizer *tok) {
    static const struct {
        const char *token, *name;
    } known[] = {{"<|im_start|>", "chatml"}, {"<|start_header_id|>", "llama3"}, {"[INST]", "llama2"}};
    for (int i = 0; i < DS_COUNT(known); i++)
        if (tok_special_id(tok, known[i].token, (int64_t)strlen(known[i].token)) >= 0) return known[i].name;
    return "hh";
}

Err talk_template(Talk *t, const char *name) {
    Err err = DS_OK;
    ChatRoles roles;
    DS_CHECK(t->tok, DS_ERR_DATA, "%s: has no tokenizer, so it cannot be talked to; dschat-eval works with ids",
             t->path);
    if (name || !t->template.name) {
        if (!name) name = fitting_template(t->tok);
        DS_TRY(chat_roles(name, &roles));
        chat_text_free(&t->template);
        t->template = chat_text(name, &roles);
    }
    roles = chat_text_roles(&t->template);
    DS_TRY(chat_create(t->template.name, &roles, t->tok, &t->chat));
    t->stop_id = chat_stop_id(t->chat);
    mem_free(t->system);
    t->system = t->jinja ? chat_own_system(t->jinja, &roles) : NULL;
done:
    return err;
}

GenCfg talk_config(const Talk *t, const Params *p) {
    return (GenCfg){.sample = {.temperature = (float)p->generate.temperature,
                               .greedy = p->generate.greedy,
                               .top_k = p->generate.top_k,
                               .top_p = (float)p->generate.top_p},
                    .seed = (uint64_t)p->job.seed,
                    .stop_ids = &t->stop_id,
                    .n_stop_ids = t->stop_id >= 0,
                    .stop_strings = p->generate.stop.item,
                    .n_stop_strings = p->generate.stop.n,
                    .tok = t->tok};
}

int64_t talk_room(const Talk *t, int64_t n_prompt, int64_t max_answer) {
    return ds_min(max_answer, t->model.arch.max_positions - n_prompt);
}

void talk_answer(Talk *t, const GenCfg *cfg, GenRequest *req, int64_t n, int64_t batch, GenTold told, void *user) {
    int64_t longest = 1, slots = ds_max(1, ds_min(n, batch));
    for (int64_t i = 0; i < n; i++) longest = ds_max(longest, req[i].n_prompt + req[i].max_new);
    if (t->gen && (t->slots < slots || t->max_tokens < longest)) gen_destroy(&t->gen);
    if (!t->gen) {
        t->slots = slots;
        t->max_tokens = ds_min(t->model.arch.max_positions, ds_round_up(longest, 256));
        t->gen = gen_create(&t->model, slots, ds_max(longest, t->max_tokens), PREFILL_TOKENS, KV_BLOCK, NULL);
    }
    gen_run(t->gen, cfg, req, n, told, user);
}
