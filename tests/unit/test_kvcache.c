// test_kvcache.c: which sequence has which blocks of the cache, above all those of a prompt that several share; on the
// backend that computes nothing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "comm/world.h"
#include "gen/kvcache.h"

enum { SLOTS = 3, TOKENS = 80, BLOCK = 16, EACH = 5 };

typedef struct {
    Layout layout;
    Model m;
    KvPool p;
} Fixture;

static void open(Fixture *f) {
    Arch a;
    arch_family_defaults(&a, ARCH_LLAMA);
    a.layers = 1, a.width = a.embed_width = 8, a.heads = a.kv_heads = 2, a.head_dim = a.rotary_dim = 4, a.ffn = 8;
    a.vocab = 16, a.max_positions = TOKENS;
    layout_create(&f->layout, group_world(), (LayoutWish){0});
    model_create(&f->m, &kernels_dry, &a, DS_F32, &f->layout, (ZeroKeep){0}, NULL);
    kvcache_create(&f->p, &f->m, SLOTS, TOKENS, BLOCK, NULL);
}

static void close(Fixture *f) {
    assert_int_equal(f->p.n_free, f->p.blocks);
    kvcache_begin(&f->p); // fatal if blocks are missing
    kvcache_destroy(&f->p);
    model_destroy(&f->m);
    layout_destroy(&f->layout);
}

// Every block is free, or has as many users as there are slots with it.
static void consistent(const KvPool *p) {
    int32_t users[SLOTS * EACH] = {0};
    bool idle[SLOTS * EACH] = {0};
    for (int64_t s = 0; s < SLOTS; s++)
        for (int64_t i = 0; i < p->used[s]; i++) users[p->table[s * p->ld + i]]++;
    for (int64_t i = 0; i < p->n_free; i++) {
        assert_false(idle[p->free[i]]);
        idle[p->free[i]] = true;
    }
    for (int64_t b = 0; b < p->blocks; b++) {
        assert_int_equal(p->users[b], users[b]);
        assert_int_equal(idle[b], users[b] == 0);
    }
}

static int64_t common(const KvPool *p, int64_t a, int64_t b) {
    int64_t n = 0;
    for (int64_t i = 0; i < p->used[a] && i < p->used[b]; i++) n += p->table[a * p->ld + i] == p->table[b * p->ld + i];
    return n;
}

// The block of the prompt's last position is never shared, even where the prompt fills it.
static void what_is_shared(void **state) {
    (void)state;
    static const struct {
        int64_t prompt, blocks;
    } cases[] = {{1, 0}, {15, 0}, {16, 0}, {17, 1}, {32, 1}, {33, 2}, {48, 2}, {49, 3}, {TOKENS - 1, 4}};
    Fixture f;
    open(&f);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(kvcache_acquire(&f.p, 0, TOKENS));
        assert_true(kvcache_join(&f.p, 2, 0, cases[i].prompt, TOKENS));
        consistent(&f.p);
        assert_int_equal(common(&f.p, 0, 2), cases[i].blocks);
        assert_int_equal(f.p.n_free, SLOTS * EACH - 2 * EACH + cases[i].blocks);
        kvcache_release(&f.p, 0); // those that are shared stay
        consistent(&f.p);
        assert_int_equal(f.p.n_free, SLOTS * EACH - EACH);
        kvcache_release(&f.p, 2);
        consistent(&f.p);
    }
    close(&f);
}

// A full cache: whoever ends can be followed by one with the same prompt, of any length, and by another prompt.
static void full(void **state) {
    (void)state;
    Fixture f;
    open(&f);
    for (int64_t s = 0; s < SLOTS; s++) assert_true(kvcache_acquire(&f.p, s, TOKENS));
    assert_int_equal(f.p.n_free, 0);
    int32_t first[3];
    for (int i = 0; i < 3; i++) first[i] = f.p.table[EACH + i];
    assert_true(kvcache_succeed(&f.p, 1, 40, 41));
    assert_int_equal(f.p.n_free, EACH - 3);
    assert_true(kvcache_succeed(&f.p, 1, 40, TOKENS));
    for (int i = 0; i < 3; i++) assert_int_equal(f.p.table[EACH + i], first[i]); // the prompt in place
    consistent(&f.p);
    kvcache_release(&f.p, 0);
    assert_true(kvcache_join(&f.p, 0, 1, 40, TOKENS));
    assert_int_equal(f.p.n_free, 2);
    kvcache_release(&f.p, 2);
    assert_true(kvcache_join(&f.p, 2, 0, 40, TOKENS));
    assert_int_equal(f.p.n_free, 4);
    kvcache_release(&f.p, 2);
    assert_true(kvcache_acquire(&f.p, 2, 2 * BLOCK));
    consistent(&f.p);
    for (int64_t s = 0; s < SLOTS; s++) kvcache_release(&f.p, s);
    consistent(&f.p);
    close(&f);
}

int main(void) {
    world_init();
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_shared), cmocka_unit_test(full)};
    int failed = cmocka_run_group_tests_name("kvcache", tests, NULL, NULL);
    world_finalize();
    return failed;
}
