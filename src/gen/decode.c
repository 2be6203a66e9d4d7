// decode.c: admit, one pass, draw, retire; until all requests are answered.
#include "gen/decode.h"

#include "base/mem.h"
#include "comm/coll.h"
#include "gen/sampler.h"

struct Gen {
    const Model *m;
    int64_t slots, prefill_tokens;
    KvPool pool;
    Acts acts;
    int64_t *running; // [slots] request in the slot, -1: free
    bool *fresh;      // [slots] its prompt has not gone through the model
    Batch batch;
    int64_t *seq_slot; // [slots] slot of each sequence of the pass
    int32_t *first, *rows, *ids;
    float *u, *logp;
    const Group *together; // view
};

Gen *gen_create(const Model *m, int64_t slots, int64_t max_tokens, int64_t prefill_tokens, int64_t kv_block,
                Workspace *shared) {
    Gen *g = MEM_NEW(Gen, 1);
    *g = (Gen){.m = m,
               .slots = slots,
               .prefill_tokens = prefill_tokens,
               .running = MEM_NEW(int64_t, slots),
               .fresh = MEM_NEW(bool, slots),
               .seq_slot = MEM_NEW(int64_t, slots),
               .first = MEM_NEW(int32_t, slots),
               .rows = MEM_NEW(int32_t, slots),
               .ids = MEM_NEW(int32_t, slots),
               .u = MEM_NEW(float, slots),
               .logp = MEM_NEW(float, slots)};
    kvcache_create(&g->pool, m, slots, max_tokens, kv_block, shared);
    acts_create(&g->acts, m->k, &m->part, m->dt, false, 1);
    if (shared)
        acts_share(&g->acts, shared,
                   (size_t)ds_round_up((int64_t)kvcache_bytes(&m->part.own, m->dt, slots, max_tokens, kv_block), 64));
    acts_reserve(&g->acts, prefill_tokens + slots, slots);
    for (int64_t s = 0; s < slots; s++) g->running[s] = -1;
    return g;
}

void gen_destroy(Gen **pg) {
    Gen *g = *pg;
    if (!g) return;
    kvcache_destroy(&g->pool);
    acts_destroy(&g->acts);
    batch_free(&g->batch);
    mem_free(g->running);
    mem_free(g->fresh);
    mem_free(g->seq_slot);
    mem_free(g->first);
    mem_free(g->rows);
    mem_free(g->ids);
    mem_free(g->u);
    mem_free(g->logp);
    MEM_FREE(*pg);
}

// Gives free slots to waiting requests, in order, while prompts and blocks have room. Returns the next waiting request.
static int64_t admit(Gen *g, const GenRequest *req, int64_t n, int64_t next) {
    int64_t tokens = 0;
    for (int64_t s = 0; s < g->slots && next < n; s++) {
        if (g->running[s] >= 0) continue;
        const GenRequest *r = &req[next];
        if (tokens > 0 && tokens + r->n_prompt > g->prefill_tokens) break;
        if (!kvcache_acquire(&g->pool, s, r->n_prompt + r->max_new)) break;
        tokens += r->n_prompt;
        g->running[s] = next++;
        g->fresh[s] = true;
    }
    return next;
}

// Appends the rows of one sequence: its whole prompt, or its last token.
static void add_rows(Gen *g, const GenRequest *r, bool fresh) {
    Batch *b = &g->batch;
    int64_t n = fresh ? r->n_prompt : 1, from = fresh ? 0 : r->n_prompt + r->n - 1;
    g->first[b->n_seq] = (int32_t)from;
    for (int64_t i = 0; i < n; i++) {
        b->ids[b->n + i] = fresh ? r->prompt[i] : r->ids[r->n - 1];
        b->pos[b->n + i] = (int32_t)(from + i);
    }
    b->n += n;
    g->rows[b->n_seq++] = (int32_t)(b->n - 1);
    b->starts[b->n_seq] = (int32_t)b->n;
}

static void build_pass(Gen *g, const GenCfg *cfg, const GenRequest *req) {
    int64_t tokens = 0;
    for (int64_t s = 0; s < g->slots; s++)
        if (g->running[s] >= 0) tokens += g->fresh[s] ? req[g->running[s]].n_prompt : 1;
    batch_reserve(&g->batch, tokens, g->slots);
    g->batch.n = g->batch.n_seq = 0;
    g->batch.starts[0] = 0;
    for (int64_t s = 0; s < g->slots; s++) {
        if (g->running[s] < 0) continue;
        const GenRequest *r = &req[g->running[s]];
        g->u[g->batch.n_seq] = sampler_uniform(cfg->seed, r->id, r->n);
        g->seq_slot[g->batch.n_seq] = s;
        add_rows(g, r, g->fresh[s]);
        g->fresh[s] = false;
    }
}

// Takes what was drawn; ended sequences leave. Returns how many ended.
static int64_t retire(Gen *g, const GenCfg *cfg, GenRequest *req, GenTold told, void *user) {
    int64_t ended = 0;
    for (int64_t i = 0; i < g->batch.n_seq; i++) {
        const int64_t s = g->seq_slot[i];
        GenRequest *r = &req[g->running[s]];
        r->ids[r->n] = g->ids[i];
        r->logp[r->n++] = g->logp[i];
        r->stop = sampler_stop(cfg, r);
        if (told && !told(user, r) && r->stop == GEN_STOP_NONE) r->stop = GEN_STOP_USER;
        if (r->stop == GEN_STOP_NONE) continue;
        kvcache_release(&g->pool, s);
        g->running[s] = -1;
        ended++;
    }
    return ended;
}

void gen_reserve(Gen *g, int64_t max_prompt) {
    acts_reserve(&g->acts, ds_max(g->prefill_tokens, max_prompt) + g->slots, g->slots);
}

void gen_together(Gen *g, const Group *together) { g->together = together; }

const Model *gen_model(const Gen *g) { return g->m; }

// Whether this rank, or one that it goes together with, has sequences left.
static bool anyone_has(const Gen *g, int64_t left) {
    if (g->together) coll_max_i64(g->together, &left, 1);
    return left > 0;
}

static void empty_pass(Gen *g, const GenCfg *cfg) {
    batch_empty(&g->batch);
    model_fwd(g->m, &g->acts, &g->batch, 0, NULL);
    head_lm_sample(g->m, &g->acts, g->rows, 0, &cfg->sample, g->u, g->ids, g->logp);
}

void gen_run(Gen *g, const GenCfg *cfg, GenRequest *req, int64_t n, GenTold told, void *user) {
    int64_t next = 0, left = n;
    for (int64_t i = 0; i < n; i++) req[i].n = 0, req[i].stop = GEN_STOP_NONE;
    kvcache_begin(&g->pool);
    while (anyone_has(g, left)) {
        if (left == 0) {
            empty_pass(g, cfg);
            continue;
        }
        next = admit(g, req, n, next);
        build_pass(g, cfg, req);
        kvcache_select(&g->pool, g->seq_slot, g->batch.n_seq);
        ModelCache cache = {.layer = g->pool.layer, .first = g->first};
        model_fwd(g->m, &g->acts, &g->batch, g->batch.n_seq, &cache);
        head_lm_sample(g->m, &g->acts, g->rows, g->batch.n_seq, &cfg->sample, g->u, g->ids, g->logp);
        left -= retire(g, cfg, req, told, user);
    }
}

const char *gen_stop_name(GenStop s) {
    static const char *const names[] = {"none", "eos", "length", "string", "user"};
    return names[s];
}
