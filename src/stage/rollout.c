// rollout.c: generation and scoring over the ranks of the data group, and the arithmetic that follows.
#include "stage/rollout.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/coll.h"

void rollout_free_prompts(Prompts *p) {
    mem_free(p->record);
    mem_free(p->start);
    mem_free(p->ids);
    *p = (Prompts){0};
}

void rollout_free(Rollout *r) {
    mem_free(r->starts);
    mem_free(r->ids);
    mem_free(r->logp);
    mem_free(r->score);
    mem_free(r->truth);
    mem_free(r->truncated);
    mem_free(r->scorer);
    *r = (Rollout){0};
}

// ---- generation ----

// What travels of an answer: these words, then its ids, then its log-probs.
enum { WIRE_INDEX, WIRE_N, WIRE_STOP, WIRE_HEAD };

// The first of the answers that fall to `rank`. Neighbours fall together: they share their prompts.
static int64_t first_answer(const Group *data, int rank, int64_t answers) { return answers * rank / group_size(data); }

static GenRequest *make_requests(const Group *data, const Prompts *p, int64_t samples, int64_t max_answer, uint64_t key,
                                 int64_t *n) {
    const int rank = group_rank(data);
    const int64_t first = first_answer(data, rank, p->n * samples), end = first_answer(data, rank + 1, p->n * samples);
    GenRequest *req = MEM_NEW(GenRequest, end - first);
    *n = 0;
    for (int64_t i = first; i < end; i++) {
        int64_t prompt = i / samples;
        req[(*n)++] = (GenRequest){.prompt = p->ids + p->start[prompt],
                                   .n_prompt = p->start[prompt + 1] - p->start[prompt],
                                   .id = key + (uint64_t)i,
                                   .max_new = max_answer,
                                   .ids = MEM_NEW(int32_t, max_answer),
                                   .logp = MEM_NEW(float, max_answer)};
    }
    return req;
}

// The answers from number `first` on, this rank's, as one array of 32-bit words.
static int32_t *pack_answers(int64_t first, const GenRequest *req, int64_t n, int64_t *words) {
    *words = 0;
    for (int64_t i = 0; i < n; i++) *words += WIRE_HEAD + 2 * req[i].n;
    int32_t *wire = MEM_NEW(int32_t, *words), *at = wire;
    for (int64_t i = 0; i < n; i++) {
        at[WIRE_INDEX] = (int32_t)(first + i);
        at[WIRE_N] = (int32_t)req[i].n;
        at[WIRE_STOP] = req[i].stop;
        memcpy(at + WIRE_HEAD, req[i].ids, (size_t)req[i].n * sizeof *at);
        memcpy(at + WIRE_HEAD + req[i].n, req[i].logp, (size_t)req[i].n * sizeof *at);
        at += WIRE_HEAD + 2 * req[i].n;
    }
    return wire;
}

static void allocate(Rollout *r, int64_t actions) {
    float **const list[] = {&r->logp, &r->logp_ref, &r->values, &r->kl, &r->rewards, &r->advantages, &r->returns};
    float *all = MEM_NEW(float, actions *DS_COUNT(list)); // r->logp owns it
    for (int i = 0; i < DS_COUNT(list); i++) *list[i] = all + i * actions;
    r->ids = MEM_NEW(int32_t, actions);
    r->score = MEM_NEW(float, r->answers);
    r->truth = MEM_NEW(float, r->answers);
    r->truncated = MEM_NEW(uint8_t, r->answers);
    r->scorer = MEM_NEW(int32_t, r->answers);
}

static void unpack_answers(const int32_t *wire, int64_t words, Rollout *r) {
    r->starts = MEM_NEW(int32_t, r->answers + 1);
    for (const int32_t *at = wire; at < wire + words; at += WIRE_HEAD + 2 * at[WIRE_N])
        r->starts[at[WIRE_INDEX] + 1] = at[WIRE_N];
    for (int64_t i = 0; i < r->answers; i++) r->starts[i + 1] += r->starts[i];
    allocate(r, r->starts[r->answers]);
    for (const int32_t *at = wire; at < wire + words; at += WIRE_HEAD + 2 * at[WIRE_N]) {
        const int32_t i = at[WIRE_INDEX], n = at[WIRE_N];
        memcpy(r->ids + r->starts[i], at + WIRE_HEAD, (size_t)n * sizeof *at);
        memcpy(r->logp + r->starts[i], at + WIRE_HEAD + n, (size_t)n * sizeof *at);
        r->truncated[i] = at[WIRE_STOP] == GEN_STOP_LENGTH;
    }
}

