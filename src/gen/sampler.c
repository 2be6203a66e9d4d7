// sampler.c: see sampler.h.
#include "gen/sampler.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

float sampler_uniform(uint64_t seed, uint64_t id, int64_t at) {
    // 24 bits, centred. The half is rounded away from 1/2 on; the last number would become 1.
    uint32_t w[4];
    rng_words(seed, RNG_SAMPLE, id, (uint64_t)at, w);
    const float u = ((float)(w[0] >> 8) + 0.5f) * 0x1p-24f;
    return u < 1 ? u : 0x1.fffffep-1f;
}

// Whether the text of the last few tokens ends with, or holds, a stop string that the last token completed.
static bool ends_in_string(const GenCfg *cfg, const GenRequest *r) {
    size_t longest = 0;
    for (int i = 0; i < cfg->n_stop_strings; i++)
        if (strlen(cfg->stop_strings[i]) > longest) longest = strlen(cfg->stop_strings[i]);
    // Every token has at least one byte, but for special ones: that many tokens and some hold the longest string.
    int64_t tail = ds_min(r->n, (int64_t)longest + 8);
    char *text = NULL;
    size_t bytes = 0;
    tok_decode(cfg->tok, r->ids + r->n - tail, tail, &text, &bytes);
    bool found = false;
    for (int i = 0; i < cfg->n_stop_strings && !found; i++) {
        size_t n = strlen(cfg->stop_strings[i]);
        found = n > 0 && bytes >= n && memmem(text, bytes, cfg->stop_strings[i], n) != NULL;
    }
    mem_free(text);
    return found;
}

GenStop sampler_stop(const GenCfg *cfg, const GenRequest *r) {
    for (int i = 0; i < cfg->n_stop_ids; i++)
        if (r->ids[r->n - 1] == cfg->stop_ids[i]) return GEN_STOP_EOS;
    if (cfg->tok && cfg->n_stop_strings && ends_in_string(cfg, r)) return GEN_STOP_STRING;
    return r->n >= r->max_new ? GEN_STOP_LENGTH : GEN_STOP_NONE;
}
