// lengths.h: the unequal lengths that the PyTorch script draws with --mixed, without PyTorch: its generator is MT19937
// (Matsumoto and Nishimura 1998) with seed 0, torch.randint(low, high) is low + word % (high - low), and before the
// lengths the script has drawn the tokens of all prompts and of all sequences.
#ifndef DS_BENCH_LENGTHS_H
#define DS_BENCH_LENGTHS_H

#include "base/types.h"

enum { MT_WORDS = 624, MT_APART = 397 };
typedef struct {
    uint32_t word[MT_WORDS];
    int next;
} Mt;

static void mt_seed(Mt *g, uint32_t seed) {
    g->word[0] = seed;
    for (uint32_t i = 1; i < MT_WORDS; i++) g->word[i] = 1812433253u * (g->word[i - 1] ^ (g->word[i - 1] >> 30)) + i;
    g->next = MT_WORDS;
}

static void mt_renew(Mt *g) {
    for (int i = 0; i < MT_WORDS; i++) {
        const uint32_t y = (g->word[i] & 0x80000000u) | (g->word[(i + 1) % MT_WORDS] & 0x7fffffffu);
        g->word[i] = g->word[(i + MT_APART) % MT_WORDS] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    g->next = 0;
}

static uint32_t mt_draw(Mt *g) {
    if (g->next == MT_WORDS) mt_renew(g);
    uint32_t y = g->word[g->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

// Whole numbers from low to high, both included.
static void mt_fill(Mt *g, int64_t n, int64_t low, int64_t high, int64_t *out) {
    for (int64_t i = 0; i < n; i++) out[i] = low + mt_draw(g) % (high - low + 1);
}

// prompt_len, answer_len: [batch]; the first of each is the longest.
static void lengths_mixed(int64_t batch, int64_t prompt, int64_t answer, int64_t *prompt_len, int64_t *answer_len) {
    Mt g;
    mt_seed(&g, 0);
    for (int64_t i = 0; i < batch * (prompt + prompt + answer); i++) mt_draw(&g);
    mt_fill(&g, batch, prompt / 4, prompt, prompt_len);
    mt_fill(&g, batch, ds_max(1, answer / 8), answer, answer_len);
    prompt_len[0] = prompt, answer_len[0] = answer;
}

#endif
