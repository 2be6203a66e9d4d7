// decode.c: admit, one pass, draw, retire; until all requests are answered.
#include "gen/decode.h"

#include "base/mem.h"
#include "comm/coll.h"
#include "gen/sampler.h"

// A sequence that is being generated.
typedef struct {
    int64_t request; // -1: the slot is free
    bool fresh;      // its prompt has not gone through the model
    int64_t leader;  // the slot of the fresh one whose prompt is this one's too; -1: none
    int32_t row;     // of the pass: the last one of its prompt or answer
} Slot;

struct Gen {
    const Model *m;
    int64_t slots, prefill_tokens;
    KvPool pool;
    Acts acts;
    Slot *slot; // [slots]
    Batch batch;
    // Of the pass: the sequences that bring rows, and the draws, one for every sequence.
    int64_t *seq_slot, *draw_slot; // [slots]
    int32_t *first, *rows, *ids;
    float *u, *logp;
    int64_t draws, prefilled;
    const Group *together; // view
};

Gen *gen_create(const Model *m, int64_t slots, int64_t max_tokens, int64_t prefill_tokens, int64_t kv_block,
                Workspace *shared) {
    Gen *g = MEM_NEW(Gen, 1);
    *g = (Gen){.m = m,
               .slots = slots,
               .prefill_tokens = prefill_tokens,
               .slot = MEM_NEW(Slot, slots),
               .seq_slot = MEM_NEW(int64_t, slots),
               .draw_slot = MEM_NEW(int64_t, slots),
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
    for (int64_t s = 0; s < slots; s++) g->slot[s] = (Slot){.request = -1, .leader = -1};
    return g;
}

void gen_destroy(Gen **pg) {
    Gen *g = *pg;
    if (!g) return;
    kvcache_destroy(&g->pool);
    acts_destroy(&g->acts);
    batch_free(&g->batch);
    mem_free(g->slot);
    mem_free(g->seq_slot);
    mem_free(g->draw_slot);
    mem_free(g->first);
    mem_free(g->rows);
    mem_free(g->ids);
    mem_free(g->u);
    mem_free(g->logp);
    MEM_FREE(*pg);
}

// ---- who runs ----

static bool same_prompt(const GenRequest *a, const GenRequest *b) {
    return a->prompt == b->prompt && a->n_prompt == b->n_prompt;
}

// The slot that has r's prompt; -1: none. Of those that begin together it is the one with the prompt's rows.
static int64_t find_prompt(const Gen *g, const GenRequest *req, const GenRequest *r) {
    for (int64_t s = 0; s < g->slots; s++)
        if (g->slot[s].request >= 0 && same_prompt(&req[g->slot[s].request], r))
            return g->slot[s].leader >= 0 ? g->slot[s].leader : s;
    return -1;
}

// r begins in slot s with the prompt of the one in slot `from`; false if the cache has no room.
static bool join(Gen *g, int64_t s, int64_t from, const GenRequest *r) {
    if (!kvcache_join(&g->pool, s, from, r->n_prompt, r->n_prompt + r->max_new)) return false;
    if (g->slot[from].fresh) g->slot[s].leader = from;
    else kvcache_copy_prompt(&g->pool, s, from, r->n_prompt);
    return true;
}

// Gives free slots to waiting requests, in order, while prompts and blocks have room. Returns the next waiting request.
static int64_t admit(Gen *g, const GenRequest *req, int64_t n, int64_t next) {
    int64_t tokens = 0;
    for (int64_t s = 0; s < g->slots && next < n; s++) {
        if (g->slot[s].request >= 0) continue;
        const GenRequest *r = &req[next];
        const int64_t from = find_prompt(g, req, r);
        if (from >= 0) {
            if (!join(g, s, from, r)) break;
        } else {
            if (tokens > 0 && tokens + r->n_prompt > g->prefill_tokens) break;
            if (!kvcache_acquire(&g->pool, s, r->n_prompt + r->max_new)) break;
            tokens += r->n_prompt;
            g->slot[s].fresh = true;
        }
        g->slot[s].request = next++;
    }
    g->prefilled += tokens;
    return next;
}

// The sequence in slot s has ended: the next waiting request takes its slot if it has the same prompt, which then is in
// place. Returns the next waiting request.
static int64_t hand_over(Gen *g, const GenRequest *req, int64_t n, int64_t next, int64_t s) {
    const GenRequest *old = &req[g->slot[s].request], *r = &req[next];
    if (next < n && same_prompt(old, r) && kvcache_succeed(&g->pool, s, r->n_prompt, r->n_prompt + r->max_new)) {
        g->slot[s].request = next;
        return next + 1;
    }
    kvcache_release(&g->pool, s);
    g->slot[s].request = -1;
    return next;
}

// ---- a pass ----

// Appends the rows of the sequence in slot s: its whole prompt, or its last token.
static void add_rows(Gen *g, const GenRequest *r, int64_t s) {
    Batch *b = &g->batch;
    const int64_t end = r->n_prompt + r->n, from = g->slot[s].fresh ? 0 : end - 1;
    g->first[b->n_seq] = (int32_t)from;
    for (int64_t i = from; i < end; i++) {
        b->ids[b->n] = i < r->n_prompt ? r->prompt[i] : r->ids[i - r->n_prompt];
        b->pos[b->n++] = (int32_t)i;
    }
    g->slot[s].row = (int32_t)(b->n - 1);
    g->seq_slot[b->n_seq] = s;
    b->starts[++b->n_seq] = (int32_t)b->n;
}

static void build_pass(Gen *g, const GenCfg *cfg, const GenRequest *req) {
    int64_t tokens = 0;
    for (int64_t s = 0; s < g->slots; s++)
        if (g->slot[s].request >= 0) tokens += g->slot[s].fresh ? req[g->slot[s].request].n_prompt : 1;
    batch_reserve(&g->batch, tokens, g->slots);
    g->batch.n = g->batch.n_seq = g->draws = 0;
    g->batch.starts[0] = 0;
    for (int64_t s = 0; s < g->slots; s++) {
        Slot *x = &g->slot[s];
        if (x->request < 0) continue;
        const GenRequest *r = &req[x->request];
        if (x->leader >= 0) x->row = g->slot[x->leader].row; // of a lower slot
        else add_rows(g, r, s);
        g->u[g->draws] = sampler_uniform(cfg->seed, r->id, r->n);
        g->rows[g->draws] = x->row;
        g->draw_slot[g->draws++] = s;
    }
}

// The prompts of this pass are in the cache: those that share one get what they need for themselves.
static void spread_prompts(Gen *g, const GenRequest *req) {
    for (int64_t s = 0; s < g->slots; s++) {
        Slot *x = &g->slot[s];
        if (x->leader >= 0) kvcache_copy_prompt(&g->pool, s, x->leader, req[x->request].n_prompt);
        x->leader = -1;
        x->fresh = false;
    }
}

// Takes what was drawn; ended sequences leave. Returns how many ended; *next as in hand_over.
static int64_t retire(Gen *g, const GenCfg *cfg, GenRequest *req, int64_t n, int64_t *next, GenTold told, void *user) {
    int64_t ended = 0;
    for (int64_t i = 0; i < g->draws; i++) {
        const int64_t s = g->draw_slot[i];
        GenRequest *r = &req[g->slot[s].request];
        r->ids[r->n] = g->ids[i];
        r->logp[r->n++] = g->logp[i];
        r->stop = sampler_stop(cfg, r);
        if (told && !told(user, r) && r->stop == GEN_STOP_NONE) r->stop = GEN_STOP_USER;
        if (r->stop == GEN_STOP_NONE) continue;
        *next = hand_over(g, req, n, *next, s);
        ended++;
    }
    return ended;
}

void gen_reserve(Gen *g, int64_t max_prompt) {
    acts_reserve(&g->acts, ds_max(g->prefill_tokens, max_prompt) + g->slots, g->slots);
}

void gen_together(Gen *g, const Group *together) { g->together = together; }

const Model *gen_model(const Gen *g) { return g->m; }

int64_t gen_prefilled(const Gen *g) { return g->prefilled; }

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
    g->prefilled = 0;
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
        model_fwd(g->m, &g->acts, &g->batch, g->draws, &cache);
        head_lm_sample(g->m, &g->acts, g->rows, g->draws, &cfg->sample, g->u, g->ids, g->logp);
        spread_prompts(g, req);
        left -= retire(g, cfg, req, n, &next, told, user);
    }
}

const char *gen_stop_name(GenStop s) {
    static const char *const names[] = {"none", "eos", "length", "string", "user"};
    return names[s];
}