void rollout_generate(Hybrid *h, const GenCfg *cfg, const Prompts *prompts, int64_t samples, int64_t max_answer,
                      uint64_t key, Rollout *out) {
    double start = clock_now();
    const Group *data = hybrid_data(h);
    int64_t n, words;
    *out = (Rollout){.answers = prompts->n * samples, .samples = samples, .prompts = prompts};
    GenRequest *req = make_requests(data, prompts, samples, max_answer, key, &n);
    hybrid_enter(h);
    hybrid_run(h, cfg, req, n);
    hybrid_leave(h);
    int32_t *wire = pack_answers(first_answer(data, group_rank(data), out->answers), req, n, &words);
    void *all = NULL;
    size_t *offset = MEM_NEW(size_t, group_size(data) + 1);
    coll_allgatherv(data, wire, (size_t)words * sizeof *wire, &all, offset);
    unpack_answers(all, (int64_t)(offset[group_size(data)] / sizeof *wire), out);
    for (int64_t i = 0; i < n; i++) {
        mem_free(req[i].ids);
        mem_free(req[i].logp);
    }
    mem_free(req);
    mem_free(wire);
    mem_free(all);
    mem_free(offset);
    out->generate_seconds = clock_now() - start;
}

// ---- packing ----

int64_t rollout_length(const Rollout *r, int64_t i) {
    const int64_t prompt = i / r->samples;
    return r->prompts->start[prompt + 1] - r->prompts->start[prompt] + r->starts[i + 1] - r->starts[i];
}

void rollout_batch(const Rollout *r, const int64_t *item, int64_t n, Batch *b, int32_t *rows, int32_t *action,
                   int64_t *n_rows) {
    int64_t tokens = 0;
    *n_rows = 0;
    if (n == 0) {
        batch_empty(b);
        return;
    }
    for (int64_t i = 0; i < n; i++) tokens += rollout_length(r, item[i]);
    batch_reserve(b, tokens, n);
    b->n = b->n_seq = 0;
    b->starts[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t prompt = item[i] / r->samples,
                      n_prompt = r->prompts->start[prompt + 1] - r->prompts->start[prompt];
        const int64_t length = rollout_length(r, item[i]);
        memcpy(b->ids + b->n, r->prompts->ids + r->prompts->start[prompt], (size_t)n_prompt * sizeof *b->ids);
        memcpy(b->ids + b->n + n_prompt, r->ids + r->starts[item[i]], (size_t)(length - n_prompt) * sizeof *b->ids);
        for (int64_t t = 0; t < length; t++) b->pos[b->n + t] = (int32_t)t;
        for (int64_t t = n_prompt; t < length; t++) {
            rows[*n_rows] = (int32_t)(b->n + t - 1);
            action[(*n_rows)++] = (int32_t)(r->starts[item[i]] + t - n_prompt);
        }
        b->n += length;
        b->starts[++b->n_seq] = (int32_t)b->n;
    }
}

// ---- scoring ----

void rollout_create_scorer(Scorer *s, const Model *actor, const Model *reference, const Model *critic,
                           const Model *reward, int64_t micro_tokens, double temperature, Workspace *shared) {
    *s = (Scorer){.actor = actor,
                  .reference = reference,
                  .critic = critic,
                  .reward = reward,
                  .micro_tokens = micro_tokens,
                  .inv_temperature = head_inv_temperature(temperature)};
    if (actor) acts_create(&s->actor_acts, actor->k, &actor->part, actor->dt, false, 1);
    if (reference) acts_create(&s->reference_acts, reference->k, &reference->part, reference->dt, false, 1);
    if (critic) acts_create(&s->critic_acts, critic->k, &critic->part, critic->dt, false, 1);
    if (reward) acts_create(&s->reward_acts, reward->k, &reward->part, reward->dt, false, 1);
    Acts *const list[] = {&s->actor_acts, &s->reference_acts, &s->critic_acts, &s->reward_acts};
    for (int i = 0; shared && i < DS_COUNT(list); i++) acts_share(list[i], shared, 0);
}

void rollout_reserve_scorer(Scorer *s, int64_t tokens) {
    if (s->actor) acts_reserve(&s->actor_acts, tokens, tokens);
    if (s->reference) acts_reserve(&s->reference_acts, tokens, tokens);
    if (s->critic) acts_reserve(&s->critic_acts, tokens, tokens);
    if (s->reward) acts_reserve(&s->reward_acts, tokens, tokens);
}

void rollout_destroy_scorer(Scorer *s) {
    acts_destroy(&s->actor_acts);
    acts_destroy(&s->reference_acts);
    acts_destroy(&s->critic_acts);
    acts_destroy(&s->reward_acts);
    *s = (Scorer){0};
}

// Scores of one micro-batch, appended to wire: for each action its reference log-prob, its value and, where an actor
// scores, its log-prob; for each answer its score.
typedef struct {
    Scorer *s;
    Rollout *r;
    Batch b;
    int32_t *rows, *action, *target;
    float *wire;
    int64_t words;
} Scoring;

static int lists_of(const Scorer *s) { return s->actor ? 3 : 2; }

static void score_lm(Scoring *x, const Model *m, Acts *acts, int64_t n_rows, float *logp) {
    model_fwd(m, acts, &x->b, n_rows, NULL);
    head_lm_score(m, acts, x->rows, x->target, n_rows, x->s->inv_temperature, logp, NULL);
}

