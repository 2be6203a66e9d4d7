// build_take.c: see build_take.h.
#include "data/build_take.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

static const char *const drop_names[DROP_KINDS][2] = {
    [DROP_NONE] = {"none", "taken"},
    [DROP_LONG_LINE] = {"long_line", "longer than 16 MiB"},
    [DROP_UTF8] = {"bad_utf8", "not UTF-8"},
    [DROP_JSON] = {"bad_json", "no JSON object"},
    [DROP_FIELDS] = {"bad_fields", "fields missing or wrong"},
    [DROP_IDENTICAL] = {"identical_pair", "chosen and rejected are the same"},
    [DROP_NO_ANSWER] = {"no_answer", "no answer at the end"},
    [DROP_EMPTY] = {"empty", "empty prompt, answer or text"},
    [DROP_PROMPT] = {"long_prompt", "prompt longer than max_prompt"},
    [DROP_ANSWER] = {"long_answer", "answer longer than max_answer"},
    [DROP_TOKENS] = {"long_record", "longer than max_tokens"},
    [DROP_NO_STAGE] = {"no_stage", "the split has no stage for it"},
    [DROP_WEIGHT] = {"weight", "left out by the source's weight"},
};

const char *build_take_drop_name(BuildDrop drop) { return drop_names[drop][0]; }
const char *build_take_drop_words(BuildDrop drop) { return drop_names[drop][1]; }

void build_take_free(BuildTaker *t) {
    chat_tokens_free(&t->chosen);
    chat_tokens_free(&t->rejected);
}

// ---- which stages ----

static uint8_t draw_stage(const BuildSpec *spec, bool has_pair, int source, int64_t number) {
    double share[DATA_PTX], sum = 0, at = 0;
    for (int k = 0; k < DATA_PTX; k++) sum += share[k] = k == DATA_RM && !has_pair ? 0 : spec->share[k];
    if (sum <= 0) return 0;
    double u = rng_uniform((uint64_t)spec->seed, RNG_SPLIT, (uint64_t)source, (uint64_t)number) * sum;
    int last = 0;
    for (int k = 0; k < DATA_PTX; k++) {
        if (share[k] <= 0) continue;
        last = k;
        if (u < (at += share[k])) break;
    }
    return (uint8_t)(1 << last);
}

static Err choose_stages(const BuildSpec *spec, const BuildRecord *r, int source, int64_t number, const char *where,
                         uint8_t *stages) {
    Err err = DS_OK;
    const int wanted = spec->source[source].stages;
    if (wanted & STAGES_SPLIT) {
        *stages = r->is_text ? 1 << DATA_PTX : draw_stage(spec, r->has_pair, source, number);
        goto done;
    }
    DS_CHECK(!(wanted & (1 << DATA_RM)) || r->has_pair, DS_ERR_DATA,
             "%s: field \"rejected\" is missing, and stages of [source%d] name rm", where, source + 1);
    DS_CHECK(!(wanted & (1 << DATA_PPO)) || !r->is_text, DS_ERR_DATA,
             "%s: a text has no prompt, and stages of [source%d] name ppo", where, source + 1);
    *stages = (uint8_t)wanted;
done:
    return err;
}

// ---- lengths ----

// Takes the first n tokens away.
static void cut_left(ChatTokens *x, int64_t n) {
    int64_t kept = 0;
    memmove(x->ids.id, x->ids.id + n, (size_t)(x->ids.n - n) * sizeof *x->ids.id);
    x->ids.n -= n;
    for (int64_t s = 0; s < x->spans; s++) {
        if (x->span[2 * s + 1] <= n) continue;
        x->span[2 * kept] = ds_max(0, x->span[2 * s] - n);
        x->span[2 * kept++ + 1] = x->span[2 * s + 1] - n;
    }
    x->spans = kept;
}

static int64_t prompt_of(const ChatTokens *x) { return x->spans ? x->span[2 * (x->spans - 1)] : 0; }