static void score_micro(Scoring *x, const int64_t *item, int64_t n) {
    Scorer *s = x->s;
    Batch *b = &x->b;
    int64_t n_rows;
    rollout_batch(x->r, item, n, b, x->rows, x->action, &n_rows);
    float *logp_ref = x->wire + x->words, *values = logp_ref + n_rows, *logp = values + n_rows,
          *scores = logp_ref + lists_of(s) * n_rows;
    x->words += lists_of(s) * n_rows + n;
    for (int64_t i = 0; i < n_rows; i++) x->target[i] = x->r->ids[x->action[i]];
    if (s->actor) score_lm(x, s->actor, &s->actor_acts, n_rows, logp);
    if (s->reference) score_lm(x, s->reference, &s->reference_acts, n_rows, logp_ref);
    if (s->critic) {
        model_fwd(s->critic, &s->critic_acts, b, n_rows, NULL);
        head_scalar_fwd(s->critic, &s->critic_acts, x->rows, n_rows, values);
    }
    if (s->reward) {
        for (int64_t i = 0; i < n; i++) x->rows[i] = b->starts[i + 1] - 1;
        model_fwd(s->reward, &s->reward_acts, b, n_rows, NULL);
        head_scalar_fwd(s->reward, &s->reward_acts, x->rows, n, scores);
    }
}

// Takes the scores of a rank apart in the order in which score_micro wrote them.
static const float *take_scores(const PackBatches *own, int rank, int lists, const float *at, Rollout *r) {
    for (int64_t m = 0; m < own->n; m++) {
        const int64_t *item = own->item + own->start[m], n = own->start[m + 1] - own->start[m];
        float *const to[] = {r->logp_ref, r->values, r->logp};
        for (int which = 0; which < lists; which++)
            for (int64_t i = 0; i < n; i++) {
                int64_t count = r->starts[item[i] + 1] - r->starts[item[i]];
                memcpy(to[which] + r->starts[item[i]], at, (size_t)count * sizeof *at);
                at += count;
            }
        for (int64_t i = 0; i < n; i++) {
            r->score[item[i]] = *at++;
            r->scorer[item[i]] = rank;
        }
    }
    return at;
}

void rollout_score(Run *run, Scorer *s, Rollout *r) {
    double start = clock_now();
    const int rank = group_rank(run->layout.data), size = group_size(run->layout.data);
    const int64_t actions = r->starts[r->answers];
    int64_t *length = MEM_NEW(int64_t, r->answers);
    Deal deal = {0};
    for (int64_t i = 0; i < r->answers; i++) r->score_tokens += length[i] = rollout_length(r, i);
    pack_deal(length, r->answers, size, s->micro_tokens, &deal);
    Scoring x = {.s = s,
                 .r = r,
                 .rows = MEM_NEW(int32_t, actions + r->answers),
                 .action = MEM_NEW(int32_t, actions),
                 .target = MEM_NEW(int32_t, actions),
                 .wire = MEM_NEW(float, lists_of(s) * actions + r->answers)};
    for (int64_t t = 0; t < pack_turns(&deal, size); t++) {
        const int64_t *item, n = pack_turn(&deal, size, rank, t, &item);
        score_micro(&x, item, n);
    }
    void *all = NULL;
    size_t *offset = MEM_NEW(size_t, size + 1);
    coll_allgatherv(run->layout.data, x.wire, (size_t)x.words * sizeof *x.wire, &all, offset);
    const float *at = all;
    for (int p = 0; p < size; p++) at = take_scores(&deal.part[p], p, lists_of(s), at, r);
    mem_free(all);
    mem_free(offset);
    mem_free(x.rows);
    mem_free(x.action);
    mem_free(x.target);
    mem_free(x.wire);
    batch_free(&x.b);
    pack_deal_free(&deal);
    mem_free(length);
    r->score_seconds = clock_now() - start;
}

void rollout_check(const Run *run, Checker checker, Rollout *r) {
    for (int64_t i = 0; checker && run->tok && i < r->answers; i++) {
        const Prompts *p = r->prompts;
        const int64_t prompt = i / r->samples;
        char *question = tok_text(run->tok, p->ids + p->start[prompt], p->start[prompt + 1] - p->start[prompt]);
        char *answer = tok_text(run->tok, r->ids + r->starts[i], r->starts[i + 1] - r->starts[i]);
        r->truth[i] = (float)checker(question, answer);
        mem_free(question);
        mem_free(answer);
    }
}

void rollout_advantages(const GaeCfg *gae, KlForm form, double kl_coef, bool whiten, Rollout *r) {
    const int64_t actions = r->starts[r->answers];
    kl_tokens(form, actions, r->logp, r->logp_ref, r->kl);
    gae_rewards(gae, kl_coef, r->answers, r->starts, r->kl, r->score, r->truncated, r->rewards);
    gae_advantages(gae, r->answers, r->starts, r->rewards, r->values, r->advantages, r->returns);
    if (!whiten || actions == 0) return;
    GaeMoments *parts = MEM_NEW(GaeMoments, r->answers);
    gae_moments(r->answers, r->starts, r->advantages, parts);
    GaeMoments total = gae_moments_sum(r->answers, parts);
    gae_whiten(&total, actions, r->advantages);
    mem_free(parts);
}