// Whether the conversation fits, cut if that is wished.
static BuildDrop fit(BuildTaker *t, ChatTokens *x) {
    const BuildSpec *s = t->spec;
    int64_t prompt = prompt_of(x), cut = 0;
    if (s->max_answer && x->ids.n - prompt > s->max_answer) return DROP_ANSWER;
    if (s->max_prompt && prompt > s->max_prompt) {
        if (s->cut == CUT_DROP) return DROP_PROMPT;
        cut = prompt - s->max_prompt;
    }
    if (s->max_tokens && x->ids.n - cut > s->max_tokens) {
        if (s->cut == CUT_DROP) return DROP_TOKENS;
        cut = x->ids.n - s->max_tokens;
    }
    if (!cut) return DROP_NONE;
    cut_left(x, cut);
    t->cut++;
    return DROP_NONE;
}

// ---- conversations ----

static Err encode(BuildTaker *t, const BuildTurns *turns, ChatTokens *x, BuildDrop *drop) {
    Err err = DS_OK;
    bool empty;
    if (!build_form_ends_well(turns, &empty)) {
        *drop = empty ? DROP_EMPTY : DROP_NO_ANSWER;
        goto done;
    }
    DS_TRY(chat_encode(t->chat, turns->turn, turns->n, false, x));
    *drop = x->spans ? fit(t, x) : DROP_NO_ANSWER;
done:
    return err;
}

static Err add_row(BuildTaker *t, const ChatTokens *x, uint8_t stage) {
    return build_rows_add(t->rows, x->ids.id, x->ids.n, x->span, x->spans, prompt_of(x), stage);
}

static Err add_conversation(BuildTaker *t, bool pair, uint8_t stages) {
    Err err = DS_OK;
    DS_TRY(add_row(t, &t->chosen, stages));
    if (pair) {
        DS_TRY(add_row(t, &t->rejected, 0));
        build_rows_pair(t->rows, t->rows->n - 2, t->rows->n - 1);
    }
done:
    return err;
}

// ---- texts ----

static Err encode_text(BuildTaker *t, const BuildRecord *r, BuildDrop *drop) {
    TokIds *ids = &t->chosen.ids;
    ids->n = 0;
    Err err = tok_encode(t->tok, r->text, r->text_bytes, TOK_ENDS, ids);
    if (!err && tok_eos(t->tok) >= 0 && (!ids->n || ids->id[ids->n - 1] != tok_eos(t->tok)))
        tok_ids_push(ids, tok_eos(t->tok));
    *drop = ids->n < 2 ? DROP_EMPTY : DROP_NONE;
    return err;
}

// Rows of at most max_tokens; a last one of a single token, which nothing predicts, is left out.
static Err add_text(BuildTaker *t, uint8_t stages) {
    Err err = DS_OK;
    const TokIds *ids = &t->chosen.ids;
    const int64_t most = t->spec->max_tokens ? t->spec->max_tokens : ids->n;
    for (int64_t at = 0; at < ids->n - 1; at += most) {
        const int64_t n = ds_min(most, ids->n - at), span[] = {0, n};
        DS_TRY(build_rows_add(t->rows, ids->id + at, n, span, 1, 0, stages));
    }
done:
    return err;
}

Err build_take(BuildTaker *t, const BuildRecord *r, int source, int64_t number, int64_t copies, const char *where,
               BuildDrop *drop, BuildUnit *unit) {
    Err err = DS_OK;
    uint8_t stages = 0;
    *drop = DROP_NONE;
    DS_TRY(choose_stages(t->spec, r, source, number, where, &stages));
    const bool pair = stages & (1 << DATA_RM);
    if (!stages) *drop = DROP_NO_STAGE;
    else if (!copies) *drop = DROP_WEIGHT;
    else if (r->has_pair && build_form_identical(r)) *drop = DROP_IDENTICAL;
    else if (r->is_text) DS_TRY(encode_text(t, r, drop));
    else DS_TRY(encode(t, &r->chosen, &t->chosen, drop));
    if (!*drop && pair) DS_TRY(encode(t, &r->rejected, &t->rejected, drop));
    if (!r->is_text && !*drop && !prompt_of(&t->chosen))
        stages &= (uint8_t) ~(1 << DATA_PPO); // its prompt was cut away
    if (!*drop && !stages) *drop = DROP_TOKENS;
    if (*drop) goto done;
    unit->first = t->rows->n;
    unit->stages = stages;
    for (int64_t i = 0; i < copies; i++) {
        DS_TRY(r->is_text ? add_text(t, stages) : add_conversation(t, pair, stages));
        if (!i) unit->copies_from = t->rows->n;
    }
    unit->end = t->rows->n;
done:
    return err;
}
